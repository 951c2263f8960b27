"""What a folder of recordings says of them, whatever its layout: claims about recordings, noise, and audio that nothing names.

The layouts are told apart by looking:
    birdclef    a metadata table beside `train_audio/`, `train_audios/` or `train_short_audio/` (2020 to today)
    xeno_canto  `<letter>/<species>/XC123.mp3` or `A-M/<species>/...`, with a table beside it or without
    folders     `<species>/<anything>.ogg`, with a table beside it or without
    table       a metadata table alone, such as the complete metadata: it describes recordings that come from other sources
    noise       a folder whose name says so, or that is given as noise
A folder whose sub-folders are such is all of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import NOISE_FOLDER, RECORDING_FOLDERS, list_audio, locate
from birdclef_core.data.manifest import MANIFEST_NAME
from birdclef_core.data.metadata import METADATA_NAMES, describes_recordings, read_metadata
from birdclef_core.errors import DataError

CLAIM_COLUMNS = (
    *("primary_label", "secondary_labels", "filename", "author", "rating", "latitude", "longitude", "year"),
    *("scientific_name", "common_name", "path", "by_table"),
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
    """The folder's name; unlike that of any other source once they were named apart."""
    path: Path
    layout: str
    claims: pd.DataFrame
    """`CLAIM_COLUMNS`, one row for each time a recording is named: what `read_metadata` gives (ratings NaN, texts "" when
    unknown), `path` (absolute, None where the audio is not here) and whether a table says so or only the folder's name. Audio
    that neither labels comes last, with the primary label ""."""
    noise: pd.DataFrame
    """path (absolute) and group."""


def open_source(path: Path) -> list[Source]:
    """The sources that a folder, or a metadata table, holds. Raises DataError when it holds none."""
    path = path.absolute()
    if not path.exists():
        raise DataError(f"A source must be a folder or a metadata table, but {path} does not exist.")
    found = [_table_source(path)] if path.is_file() else _look(path, nested=False)
    if not found:
        raise DataError(
            f"{path} must hold recordings, but has neither a metadata table, nor {', '.join(RECORDING_FOLDERS)}, nor folders of "
            "species with audio, nor noise. Give the folder in which these lie."
        )
    return found


def named_apart(sources: Sequence[Source]) -> list[Source]:
    """The sources, those whose names another one has with their parent folder's name before their own, or numbered."""
    names: list[str] = []
    for source in sources:
        wanted = (source.path.name, f"{source.path.parent.name}/{source.path.name}")
        numbered = (f"{wanted[1]}-{number}" for number in range(2, len(sources) + 2))
        names.append(next(name for name in (*wanted, *numbered) if name not in names))
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def noise_source(path: Path) -> Source:
    """A folder of background noise: each sub-folder is a group, and so is a flat folder that is not called background_noise.

    Folders of the collections that the recipes use get the recipes' groups: nocall (BirdCLEF's no-call clips), field
    (freefield1010, warblrb, BirdVox) and ambient (rainforest, environment). Raises DataError where there is no audio.
    """
    path = path.absolute()
    noise = _noise(path)
    if noise.empty:
        raise DataError(f"{path} must hold noise, but there is no audio in it.")
    return Source(path.name, path, "noise", _claims_by_folder(path, []), noise)


def _look(path: Path, *, nested: bool) -> list[Source]:
    if _is_collection(path):
        raise DataError(f"{path} is a collection already. Give the sources that it was collected from.")
    table, folders = _table_of(path), _audio_folders(path)
    if table is None and not folders:
        if _is_noise(path.name):
            return [noise_source(path)] if list_audio(path, ".") else []
        inner = [item for item in _folders(path) if not _SOUNDSCAPES.search(item.name) and not _is_collection(item)]
        if not nested and any(_table_of(item) or _audio_folders(item) for item in inner):
            return [source for item in inner for source in _look(item, nested=True)]
    source = _source(path, table, folders or ["."])
    return [source] if len(source.claims) or len(source.noise) else []


def _folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith("."))


def _table_of(path: Path) -> Path | None:
    """The metadata table of a folder: one of BirdCLEF's names first, else any CSV with the columns of one."""
    named = [path / name for name in METADATA_NAMES if (path / name).is_file()]
    others = [item for item in sorted(path.glob("*.csv")) if item not in named]
    return next((item for item in (*named, *others) if describes_recordings(item)), None)


