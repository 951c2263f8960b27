"""Finds the audio files that a user names: files, and folders with all that lies in them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from birdclef_core.data.audio_files import Header, read_header
from birdclef_core.data.folder_walk import shown, suffix_of, walk_audio
from birdclef_core.errors import InputError
from birdclef_core.inference.results.formats import AudioFile, short_name

_THREADS = 16


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be predicted."""

    label: str
    """What tables call it."""
    reason: str


@dataclass(frozen=True)
class FoundAudio:
    """The files that a user named, each once, in sorted order."""

    files: tuple[AudioFile, ...]
    unreadable: tuple[Unreadable, ...]
    """What was named or lies in a folder that was named, and cannot be read as audio."""


def find_audio(paths: Sequence[Path], *, out: Path | None = None, may_be_empty: bool = False) -> FoundAudio:
    """Return the audio that paths name. A folder stands for the audio in it, at any depth.

    What lies in `out` is left out: the results of an earlier run, such as windows that were cut out, are no recordings. Raises
    InputError when there is neither a file to predict nor one that is unreadable, unless `may_be_empty`.
    """
    found: dict[Path, tuple[str, Path]] = {}
    unreadable: list[Unreadable] = []
    for path in paths:
        if path.is_dir():
            audio = walk_audio(path, ".")
            for inside in audio.paths:
                place = (path / inside).resolve()
                if out is None or not place.is_relative_to(out.resolve()):
                    found.setdefault(place, (inside, path))
            unreadable += _not_audio(path, audio.unreachable, audio.other_formats)
        elif path.is_file():
            found.setdefault(path.resolve(), (path.name, path.parent))
        else:
            # Reading a pipe would wait for ever.
            unreadable.append(
                Unreadable(shown(str(path)), "a pipe or a device, not a file" if path.exists() else "does not exist")
            )
    for place, (inside, folder) in list(found.items()):
        if not _is_text(str(folder / inside)):  # libsndfile cannot open it
            unreadable.append(Unreadable(shown(str(folder / inside)), "its name is not UTF-8: rename it"))
            del found[place]
    if not (found or unreadable or may_be_empty):
        raise InputError(f"At least one audio file must be named, but there is none in {', '.join(map(str, paths))}.")
    named = sorted((shown(str(folder / inside)), inside, folder) for inside, folder in found.values())
    places = _different([shown(inside) for _, inside, _ in named])
    files = [
        AudioFile(folder / inside, label, folder, place) for (label, inside, folder), place in zip(named, places, strict=True)
    ]
    return FoundAudio(tuple(files), tuple(sorted(unreadable, key=lambda item: item.label)))


def read_durations(files: Sequence[AudioFile]) -> list[Header]:
    """Return what the structure of each file says, without decoding it."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda audio: read_header(audio.path), files))


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _not_audio(folder: Path, unreachable: dict[str, str], other_formats: Iterable[str]) -> Iterator[Unreadable]:
    for inside, reason in unreachable.items():
        yield Unreadable(shown(f"{folder}/{inside}"), reason)
    for inside in other_formats:
        yield Unreadable(f"{folder}/{inside}", f"{suffix_of(inside).upper()} is not read here: convert it to FLAC or OGG")


def _different(names: Sequence[str]) -> list[PurePosixPath]:
    """Return the names without their suffixes as places for tables. Where two would be the same, later ones get -2, -3, ..."""
    taken: set[PurePosixPath] = set()
    places = []
    for name in names:
        path = PurePosixPath(name)
        stem, number = short_name(path.stem), 1
        place = path.with_name(stem)
        while place in taken:
            number += 1
            place = path.with_name(f"{stem}-{number}")
        taken.add(place)
        places.append(place)
    return places
