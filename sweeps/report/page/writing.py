"""Writes the page of sweeps: for the command line, and for the driver of a sweep that runs."""

import os
from collections.abc import Sequence
from pathlib import Path

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import sweeps_in
from sweeps.options import DEFAULT_STORAGE
from sweeps.report.page.page import report_page
from sweeps.report.page.shown import ShownSweep
from sweeps.report.results import RESULT_FOLDER
from sweeps.schedule.records import SweepRecords

REPORT = "report.html"


def make_report(storage: Storage, names: Sequence[str], file: Path | None) -> Path:
    """Write the page of the sweeps of these names, by default of the newest, and return its path.

    Raises InputError when there is no such sweep or one of its records cannot be read.
    """
    if not names:
        known = {name: SweepRecords(storage.at(name)).load_sweep().started_at for name in sweeps_in(storage)}
        if not known:
            raise InputError(f"There is no sweep in {storage.root} yet.")
        names = [max(known, key=lambda name: known[name])]
    sweeps = [ShownSweep.load(storage, name) for name in dict.fromkeys(names)]
    if file is None:
        local = Path(storage.root if storage.is_local else DEFAULT_STORAGE).resolve()
        file = local / sweeps[0].name / RESULT_FOLDER / REPORT if len(sweeps) == 1 else Path(REPORT).resolve()
    write_report(file, sweeps)
    return file


def write_report(file: Path, sweeps: Sequence[ShownSweep]) -> None:
    """Write the page of these sweeps at once: a browser never reads half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    page = report_page(sweeps, file.parent)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(file)


def write_while_running(place: str, name: str, file: str) -> None:
    """Write the page of a sweep whose driver runs. It is called in a process of its own, which leaves the processor to others."""
    os.nice(10)
    write_report(Path(file), [ShownSweep.load(Storage.parse(place), name)])
