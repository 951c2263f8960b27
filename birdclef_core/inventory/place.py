"""Puts collected audio under one folder, as links or copies, for those who want a folder that can be moved."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

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
