# PYTHON_ARGCOMPLETE_OK
"""Run a sweep: `python tune_main.py --search sed`. See `--help`."""

import sys

from sweeps.cli.tune import tune_main

if __name__ == "__main__":
    sys.exit(tune_main())
