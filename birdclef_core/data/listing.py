"""What a data folder names and holds, before anything is judged: rows of its metadata with their audio, noise, and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import (
    NOISE_FOLDER,
    RECORDING_FOLDERS,
    list_audio,
    locate,
    read_headers,
    stat_files,
)
from birdclef_core.data.manifest import MANIFEST_NAME, read_manifest
from birdclef_core.data.metadata import UNKNOWN_RATING, metadata_path, read_metadata
from birdclef_core.errors import DataError

_FACTS = ("duration_s", "size_bytes", "error")


@dataclass(frozen=True)
class Listing:
    """The rows and files of a data folder."""

    recordings: pd.DataFrame
    """One row a row of the metadata: `read_metadata`'s columns, `path` (None where there is no audio) and, from a manifest,
    `recording_id`, `source`, duration_s, size_bytes and error."""
    noise: pd.DataFrame
    """path and group; from a manifest also duration_s, size_bytes and error."""
    unlabelled: tuple[str, ...]
    """Audio that no row names."""
    metadata: Path


def list_folder(root: Path) -> Listing:
    """Reads the metadata of a BirdCLEF-shaped or collected folder and finds the audio of each row, without opening any.

    Raises DataError for a folder or metadata that is missing or cannot be read, and where there is no audio at all.
    """
    manifest = root / MANIFEST_NAME
    if manifest.is_file():
        return _list_manifest(manifest)
    metadata = metadata_path(root)
    table = read_metadata(metadata)
    paths = [path for folder in RECORDING_FOLDERS for path in list_audio(root, folder)]
    if not paths:
        raise DataError(f"{root} must hold audio under {', '.join(RECORDING_FOLDERS)}, but there is none.")
    table["path"] = locate(table["filename"], table["primary_label"], paths)
    named = set(table["path"].dropna())
    noise = list_audio(root, NOISE_FOLDER)
    parts = [path.split("/") for path in noise]
    groups = [part[1] if len(part) > 2 else "" for part in parts]
    return Listing(
        recordings=table,
        noise=pd.DataFrame({"path": noise, "group": groups}, dtype=object),
        unlabelled=tuple(path for path in paths if path not in named),
        metadata=metadata,
    )


def with_headers(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """`table` with duration_s, size_bytes and error of each path: as probed when it was collected, or read now.

    What a manifest says is taken where the file still has the size that it had then.
    """
    paths: Sequence[str] = list(table["path"])
    if "error" not in table:
        return pd.concat([table, read_headers(root, paths)], axis=1)
    changed = table.index[(stat_files(root, paths)["size_bytes"] != table["size_bytes"].to_numpy()).to_numpy()]
    if len(changed):
        table = table.copy()
        headers = read_headers(root, list(table["path"][changed])).set_index(changed)
        table.loc[changed, list(_FACTS)] = headers[list(_FACTS)]
    return table


def _list_manifest(path: Path) -> Listing:
    rows = read_manifest(path)
    recordings = rows[rows["kind"] == "recording"].reset_index(drop=True)
    if recordings.empty:
        raise DataError(f"{path} must name at least one recording, but has none.")
    recordings["filename"] = recordings["path"].where(recordings["path"].notna(), recordings["recording_id"])
    recordings["rating"] = recordings["rating"].fillna(UNKNOWN_RATING)
    recordings["source"] = recordings["sources"].str[0]
    unknown = [name for name in ("latitude", "longitude", "year") if recordings[name].isna().all()]
    recordings = recordings.drop(columns=["kind", "group", "sources", "sample_rate_hz", "channels", "format", *unknown])
    noise = rows.loc[rows["kind"] == "noise", ["path", "group", *_FACTS]].reset_index(drop=True)
    return Listing(recordings, noise, (), path)
