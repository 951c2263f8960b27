"""Opens the collections that people have, in the layouts of BirdCLEF's years and of Xeno-canto: what each says of its recordings,
its noise, and audio that nothing names.

A layout is recognised by what lies in the folder:
    birdclef    a metadata table beside `train_audio/`, `train_audios/` or `train_short_audio/` (2020 to today)
    xeno_canto  `<letter>/<species>/XC123.mp3` or `A-M/<species>/...`, with a table beside it or without
    folders     `<species>/<anything>.ogg`, with a table beside it or without
    table       a metadata table alone, such as the complete metadata: it describes recordings that come from other sources
    noise       a folder whose name says so, or that is given as noise
A folder whose sub-folders are such is all of them.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from birdclef_core.data.folder_walk import (
    NOISE_FOLDER,
    RECORDING_FOLDERS,
    FolderAudio,
    is_data_folder,
    names_in,
    shown,
    walk_audio,
)
from birdclef_core.data.listing import formats_in_words, unread_findings
from birdclef_core.data.manifest import MANIFEST_NAME
from birdclef_core.data.metadata import read_metadata
from birdclef_core.data.row_audio import locate, why_missing
from birdclef_core.data.tables import is_there
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding
from birdclef_core.inventory.source_tables import SourceTables, find_tables, has_table

CLAIM_COLUMNS = (
    *("primary_label", "secondary_labels", "filename", "author", "rating", "latitude", "longitude", "year", "date"),
    *("scientific_name", "common_name", "path", "absence", "by_table"),
)

_LETTERS = re.compile(r"[A-Za-z](-[A-Za-z])?")
_NOISE_NAME = re.compile(r"noise|no.?call|freefield|ff1010|warblr|birdvox|rainforest|environment|ambient|esc.?50", re.IGNORECASE)
_NOISE_GROUPS = {
    "nocall": re.compile(r"no.?call", re.IGNORECASE),
    "field": re.compile(r"freefield|ff1010|warblr|birdvox", re.IGNORECASE),
    "ambient": re.compile(r"rainforest|environment|ambient|esc.?50", re.IGNORECASE),
}
_NO_NOISE = pd.DataFrame(columns=["path", "group"], dtype=object)
_SOUNDSCAPES = re.compile(r"soundscape", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One collection of recordings as it lies there."""

    name: str
    """The folder's name; after `named_apart`, no two sources have the same."""
    path: Path
    layout: str
    claims: pd.DataFrame
    """`CLAIM_COLUMNS`, one row for each time a recording is named: what `read_metadata` gives (ratings NaN, texts "" when
    unknown), path (absolute, None where the audio is not here), absence (why it is not, where more is known than that it is
    missing) and by_table (whether a table says so, or only the folder's name). Audio that neither labels comes last, with the
    primary label ""."""
    noise: pd.DataFrame
    """path (absolute) and group."""
    findings: tuple[Finding, ...] = ()
    """What is there and is not read."""


def open_source(path: Path) -> list[Source]:
    """Return the sources that a folder, or a metadata table, holds. Raises DataError when it holds none or cannot be read."""
    path = _in_utf8(path.absolute())
    if path.is_dir():
        names_in(path)
        found = _look(path, nested=False)
    elif is_there(path):
        found = [_table_source(path)]
    else:
        raise DataError(f"A source must be a folder or a metadata table, but {path} does not exist.")
    if not found:
        raise DataError(
            f"{path} must hold recordings, but has neither a metadata table, nor {', '.join(RECORDING_FOLDERS)}, nor folders of "
            "species with audio, nor noise. Give the folder in which these lie."
        )
    return found


def named_apart(sources: Sequence[Source]) -> list[Source]:
    """Return the sources; where two have the same name, one gets its parent folder's name before its own, or a number after it."""
    names: list[str] = []
    for source in sources:
        wanted = (source.path.name, f"{source.path.parent.name}/{source.path.name}")
        numbered = (f"{wanted[1]}-{number}" for number in range(2, len(sources) + 2))
        names.append(next(name for name in (*wanted, *numbered) if name not in names))
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def noise_source(path: Path) -> Source:
    """Return a folder of background noise: each sub-folder is a group, as is a flat folder that is not called background_noise.

    Folders of the collections that the recipes use get the recipes' groups: nocall (BirdCLEF's no-call clips), field
    (freefield1010, warblrb, BirdVox) and ambient (rainforest, environment). Raises DataError where there is no audio.
    """
    path = _in_utf8(path.absolute())
    if not path.is_dir():
        raise DataError(f"Noise must be a folder, but {path} is none.")
    audio = walk_audio(path, ".")
    if not audio.paths:
        others = f", only {formats_in_words(audio.other_formats)}, which are not read" if audio.other_formats else ""
        raise DataError(f"{path} must hold noise, but there is no audio in it{others}.")
    return Source(path.name, path, "noise", _claims_by_folder(path, []), _noise(path, audio), _unread(path, [audio]))


