"""Puts what was collected under one folder: audio as links or copies, for those who want a folder that can be moved, and what
goes with a data set besides recordings.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from birdclef_core.data.labels import parse_labels
from birdclef_core.data.soundscapes import LABEL_COLUMNS, find_soundscapes, load_soundscapes
from birdclef_core.data.tables import Table, read_table
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding

_THREADS = 8


def place_files(
    sources: Sequence[str],
    targets: Sequence[str],
    out: Path,
    *,
    how: Literal["link", "copy"],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make `out`/target of each source. What is there with the same size and time of change stays as it is.

    Links are hard links, symbolic ones where the source lies on another file system; a copy appears complete or not at all. Raises
    DataError when a file cannot be placed.
    """

    def place(index: int) -> None:
        _place(Path(sources[index]), out / targets[index], how)

    with ThreadPoolExecutor(_THREADS) as pool:
        for done, _ in enumerate(pool.map(place, range(len(sources))), start=1):
            if progress:
                progress(done, len(sources))


def choose_soundscapes(folders: Sequence[Path]) -> tuple[Path | None, tuple[Finding, ...]]:
    """Return the first folder with labelled soundscapes and their audio, None where there is none, and what was found about them.

    Raises DataError as `load_soundscapes` does.
    """
    chosen: Path | None = None
    findings: list[Finding] = []
    without_audio, more = [], []
    for folder in folders:
        found = find_soundscapes(folder)
        if found is None:
            continue
        if not found[1].is_dir():
            without_audio.append(str(found[0]))
        elif chosen is None:
            chosen, soundscapes = folder, load_soundscapes(folder)
            findings += soundscapes.findings if soundscapes else ()
        else:
            more.append(str(found[0]))
    fault = "[table|tables] of soundscape labels [has|have] no audio beside [it|them]"
    findings.append(Finding.of("soundscapes_without_audio", fault, without_audio, "left out: nothing can be scored on them."))
    fault = "more [source has|sources have] labelled soundscapes"
    findings.append(Finding.of("more_soundscapes", fault, more, f"left out: a data folder has one set, and that is of {chosen}."))
    return chosen, tuple(finding for finding in findings if finding.count)


def carry_soundscapes(folder: Path, out: Path, renamed: Mapping[str, str], *, how: Literal["link", "copy"]) -> None:
    """Put the labelled soundscapes of a folder under `out`: the labels with renamed codes, their audio as a link or copy."""
    found = find_soundscapes(folder)
    if found is not None:
        labels, audio = found
        _write_labels(labels, out / labels.name, renamed)
        _carry_folder(audio, out / audio.name, how)


def _write_labels(source: Path, target: Path, renamed: Mapping[str, str]) -> None:
    table = read_table(source)
    rows = table.rows
    for name in set(LABEL_COLUMNS) & set(rows.columns):
        rows[name] = [_renamed(table, row, text, renamed) for row, text in enumerate(rows[name])]
    rows.to_csv(target, index=False)


def _renamed(table: Table, row: int, text: str, renamed: Mapping[str, str]) -> str:
    try:
        return " ".join(renamed.get(code, code) for code in parse_labels(text))
    except ValueError as error:
        raise DataError(
            f"Labels must be codes such as `amecro gretit1`, but line {table.line(row)} of {table.path} has {text!r}: {error}."
        ) from error


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
