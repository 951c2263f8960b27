"""`run_sweep`: the options that reach the driver, and what comes back."""

import made_up_store
import pytest
from rich.console import Console

from birdclef_core.errors import InputError
from sweeps import run_sweep
from sweeps.report.results import SweepResult
from sweeps.run import runner


def test_run_sweep_runs_with_its_options_and_returns_the_sweep(tmp_path, monkeypatch):
    made_up_store.make(str(tmp_path))
    seen = []

    def start(options, console):
        seen.append((options, console))
        return SweepResult(name="s", trials=[], objective=None, best=None, best_checkpoint=None, interrupted=False, leaks={})

    monkeypatch.setattr(runner, "start_sweep", start)
    console = Console(quiet=True)
    sweep = run_sweep("sed", console=console, storage=str(tmp_path), samples=3, settings={"epochs": 2})
    assert (sweep.name, sweep.best().record.trial) == ("s", "t0000")
    ((options, used),) = seen
    assert (options.search, options.samples, options.settings, used) == ("sed", 3, {"epochs": 2}, console)


def test_wrong_options_are_refused_before_anything_runs():
    with pytest.raises(InputError, match="--samples >= 1 must hold"):
        run_sweep("sed", samples=0)
    with pytest.raises(TypeError, match="sample"):
        run_sweep("sed", sample=3)