def _in_utf8(path: Path) -> Path:
    if shown(str(path)) != str(path):
        raise DataError(
            f"The path of a source must be UTF-8, since it is written into the manifest, but {shown(str(path))} is not."
        )
    return path


def _look(path: Path, *, nested: bool) -> list[Source]:
    if _is_collection(path):
        raise DataError(f"{path} is a collection already. Give the sources that it was collected from.")
    tables, folders = find_tables(path), _audio_folders(path)
    if tables.used is None and not folders:
        if _is_noise(path.name):
            return [noise_source(path)] if walk_audio(path, ".").paths else []
        inner = [item for item in _folders(path) if not _SOUNDSCAPES.search(item.name) and not _is_collection(item)]
        if not nested and any(has_table(item) or _audio_folders(item) for item in inner):
            return [source for item in inner for source in _look(item, nested=True)]
    source = _source(path, tables, folders or ["."])
    return [source] if len(source.claims) or len(source.noise) or source.findings else []


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder that can hold data, without links back to it or above it."""
    try:
        listed = sorted(item for item in path.iterdir() if item.is_dir() and is_data_folder(item.name))
    except OSError as error:
        raise DataError(f"{path} must be a folder that can be read, but: {error.strerror}.") from error
    above = (path.resolve(), *path.resolve().parents)
    return [item for item in listed if not (item.is_symlink() and item.resolve() in above)]


def _audio_folders(path: Path) -> list[str]:
    """Return BirdCLEF's audio folders, else those that are called by letters."""
    named = [name for name in RECORDING_FOLDERS if (path / name).is_dir()]
    if named:
        return named
    letters: list[str] = []
    with suppress(DataError):  # A folder without permission has none; the walk says so.
        letters = [item.name for item in _folders(path) if _LETTERS.fullmatch(item.name) and _folders(item)]
    return letters


def _source(path: Path, tables: SourceTables, folders: Sequence[str]) -> Source:
    walked = [_recordings(path, folder) for folder in folders]
    paths = [name for audio in walked for name in audio.paths]
    others = [name for audio in walked for name in audio.other_formats]
    findings: tuple[Finding, ...] = ()
    if tables.used is None:
        claims = _claims_by_folder(path, paths)
    else:
        claims, findings = _claims_by_table(path, tables.used, paths, others)
    named = set(claims["path"].dropna())
    unnamed = [absolute for name in paths if (absolute := _absolute(path, name)) not in named]
    if set(folders) & set(RECORDING_FOLDERS):
        layout = "birdclef"
    elif "." in folders:
        layout = "table" if tables.used is not None and not paths else "folders"
    else:
        layout = "xeno_canto"
    noises = {item: walk_audio(item, ".") for item in _folders(path) if _is_noise(item.name)}
    findings += tables.findings(any_audio=bool(paths or others))
    findings += _unread(path, walked, known_labels=set(claims["primary_label"]))
    findings += tuple(finding for item, audio in noises.items() for finding in _unread(item, [audio]))
    noise = pd.concat([_NO_NOISE, *(_noise(item, audio) for item, audio in noises.items())], ignore_index=True)
    return Source(path.name, path, layout, _with_unlabelled(claims, unnamed), noise, findings)


def _unread(path: Path, walked: Sequence[FolderAudio], *, known_labels: set[str] | None = None) -> tuple[Finding, ...]:
    """Return findings on what is not read in a source, with the species that are lost by it."""
    absolute = [
        FolderAudio(
            other_formats=tuple(_absolute(path, name) for name in audio.other_formats),
            unreachable={_absolute(path, name): why for name, why in audio.unreachable.items()},
            loops=tuple(_absolute(path, name) for name in audio.loops),
        )
        for audio in walked
    ]
    found = unread_findings(absolute)
    if known_labels is None:
        return found
    folders = {parts[1] for audio in walked for name in audio.other_formats if len(parts := name.split("/")) > 2}
    lost = sorted(folders - known_labels)
    if not lost:
        return found
    said = f" Nothing is left of {len(lost):,} species: {', '.join(lost)}."
    return tuple(replace(item, meaning=item.meaning + said) if item.kind == "unread_format" else item for item in found)


