"""Using trained stages: `load_detector` for a notebook, and what the commands that predict are made of."""

from sweeps.deploy.loading import load_detector

__all__ = ["load_detector"]
