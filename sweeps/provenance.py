"""What a sweep ran with: the versions of libraries, and the commit of the code."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries on which a result may depend."""
    packages = ("torch", "torchaudio", "timm", "ray", "optuna", "mlflow", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def git_commit() -> str:
    """The commit of the running checkout, with `+` when files differ from it; empty outside a checkout."""
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip()
