"""Finds the audio under a folder, and what is there that cannot be used as audio, so that no file disappears in silence."""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from birdclef_core.errors import DataError

RECORDING_FOLDERS = ("train_audio", "train_audios", "train_short_audio")
NOISE_FOLDER = "background_noise"
AUDIO_SUFFIXES = frozenset({"ogg", "mp3", "wav", "flac", "oga", "opus", "aif", "aiff", "aifc", "au", "caf", "w64"})
"""Extensions of the formats that libsndfile reads."""
OTHER_SUFFIXES = frozenset(
    {"m4a", "m4b", "mp4", "aac", "alac", "wma", "asf", "mp2", "amr", "3gp", "ape", "wv", "mka", "mkv", "webm", "mov", "avi"}
    | {"ac3", "ra", "spx", "tta", "wac", "w4v"}
)
"""Extensions of audio and video that is not read here."""

_MAGIC = frozenset({b"OggS", b"RIFF", b"RF64", b"fLaC", b"FORM", b"caff", b".snd"})
_NOT_DATA = frozenset({"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"})
"""Folders that systems make for themselves; those whose names begin with a dot, such as .ipynb_checkpoints, are skipped too."""


@dataclass(frozen=True)
class FolderAudio:
    """The audio under a folder. Paths are relative to the root that was walked, with `/` between their parts, and sorted."""

    paths: tuple[str, ...] = ()
    """Files with an extension of `AUDIO_SUFFIXES`, and those of `OTHER_SUFFIXES` that hold a format that is read all the same."""
    other_formats: tuple[str, ...] = ()
    """The other files with an extension of `OTHER_SUFFIXES`."""
    unreachable: dict[str, str] = field(default_factory=dict)
    """Why a file or folder cannot be used, by its path (bytes that are not UTF-8 are shown as `\\xe9`)."""
    loops: tuple[str, ...] = ()
    """Links to a folder above themselves, which are not followed."""


def walk_audio(root: Path, folder: str) -> FolderAudio:
    """Return the audio under root/folder, at any depth; links are followed, unless they lead back to a folder above themselves.

    A folder that does not exist has none.
    """
    found = _Walk(root)
    top = root if folder == "." else root / folder
    with suppress(OSError):
        above = {_identity(path.stat()) for path in (top.resolve(), *top.resolve().parents)}
        found.visit(top, "" if folder == "." else f"{folder}/", above)
    return FolderAudio(
        tuple(sorted(found.paths)),
        tuple(sorted(found.other_formats)),
        dict(sorted(found.unreachable.items())),
        tuple(sorted(found.loops)),
    )


def list_audio(root: Path, folder: str) -> list[str]:
    """Return the paths of all audio files under root/folder, relative to root, sorted."""
    return list(walk_audio(root, folder).paths)


def names_in(folder: Path) -> list[str]:
    """Return the names of what lies in a folder, sorted. Raises DataError when it is no folder that can be read."""
    try:
        return sorted(item.name for item in folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"The folder must exist, but {shown(str(folder))} does not.") from None
    except OSError as error:
        raise DataError(f"{shown(str(folder))} must be a folder that can be read, but: {error.strerror}.") from error


def is_data_folder(name: str) -> bool:
    """Return whether a folder of this name can hold data, rather than what a system or an editor keeps for itself."""
    return not name.startswith(".") and name not in _NOT_DATA


def suffix_of(name: str) -> str:
    """Return the extension of a file name or path in lower case, without its dot; an empty text when there is none."""
    stem, _, suffix = name.rsplit("/", 1)[-1].rpartition(".")
    return suffix.lower() if stem else ""


def shown(name: str) -> str:
    """Return a file name as text that can be written anywhere: bytes that are not UTF-8 as `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


class _Walk:
    """What has been found so far."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.paths: list[str] = []
        self.other_formats: list[str] = []
        self.unreachable: dict[str, str] = {}
        self.loops: list[str] = []

    def visit(self, directory: Path, prefix: str, above: set[tuple[int, int]]) -> None:
        """Look at a folder and those within it. `above` identifies the folder and all folders that it lies in."""
        try:
            with os.scandir(directory) as entries:
                listed = list(entries)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                self.unreachable[shown(prefix.removesuffix("/")) or "."] = f"the folder cannot be read: {error.strerror}"
            return
        for entry in listed:
            if _is_folder(entry):
                self._enter(entry, prefix, above)
            elif not entry.name.startswith("."):
                self._take(entry, prefix + entry.name)

    def _enter(self, entry: os.DirEntry[str], prefix: str, above: set[tuple[int, int]]) -> None:
        if not is_data_folder(entry.name):
            return
        try:
            identity = _identity(entry.stat())
        except OSError as error:
            self.unreachable[shown(prefix + entry.name)] = f"the folder cannot be reached: {error.strerror}"
            return
        if identity in above:
            self.loops.append(shown(prefix + entry.name))
        else:
            self.visit(Path(entry.path), f"{prefix}{entry.name}/", above | {identity})

    def _take(self, entry: os.DirEntry[str], path: str) -> None:
        suffix = suffix_of(path)
        if suffix not in AUDIO_SUFFIXES and suffix not in OTHER_SUFFIXES:
            return
        if not _is_text(path):
            self.unreachable[shown(path)] = "its name is not UTF-8: rename it"
        elif _is_special(entry):
            self.unreachable[path] = "a pipe or a device, not a file"
        elif suffix in AUDIO_SUFFIXES or _is_readable(Path(entry.path)):
            self.paths.append(path)
        else:
            self.other_formats.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is there and is no regular file; reading a pipe would wait for ever."""
    try:
        return not entry.is_file() and not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False  # A link to nothing: opening it gives the reason.


def _is_readable(path: Path) -> bool:
    """Return whether a file begins as one of a format that libsndfile reads, whatever its name says."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def by_extension(paths: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield each extension of `paths` and how often it occurs, the most frequent first."""
    suffixes = [suffix_of(path) for path in paths]
    yield from sorted(((name, suffixes.count(name)) for name in set(suffixes)), key=lambda item: (-item[1], item[0]))
