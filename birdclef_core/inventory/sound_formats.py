"""In which formats, at which sample rates and with how many channels recordings came."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import read_header

_FACTS = ["sample_rate_hz", "channels", "format"]
_THREADS = 16


def sound_formats(root: Path, paths: pd.Series, known: pd.DataFrame) -> pd.DataFrame:
    """Return sample_rate_hz, channels and format of each path.

    `known` are the recordings of a `Listing`: a manifest has these facts; other folders have their files opened.
    """
    if set(_FACTS) <= set(known):
        facts = known.dropna(subset=["path"]).drop_duplicates("path").set_index("path")[_FACTS]
        return facts.reindex(paths).reset_index(drop=True)
    with ThreadPoolExecutor(_THREADS) as pool:
        headers = list(pool.map(lambda path: read_header(root / path), paths, chunksize=64))
    return pd.DataFrame([[getattr(header, name) for name in _FACTS] for header in headers], columns=_FACTS)