def _audio_folders(path: Path) -> list[str]:
    """BirdCLEF's audio folders, else those that are called by letters."""
    named = [name for name in RECORDING_FOLDERS if (path / name).is_dir()]
    letters = [item.name for item in _folders(path) if _LETTERS.fullmatch(item.name) and _folders(item)]
    return named or letters


def _source(path: Path, table: Path | None, folders: Sequence[str]) -> Source:
    paths = [name for folder in folders for name in _recordings(path, folder)]
    claims = _claims_by_folder(path, paths) if table is None else _claims_by_table(path, table, paths)
    named = set(claims["path"].dropna())
    unnamed = [absolute for name in paths if (absolute := _absolute(path, name)) not in named]
    if set(folders) & set(RECORDING_FOLDERS):
        layout = "birdclef"
    elif "." in folders:
        layout = "table" if table is not None and not paths else "folders"
    else:
        layout = "xeno_canto"
    noise = [_noise(item) for item in _folders(path) if _is_noise(item.name)]
    return Source(path.name, path, layout, _with_unlabelled(claims, unnamed), pd.concat([_NO_NOISE, *noise], ignore_index=True))


def _with_unlabelled(claims: pd.DataFrame, paths: Sequence[str]) -> pd.DataFrame:
    """The claims, then audio without a label: a table of another source may know it by its number."""
    if not paths:
        return claims
    names = pd.Series(paths, dtype=str).str.rsplit("/", n=1).str[-1]
    blank = _claims_by_folder(Path(), [f"//{name}" for name in names]).assign(path=pd.Series(paths, dtype=object))
    return pd.concat([claims, blank], ignore_index=True)


def _recordings(path: Path, folder: str) -> list[str]:
    """Audio of an audio folder as `folder/inside`; of the source itself, without noise, soundscapes and what was
    collected into it."""
    if folder != ".":
        return list_audio(path, folder)
    aside = {
        item.name for item in _folders(path) if _is_noise(item.name) or _SOUNDSCAPES.search(item.name) or _is_collection(item)
    }
    return [f"./{name}" for name in list_audio(path, ".") if name.split("/")[0] not in aside]


def _is_collection(path: Path) -> bool:
    return (path / MANIFEST_NAME).is_file()


def _is_noise(name: str) -> bool:
    return bool(_NOISE_NAME.search(name))


def _claims_by_table(path: Path, table: Path, paths: Sequence[str]) -> pd.DataFrame:
    claims = read_metadata(table, unknown_rating=float("nan"))
    located = locate(claims["filename"], claims["primary_label"], paths)
    claims["path"] = pd.Series([name and _absolute(path, name) for name in located], index=claims.index, dtype=object)
    return _completed(claims.assign(by_table=True))


def _claims_by_folder(path: Path, paths: Sequence[str]) -> pd.DataFrame:
    """A claim for each file in a folder of a species; the folder's name may be a code or a name of the species."""
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
            "by_table": False,
        }
    )
    return _completed(claims)


def _completed(claims: pd.DataFrame) -> pd.DataFrame:
    for name in ("latitude", "longitude", "year"):
        if name not in claims:
            claims[name] = float("nan")
    for name in ("scientific_name", "common_name"):
        if name not in claims:
            claims[name] = ""
    return claims[list(CLAIM_COLUMNS)]


def _table_source(path: Path) -> Source:
    if not describes_recordings(path):
        raise DataError(f"{path} must be a metadata table (primary_label, filename or id, ...), but has not the columns of one.")
    return Source(path.name, path, "table", _claims_by_table(path.parent, path, []), _NO_NOISE)


def _noise(path: Path) -> pd.DataFrame:
    paths = list_audio(path, ".") if path.is_dir() else []
    own = "" if path.name == NOISE_FOLDER else path.name
    groups = [_noise_group(name.split("/")[0] if "/" in name else own) for name in paths]
    return pd.DataFrame({"path": [_absolute(path, name) for name in paths], "group": groups}, dtype=object)


def _noise_group(folder: str) -> str:
    return next((group for group, pattern in _NOISE_GROUPS.items() if pattern.search(folder)), folder)


def _absolute(path: Path, name: str) -> str:
    return f"{path.as_posix()}/{name.removeprefix('./')}"
