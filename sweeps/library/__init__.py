"""Sweeps as Python objects, for notebooks and scripts: what `from sweeps import load_sweep, run_sweep` gives."""

from sweeps.library.running import run_sweep
from sweeps.library.sweep import Stage, Sweep, Trial, load_sweep

__all__ = ["Stage", "Sweep", "Trial", "load_sweep", "run_sweep"]