def _with_unlabelled(claims: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    """Return the claims, then audio without a label: a table of another source may know it by its number."""
    if not paths:
        return claims
    names = pd.Series(paths, dtype=str).str.rsplit("/", n=1).str[-1]
    blank = _claims_by_folder(Path(), [f"//{name}" for name in names]).assign(path=pd.Series(paths, dtype=object))
    return pd.concat([claims, blank], ignore_index=True)


def _recordings(path: Path, folder: str) -> FolderAudio:
    """Return audio of an audio folder as `folder/inside`; of the source itself as `./inside`, without noise, soundscapes and what was
    collected into it."""
    if folder != ".":
        return walk_audio(path, folder)
    aside = {
        item.name for item in _folders(path) if _is_noise(item.name) or _SOUNDSCAPES.search(item.name) or _is_collection(item)
    }
    audio = walk_audio(path, ".")

    def kept(names: Sequence[str]) -> list[str]:
        return [f"./{name}" for name in names if name.split("/")[0] not in aside]

    return FolderAudio(
        tuple(kept(audio.paths)),
        tuple(kept(audio.other_formats)),
        {f"./{name}": why for name, why in audio.unreachable.items() if name.split("/")[0] not in aside},
        tuple(kept(audio.loops)),
    )


def _is_collection(path: Path) -> bool:
    return (path / MANIFEST_NAME).is_file()


def _is_noise(name: str) -> bool:
    return bool(_NOISE_NAME.search(name))


def _claims_by_table(
    path: Path, table: Path, paths: Sequence[str], others: Sequence[str]
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    metadata = read_metadata(table)
    claims = metadata.table
    located = locate(claims["filename"], claims["primary_label"], paths)
    claims["path"] = pd.Series([name and _absolute(path, name) for name in located], index=claims.index, dtype=object)
    absence = pd.Series(None, index=claims.index, dtype=object)
    if others and located.isna().any():
        rows = claims[located.isna()]
        known = pd.Series(why_missing(rows["filename"], rows["primary_label"], others), index=rows.index)
        absence.update(known[known != "missing"])
    return _completed(claims.assign(by_table=True, absence=absence)), metadata.findings


def _claims_by_folder(path: Path, paths: Sequence[str]) -> pd.DataFrame:
    """Return a claim for each file in a folder of a species; the folder's name may be a code or a name of the species."""
    labelled = [name.split("/") for name in paths if name.count("/") >= 2]
    species = pd.Series([parts[1] for parts in labelled], dtype=str)
    claims = pd.DataFrame(
        {
            "primary_label": species,
            "secondary_labels": pd.Series([()] * len(labelled), dtype=object),
            "filename": pd.Series(["/".join(parts[1:]) for parts in labelled], dtype=str),
            "author": "",
            "rating": float("nan"),
            "scientific_name": species,
            "common_name": species,
            "path": pd.Series([_absolute(path, "/".join(parts)) for parts in labelled], dtype=object),
            "absence": pd.Series([None] * len(labelled), dtype=object),
            "by_table": False,
        }
    )
    return _completed(claims)


def _completed(claims: pd.DataFrame) -> pd.DataFrame:
    for name in ("latitude", "longitude", "year"):
        if name not in claims:
            claims[name] = float("nan")
    for name in ("date", "scientific_name", "common_name"):
        if name not in claims:
            claims[name] = ""
    return claims[list(CLAIM_COLUMNS)]


def _table_source(path: Path) -> Source:
    claims, findings = _claims_by_table(path.parent, path, [], [])
    return Source(path.name, path, "table", claims, _NO_NOISE, findings)


def _noise(path: Path, audio: FolderAudio) -> pd.DataFrame:
    own = "" if path.name == NOISE_FOLDER else path.name
    groups = [_noise_group(name.split("/")[0] if "/" in name else own) for name in audio.paths]
    return pd.DataFrame({"path": [_absolute(path, name) for name in audio.paths], "group": groups}, dtype=object)


def _noise_group(folder: str) -> str:
    return next((group for group, pattern in _NOISE_GROUPS.items() if pattern.search(folder)), folder)


def _absolute(path: Path, name: str) -> str:
    return f"{path.as_posix()}/{name.removeprefix('./')}"
