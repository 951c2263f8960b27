"""The search: trials as chains of stages, run on Ray, sampled by Optuna, tracked by MLflow.

In a notebook: `from sweeps import load_sweep, run_sweep, load_detector`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.deploy import load_detector as load_detector
    from sweeps.library import load_sweep as load_sweep
    from sweeps.library import run_sweep as run_sweep

_FROM = {"load_detector": "sweeps.deploy", "load_sweep": "sweeps.library", "run_sweep": "sweeps.library"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import sweeps` alone takes no time, and torch and Ray take seconds."""
    if name not in _FROM:
        raise AttributeError(f"module 'sweeps' has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FROM])
