"""The command line of `tune_main.py`, which runs sweeps; `birdclef_cli.py` has the rest."""

import argparse
import ast
import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from birdclef_core.errors import BirdclefError, InputError
from sweeps.options import DEFAULT_STORAGE, SweepOptions

EXIT_INTERRUPTED = 130

_EPILOG = """examples:
  python tune_main.py --search sed                        the synthetic demo set, a small budget, all of it real
  python tune_main.py --search sed --data inputs/ --samples 64 --gpus-per-trial 0.5
  python tune_main.py --search sed --data inputs/ --address auto --storage s3://bucket/sweeps
  python tune_main.py --search sed --data inputs/ --plan  the tree of stages, GPU hours and bytes; trains nothing
  python tune_main.py --resume NAME                       go on with a sweep that was stopped or killed
"""


def tune_main(arguments: Sequence[str] | None = None) -> int:
    """`python tune_main.py`: 0 done, 1 no trial finished, 2 wrong input, 130 stopped by Ctrl-C."""
    return guarded(lambda: _tune(_tune_parser().parse_args(arguments)))


def _tune_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune_main.py",
        description="Sweep staged training of bird-sound detectors: Ray Tune runs the trials, Optuna samples them, MLflow shows them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--search", metavar="NAME|FILE", help="a search in sweeps/searches/ (sed, cnn, all) or a .py file of your own"
    )
    which.add_argument(
        "--resume", metavar="NAME", help="go on with a sweep: ended trials stay, the others go on from their last epoch"
    )
    plan = parser.add_argument_group("before it runs")
    plan.add_argument("--plan", action="store_true", help="say what the sweep would do and cost, train nothing")
    plan.add_argument("--price-per-hour", type=float, metavar="PRICE", help="of a GPU (of a worker without GPUs), for the plan")
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="DIR", help="a BirdCLEF-shaped folder (default: make and use the synthetic demo set)")
    data.add_argument("--target-species", metavar="FILE", help="codes of the species to detect, one a line (default: all)")
    data.add_argument(
        "--max-bad-share",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="share of recordings that may be unusable (default 0.05)",
    )
    data.add_argument(
        "--cache-dir", metavar="DIR", help="where decoded audio is kept, on each machine (default ~/.cache/birdclef-sweeps)"
    )
    data.add_argument(
        "--max-seconds-per-recording",
        type=float,
        metavar="S",
        help="use and cache only so much of each recording (default: all of it)",
    )
    data.add_argument(
        "--max-bytes",
        type=int,
        metavar="N",
        help="of the cache; what has no room is decoded whenever it is read (default: the free disk)",
    )
    size = parser.add_argument_group("size")
    size.add_argument(
        "--samples", type=int, metavar="N", help="number of trials (default 6 with the small budget, 32 with the full)"
    )
    size.add_argument(
        "--budget",
        choices=("small", "full"),
        help="small: tiny spectrograms and epochs, for CPUs; full: the recipes as they are (default: full with GPUs and --data)",
    )
    size.add_argument("--seed", type=int, default=0, help="of the search (default 0)")
    size.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any configuration field, for all stages, one stage or the model: --set epochs=2 --set train_ce.clip_s=10 "
        "--set spectrogram.num_mels=64; what is set is not sampled (repeatable)",
    )
    size.add_argument(
        "--pretrained", default="auto", metavar="auto|require|off|PATH", help="encoder weights (default auto: if reachable)"
    )
    place = parser.add_argument_group("where it runs and what it leaves")
    place.add_argument("--name", help="of the sweep (default: search and time)")
    place.add_argument(
        "--storage", metavar="DIR|URI", help="checkpoints and records: a folder, s3:// or gs:// (default sweeps-output)"
    )
    place.add_argument(
        "--address", metavar="ADDRESS", help="a Ray cluster to join; auto for the one of this machine (default: start one)"
    )
    place.add_argument(
        "--gpus-per-trial", type=float, metavar="N", help="GPUs of one trial, fractions allowed (default 1 if there are any)"
    )
    place.add_argument(
        "--cpus-per-trial", type=int, metavar="N", help="CPU cores of one trial (default: equal shares; 1 without GPUs)"
    )
    place.add_argument("--max-concurrent", type=int, metavar="N", help="trials at a time (default: as many as fit)")
    place.add_argument(
        "--tracking-uri",
        metavar="URI|DIR|off",
        help="an MLflow server, a folder for a local one, or off (default: a local server on mlflow/)",
    )
    return parser


def _tune(arguments: argparse.Namespace) -> int:
    storage = arguments.storage or DEFAULT_STORAGE
    own = ("resume", "set", "storage", "plan", "price_per_hour")
    values = {key: value for key, value in vars(arguments).items() if key not in own and value is not None}
    options = None if arguments.resume else SweepOptions(**values, storage=storage, settings=parse_settings(arguments.set))
    if arguments.plan and options is None:
        raise InputError("--plan takes a new sweep (--search), but got --resume.")

    # Ray, torch and Optuna take seconds to import: not before the arguments are known to be good.
    from sweeps import runner

    console = Console(file=sys.stdout)
    if options is None:
        result = runner.resume_sweep(arguments.resume, storage, console)
    elif arguments.plan:
        runner.plan_sweep(options, console, arguments.price_per_hour)
        return 0
    else:
        result = runner.start_sweep(options, console)
    return EXIT_INTERRUPTED if result.interrupted else 0


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is read as a Python literal where it is one, else as text. Raises InputError without `=`."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, but got {pair!r}.")
        try:
            settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[key] = {"true": True, "false": False}.get(text.lower(), text)
    return settings


def guarded(command: Callable[[], int]) -> int:
    """Runs a command; an error of ours is one message on stderr and its exit code, not a traceback."""
    try:
        return command()
    except BirdclefError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return EXIT_INTERRUPTED
