"""The command line of `tune_main.py`, which runs sweeps; `birdclef_cli.py` has the rest."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from birdclef_core.errors import InputError
from sweeps.cli.common import EXIT_INTERRUPTED, bytes_argument, guarded, parse_settings
from sweeps.options import DEFAULT_STORAGE, FOLD_HELP, PLACEMENT, SweepOptions

_EPILOG = """examples:
  python tune_main.py --search sed                        the synthetic demo set, a small budget, all of it real
  python tune_main.py --search sed --data inputs/ --samples 64 --gpus-per-trial 0.5
  python tune_main.py --search sed --data inputs/ --address auto --storage s3://bucket/sweeps
  python tune_main.py --search sed --data inputs/ --plan  the tree of stages, GPU hours and bytes; trains nothing
  python tune_main.py --resume NAME                       go on with a sweep that was stopped or killed
  python tune_main.py --extend NAME --samples 32          more trials for a sweep that has ended
"""


def tune_main(arguments: Sequence[str] | None = None) -> int:
    """`python tune_main.py`: 0 done, 1 no trial finished, 2 wrong input, 130 stopped by Ctrl-C."""
    return guarded(lambda: _tune(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _tune_parser()
    parsed = parser.parse_args(arguments)
    if not (parsed.search or parsed.resume or parsed.extend):
        parser.error("one of --search, --resume and --extend is needed")
    if parsed.resume and parsed.search:
        parser.error("--resume goes on with the sweep's own search: --search is for a new sweep or with --extend")
    return parsed


def _tune_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tune_main.py",
        description="Sweep staged training of bird-sound detectors: Ray Tune runs the trials, Optuna samples them, MLflow shows them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--search", metavar="NAME|FILE", help="a search in sweeps/searches/ (sed, cnn, all) or a .py file of your own"
    )
    known = parser.add_argument_group("going on from what there is")
    one_of = known.add_mutually_exclusive_group()
    one_of.add_argument(
        "--resume",
        metavar="NAME",
        help="go on with a sweep: ended trials stay, the others go on from their last epoch; flags of where it runs may be given again",
    )
    one_of.add_argument(
        "--extend",
        metavar="NAME",
        help="--samples N trials more for a sweep that has ended; what it was started with is kept but for the flags that you give: "
        "--search for other backbones, ranges or stages, --set; only what is new is trained",
    )
    known.add_argument(
        "--from-stage",
        metavar="REF",
        help="start every trial from this checkpoint and train the stages after it: the beginning of a stage id, SWEEP (its best "
        "trial), SWEEP/TRIAL or SWEEP/TRIAL/STAGE; also what `birdclef store import` made",
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
        metavar="SHARE",
        help="share of recordings that may be unusable (default 0.05)",
    )
    data.add_argument("--fold", type=int, metavar="K", help=FOLD_HELP)
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
        "--samples",
        type=int,
        metavar="N",
        help="number of trials (default 6 with the small budget, 32 with the full); with --extend, how many more",
    )
    size.add_argument(
        "--budget",
        choices=("small", "full"),
        help="small: tiny spectrograms and epochs, for CPUs; full: the recipes as they are (default: full with GPUs and --data)",
    )
    size.add_argument("--seed", type=int, help="of the search (default 0)")
    size.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any configuration field, for all stages, one stage or the model: --set epochs=2 --set train_ce.clip_s=10 "
        "--set spectrogram.num_mels=64; what is set is not sampled (repeatable)",
    )
    size.add_argument("--pretrained", metavar="auto|require|off|PATH", help="encoder weights (default auto: if reachable)")
    place = parser.add_argument_group("where it runs and what it leaves")
    place.add_argument("--name", help="of the sweep (default: search and time)")
    place.add_argument(
        "--storage", metavar="DIR|URI", help="checkpoints and records: a folder, s3:// or gs:// (default sweeps-output)"
    )
    place.add_argument(
        "--max-store-bytes",
        type=bytes_argument,
        metavar="N",
        help="such as 200G: while the sweep runs, stages that are least worth keeping go (default: all stay)",
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
    given = _given(arguments)
    storage = given.get("storage", DEFAULT_STORAGE)
    if arguments.resume:
        _refuse(given, "--resume goes on with what the sweep was started with", allowed=("storage", *PLACEMENT))
        if arguments.plan:
            raise InputError("--plan takes a new sweep (--search) or more of one (--extend), but got --resume.")
    if arguments.extend and "name" in given:
        raise InputError(f"--extend {arguments.extend} goes on under that name, but got --name {given['name']}.")
    options = SweepOptions(**given) if not (arguments.resume or arguments.extend) else None

    # Ray, torch and Optuna take seconds to import: not before the arguments are known to be good.
    from sweeps.run import runner

    console = Console(file=sys.stdout)
    if arguments.plan:
        if options is None:
            runner.plan_extension(arguments.extend, storage, given, console, arguments.price_per_hour)
        else:
            runner.plan_sweep(options, console, arguments.price_per_hour)
        return 0
    if arguments.resume:
        result = runner.resume_sweep(arguments.resume, storage, given, console)
    elif options is None:
        result = runner.extend_sweep(arguments.extend, storage, given, console)
    else:
        result = runner.start_sweep(options, console)
    return EXIT_INTERRUPTED if result.interrupted else 0


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Options of a sweep that stand on the command line, by their names."""
    own = ("resume", "extend", "set", "plan", "price_per_hour")
    given = {key: value for key, value in vars(arguments).items() if key not in own and value is not None}
    return given | ({"settings": parse_settings(arguments.set)} if arguments.set else {})


def _refuse(given: Mapping[str, Any], rule: str, *, allowed: Sequence[str]) -> None:
    flags = ["--set" if key == "settings" else f"--{key.replace('_', '-')}" for key in given if key not in allowed]
    if flags:
        raise InputError(f"{rule}, but got {', '.join(flags)}. Once it has ended, --extend takes them.")
