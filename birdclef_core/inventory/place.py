"""Puts what was collected under one folder: audio as links or copies, for those who want a folder that can be moved, and what
goes with a data set besides recordings.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd

from birdclef_core.data.metadata import parse_labels
from birdclef_core.errors import DataError

_THREADS = 8


def place_files(
    sources: Sequence[str],
    targets: Sequence[str],
    out: Path,
    *,
    how: Literal["link", "copy"],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Makes `out`/target of each source. What is there with the same size and time of change stays as it is.

    Links are hard links, symbolic ones where the source lies on another file system; a copy appears whole or not at all. Raises
    DataError when a file cannot be placed.
    """

    def place(index: int) -> None:
        _place(Path(sources[index]), out / targets[index], how)

    with ThreadPoolExecutor(_THREADS) as pool:
        for done, _ in enumerate(pool.map(place, range(len(sources))), start=1):
            if progress:
                progress(done, len(sources))


def carry_soundscapes(
    folders: Sequence[Path], out: Path, renamed: Mapping[str, str], *, how: Literal["link", "copy"]
) -> Path | None:
    """The first labelled soundscapes of the folders, under `out`: the labels with renamed codes, the audio's folder as a symbolic
    link or a copy. Returns where they are; None where no folder has any."""
    for folder in folders:
        for labels in sorted(folder.glob("*_soundscape*_labels.csv")):
            audio = folder / f"{labels.name.split('_')[0]}_soundscapes"
            if audio.is_dir():
                _write_labels(labels, out / labels.name, renamed)
                _carry_folder(audio, out / audio.name, how)
                return out / audio.name
    return None


def _write_labels(source: Path, target: Path, renamed: Mapping[str, str]) -> None:
    table = pd.read_csv(source, dtype=str, keep_default_na=False)
    for name in {"labels", "birds"} & set(table.columns):
        table[name] = [" ".join(renamed.get(code, code) for code in parse_labels(text)) for text in table[name]]
    table.to_csv(target, index=False)


def _carry_folder(source: Path, target: Path, how: Literal["link", "copy"]) -> None:
    if how == "copy":
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif not target.exists():
        target.unlink(missing_ok=True)
        target.symlink_to(source.resolve(), target_is_directory=True)


def _place(source: Path, target: Path, how: Literal["link", "copy"]) -> None:
    try:
        if _same(source, target):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        aside.unlink(missing_ok=True)
        if how == "copy":
            shutil.copy2(source, aside)
        else:
            _link(source, aside)
        aside.replace(target)
    except OSError as error:
        raise DataError(f"{source} must be placed at {target} by {how}, but: {error.strerror}. Run again to go on.") from error


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        target.symlink_to(source.resolve())


def _same(source: Path, target: Path) -> bool:
    try:
        there = target.stat()
    except FileNotFoundError:
        return False
    here = source.stat()
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
