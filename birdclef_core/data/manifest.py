"""The manifest: one Parquet table of every recording and noise file, with labels and probed facts, wherever the audio lies."""

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.errors import DataError

MANIFEST_NAME = "manifest.parquet"

_VERSION = "2"
_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),  # recording or noise
        ("recording_id", pa.string()),  # XC<number> or the file's name, unique
        ("path", pa.string()),  # absolute, or relative to the manifest's folder; null where no audio was found
        ("group", pa.string()),  # of noise
        ("primary_label", pa.string()),
        ("secondary_labels", pa.list_(pa.string())),
        ("author", pa.string()),
        ("rating", pa.float64()),  # NaN when not rated
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("year", pa.float64()),  # of recording, NaN when unknown
        ("date", pa.string()),  # of recording, as 2023-05-24; empty when unknown
        ("scientific_name", pa.string()),
        ("common_name", pa.string()),
        ("sources", pa.list_(pa.string())),  # which collections it came in, that of its audio first
        ("duration_s", pa.float64()),
        ("sample_rate_hz", pa.int32()),
        ("channels", pa.int16()),
        ("format", pa.string()),  # of the content, in libsndfile's words
        ("size_bytes", pa.int64()),
        ("error", pa.string()),  # why the audio cannot be used; empty when it can
    ],
    metadata={"birdclef_manifest": _VERSION},
)


def write_manifest(table: pd.DataFrame, path: Path) -> None:
    """Write rows with the manifest's columns; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        rows = pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False)
        pq.write_table(rows, aside, compression="zstd", write_page_checksum=True)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_manifest(path: Path) -> pd.DataFrame:
    """Return the manifest's rows; labels and sources are tuples, `path` is None where there is no audio.

    Raises DataError for a file that is no manifest, is of another version, or has rows without an id, a kind or a label.
    """
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        rows = table.to_pandas()
        texts = {name: table[name].to_pylist() for name in ("path", "secondary_labels", "sources")}
    except (OSError, pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{path} must be a manifest that can be read, but: {error}. Collect the sources again.") from error
    version = (table.schema.metadata or {}).get(b"birdclef_manifest", b"").decode(errors="replace")
    if version != _VERSION or not table.schema.equals(_SCHEMA):
        raise DataError(
            f"{path} must be a manifest of version {_VERSION}, but is {'of ' + version if version else 'none'}. Collect the "
            "sources again."
        )
    is_recording = rows["kind"] == "recording"
    odd = rows["recording_id"].isna() | ~rows["kind"].isin(["recording", "noise"]) | (is_recording & rows["primary_label"].isna())
    if odd.any() or rows["recording_id"][is_recording].duplicated().any():
        raise DataError(
            f"Every row of {path} must have a kind and an id of its own, and a label if it is a recording, but not every row has. "
            "Collect the sources again."
        )
    for name in ("secondary_labels", "sources"):
        rows[name] = pd.Series([tuple(item or ()) for item in texts[name]], index=rows.index, dtype=object)
    rows["path"] = pd.Series(texts["path"], index=rows.index, dtype=object)
    return rows
