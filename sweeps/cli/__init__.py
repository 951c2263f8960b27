"""The two commands, `tune_main.py` and `birdclef`."""
