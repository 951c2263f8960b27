"""Runs a sweep from Python, as `tune_main.py` does from the command line."""

from pathlib import Path
from typing import Any

from rich.console import Console

from sweeps.library.sweep import Sweep, load_sweep
from sweeps.options import SweepOptions


def run_sweep(search: str | Path, *, console: Console | None = None, **options: Any) -> Sweep:
    """Run a sweep to its end and return it.

    `search`: sed, cnn or all, or a search file. `options`: the flags of `tune_main.py` by their names in SweepOptions, such as
    `data="inputs/"`, `samples=16`, `name="first"` or `tracking_uri="off"`; `settings={"epochs": 2}` is `--set epochs=2`. Progress
    goes to `console`, by default to standard output. It blocks until the sweep has ended; Ctrl-C (in a notebook: interrupt) stops it so that
    `python tune_main.py --resume NAME` continues it. Raises InputError for wrong input, before anything is trained.
    """
    from sweeps.run.runner import start_sweep  # imports Ray, which takes seconds

    chosen = SweepOptions(search=str(search), **options)
    result = start_sweep(chosen, console or Console())
    return load_sweep(result.name, storage=chosen.storage)
