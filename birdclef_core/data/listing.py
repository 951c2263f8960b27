"""What a data folder names and holds, before anything is judged: rows of its metadata with their audio, noise, and the rest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import read_headers, stat_files
from birdclef_core.data.folder_walk import (
    NOISE_FOLDER,
    RECORDING_FOLDERS,
    FolderAudio,
    by_extension,
    names_in,
    shown,
    walk_audio,
)
from birdclef_core.data.manifest import MANIFEST_NAME, read_manifest
from birdclef_core.data.metadata import METADATA_NAMES, metadata_path, read_metadata
from birdclef_core.data.row_audio import locate, why_missing
from birdclef_core.data.tables import is_there
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, inflect

_FACTS = ("duration_s", "size_bytes", "error")


@dataclass(frozen=True)
class Listing:
    """The rows and files of a data folder."""

    recordings: pd.DataFrame
    """One row a row of the metadata: the columns of `Metadata.table`, path (None where there is no audio), absence (why there is
    none, or "") and, from a manifest, recording_id, source, duration_s, sample_rate_hz, channels, format, size_bytes and error."""
    noise: pd.DataFrame
    """path and group; from a manifest also duration_s, size_bytes and error."""
    unlabelled: tuple[str, ...]
    """Audio that no row names."""
    metadata: Path
    findings: tuple[Finding, ...] = ()
    """What the folder holds that is not read."""


def list_folder(root: Path) -> Listing:
    """Return the rows of the metadata of a BirdCLEF-shaped or collected folder with the audio of each, without opening any audio.

    Raises DataError for a folder or metadata that is missing or cannot be read, and where there is no audio at all.
    """
    if (name := shown(str(root.absolute()))) != str(root.absolute()):
        raise DataError(f"The path of a data folder must be UTF-8, but {name} is not. Rename the folder.")
    names_in(root)
    manifest = root / MANIFEST_NAME
    if is_there(manifest):
        return _list_manifest(manifest)
    path = metadata_path(root)
    metadata = read_metadata(path)
    table = metadata.table
    walked = [walk_audio(root, folder) for folder in RECORDING_FOLDERS]
    paths = [name for audio in walked for name in audio.paths]
    others = [name for audio in walked for name in audio.other_formats]
    if not paths:
        seen = " ".join(finding.describe() for finding in unread_findings(walked))
        raise DataError(f"{root} must hold audio under {', '.join(RECORDING_FOLDERS)}, but there is none. {seen}".rstrip())
    table["path"] = locate(table["filename"], table["primary_label"], paths)
    absent = table["path"].isna()
    table["absence"] = ""
    if absent.any():
        rows = table[absent]
        table.loc[absent, "absence"] = why_missing(rows["filename"], rows["primary_label"], others)
    named = set(table["path"].dropna())
    noise = walk_audio(root, NOISE_FOLDER)
    parts = [name.split("/") for name in noise.paths]
    groups = [part[1] if len(part) > 2 else "" for part in parts]
    return Listing(
        recordings=table,
        noise=pd.DataFrame({"path": list(noise.paths), "group": groups}, dtype=object),
        unlabelled=tuple(name for name in paths if name not in named),
        metadata=path,
        findings=(*metadata.findings, *_other_tables(path), *unread_findings([*walked, noise])),
    )


def with_headers(root: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` with duration_s, size_bytes and error of each path: as probed when it was collected, or read now.

    What a manifest says counts where the file still has the size that it had then.
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


def unread_findings(walked: Iterable[FolderAudio]) -> tuple[Finding, ...]:
    """Return findings on audio that is there and not read: in other formats, or out of reach."""
    walked = list(walked)
    others = [path for audio in walked for path in audio.other_formats]
    unreachable = {path: why for audio in walked for path, why in audio.unreachable.items()}
    loops = [path for audio in walked for path in audio.loops]
    found = [
        Finding.of(
            "unread_format",
            "audio [file is|files are] in a format that is not read",
            others,
            f"left out: {formats_in_words(others)}. Convert them, for example with `ffmpeg -i FILE FILE.flac`.",
        ),
        Finding.of(
            "unreachable",
            "[file or folder|files or folders] with audio cannot be reached",
            [f"{path}: {why}" for path, why in unreachable.items()],
            "left out of training and scoring.",
        ),
        Finding.of(
            "link_loop",
            "[link leads|links lead] back to a folder above [itself|themselves]",
            loops,
            "not followed: nothing is lost by it.",
            level="note",
        ),
    ]
    return tuple(finding for finding in found if finding.count)


def formats_in_words(paths: Sequence[str]) -> str:
    """Return how many files there are of each extension."""
    counts = ", ".join(f"{count:,} .{suffix}" for suffix, count in by_extension(tuple(paths)))
    return f"{counts} {inflect('[file|files]', len(paths))}"


def _other_tables(metadata: Path) -> tuple[Finding, ...]:
    others = [name for name in METADATA_NAMES if name != metadata.name and (metadata.parent / name).exists()]
    if not others:
        return ()
    meaning = f"not read: {metadata.name} counts. Remove or rename the one that you do not want."
    return (Finding.of("second_table", "more metadata [table lies|tables lie] in the folder", others, meaning, level="note"),)


def _list_manifest(path: Path) -> Listing:
    rows = read_manifest(path)
    recordings = rows[rows["kind"] == "recording"].reset_index(drop=True)
    if recordings.empty:
        raise DataError(f"{path} must name at least one recording, but has none.")
    recordings["filename"] = recordings["path"].where(recordings["path"].notna(), recordings["recording_id"])
    recordings["absence"] = recordings["path"].isna().map({True: "missing", False: ""})
    recordings["source"] = recordings["sources"].str[0]
    unknown = [name for name in ("latitude", "longitude", "year") if recordings[name].isna().all()]
    unknown += ["date"] if (recordings["date"] == "").all() else []
    recordings = recordings.drop(columns=["kind", "group", "sources", *unknown])
    noise = rows.loc[rows["kind"] == "noise", ["path", "group", *_FACTS]].reset_index(drop=True)
    return Listing(recordings, noise, (), path)
