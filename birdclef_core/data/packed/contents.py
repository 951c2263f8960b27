"""What of a data folder is packed, and under which path: its tables, and the audio that these name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.listing import list_folder
from birdclef_core.data.manifest import MANIFEST_NAME
from birdclef_core.data.soundscapes import labelled_audio
from birdclef_core.errors import DataError

TABLE_SUFFIXES = (".csv", ".txt", ".parquet")
"""Files directly in a data folder that are packed: metadata, manifest, split, target species, labels of soundscapes, taxonomies."""
_OUTSIDE = "audio_elsewhere"
"""The folder of a packed set for audio that lay outside of the data folder."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The files of a packed set, each by its path in it. A path is relative, with `/` between its parts."""

    tables: Mapping[str, Path]
    audio: Mapping[str, Path]
    """Recordings, noise and soundscapes."""
    missing: tuple[str, ...]
    """Audio that the manifest names and that cannot be read."""
    dataset: Dataset
    """What is in them, with fold 0."""


def find_contents(root: Path, scratch: Path) -> Contents:
    """Return what is to be packed of a data folder. A manifest with other paths than here is written into `scratch`.

    The audio that no table names is left out. What is packed is read once as it will be read later, and must have the data fingerprint of
    the folder. Raises DataError as `load_dataset` does, and when it has not.
    """
    before = load_dataset(root, max_bad_share=1.0)
    listing = list_folder(root)
    named = [*listing.recordings["path"].dropna(), *listing.noise["path"].dropna(), *labelled_audio(root)]
    named += list(before.unlabelled.files["path"]) if before.unlabelled else []
    places = {path: _inside(path) for path in dict.fromkeys(named)}
    readable = {path: root / path for path in places if os.access(root / path, os.R_OK) and (root / path).is_file()}
    tables = {item.name: item for item in sorted(root.iterdir()) if _is_table(item)}
    if MANIFEST_NAME in tables and any(path != place for path, place in places.items()):
        tables[MANIFEST_NAME] = _with_paths(tables[MANIFEST_NAME], places, scratch)
    audio = {places[path]: file for path, file in sorted(readable.items(), key=lambda item: places[item[0]])}
    after = load_dataset(_linked(tables | audio, scratch / "packed"), max_bad_share=1.0)
    if after.fingerprint != before.fingerprint:
        raise DataError(
            f"{root} must be the same data once it is packed, but has data fingerprint {before.fingerprint[:16]} and would have "
            f"{after.fingerprint[:16]}: {_difference(before, after)}. Collect it first: `birdclef data collect {root} --out NEW`, and pack NEW."
        )
    return Contents(tables=tables, audio=audio, missing=tuple(path for path in places if path not in readable), dataset=before)


def _is_table(item: Path) -> bool:
    return item.suffix.lower() in TABLE_SUFFIXES and not item.name.startswith(".") and item.is_file()


def _inside(path: str) -> str:
    """The path of audio in the packed set: as it was, or in a folder of its own where it lay outside of the data folder."""
    pure = PurePosixPath(path)
    if not pure.is_absolute() and ".." not in pure.parts:
        return str(pure)
    folder = sha256(str(pure.parent).encode()).hexdigest()[:16]
    return f"{_OUTSIDE}/{folder}/{pure.name}"


def _with_paths(manifest: Path, places: Mapping[str, str], scratch: Path) -> Path:
    """Write the manifest with the paths of the packed set, and return it."""
    table = pq.read_table(manifest)
    paths = [places.get(path, path) for path in table["path"].to_pylist()]
    number = table.schema.get_field_index("path")
    moved = table.set_column(number, table.schema.field(number), pa.array(paths, pa.string()))
    pq.write_table(moved, scratch / MANIFEST_NAME, compression="zstd", write_page_checksum=True)
    return scratch / MANIFEST_NAME


def _linked(files: Mapping[str, Path], folder: Path) -> Path:
    """Make a folder of links that looks as the packed set will look."""
    for path, file in files.items():
        link = folder / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return folder


def _difference(before: Dataset, after: Dataset) -> str:
    if len(before.recordings) != len(after.recordings):
        return f"{len(before.recordings):,} recordings became {len(after.recordings):,}"
    columns = [name for name in before.recordings if name in after.recordings and name != "path"]
    differing = [name for name in columns if not _equal(before.recordings[name], after.recordings[name])]
    return f"the columns {', '.join(differing)} differ" if differing else "noise or soundscapes differ"


def _equal(first: pd.Series, second: pd.Series) -> bool:
    return first.reset_index(drop=True).equals(second.reset_index(drop=True))
