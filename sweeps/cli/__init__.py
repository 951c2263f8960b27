"""The command lines: `tune_main.py` runs sweeps, `birdclef` does everything else."""
