"""The command line of `tune_main.py`, which plans and runs sweeps. `birdclef.py` has all other commands."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from birdclef_core.errors import InputError
from birdclef_core.store.patience import DEFAULT_MINUTES
from sweeps.cli.common import EXIT_INTERRUPTED, bytes_argument, guarded, parse_settings, parse_tags
from sweeps.cli.credentials import command_line
from sweeps.cli.detectors.after_sweep import THEN_FLAGS, Afterwards, add_then_options, run_commands
from sweeps.cli.parser import Parser, add_version_flag, complete
from sweeps.objective import COSTS
from sweeps.options import DEFAULT_STORAGE, DEMO_DATA, FOLD_HELP, PLACEMENT, TARGET_SPECIES_HELP, PruningName, SweepOptions
from sweeps.wording import REFERENCE

_EPILOG = """examples:
  python tune_main.py --search sed                        try it: real training on the synthetic demo set, in minutes
  python tune_main.py --search sed --data inputs/ --samples 64 --gpus-per-trial 0.5
  python tune_main.py --search sed --data inputs/ --address auto --storage s3://bucket/sweeps
  python tune_main.py --search sed --data inputs/ --then submit --soundscapes test_soundscapes/
  python tune_main.py --search sed --data inputs/ --plan  show the stages, GPU hours and bytes; train nothing
  python tune_main.py --resume NAME                       continue a sweep that was stopped or killed
  python tune_main.py --extend NAME --samples 32          add trials to a sweep that has ended

exit codes: 0 done, 1 the work failed, 2 wrong input (nothing was run), 130 stopped by Ctrl-C
"""

_COSTS = "; ".join(f"{name}, {meaning}" for name, meaning in COSTS.items())


def tune_main(arguments: Sequence[str] | None = None, *, prog: str = "tune_main.py") -> int:
    """Run `python tune_main.py` and return its exit code: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C.

    `prog` is what the command is called in its messages.
    """
    complete(lambda: tune_parser(prog))
    parsed = _parse(arguments, prog)
    return guarded(lambda: _tune(parsed), verbose=parsed.verbose)


def _parse(arguments: Sequence[str] | None, prog: str = "tune_main.py") -> argparse.Namespace:
    parser = tune_parser(prog)
    parsed = parser.parse_args(command_line(arguments))
    if not (parsed.search or parsed.resume or parsed.extend):
        parser.error("give --search for a new sweep, --resume NAME to continue one, or --extend NAME to add trials to one")
    if parsed.resume and parsed.search:
        parser.error("--resume continues with the sweep's own search; give --search for a new sweep or together with --extend")
    if parsed.drop_extension and not parsed.resume:
        parser.error("--drop-extension takes back an extension of the sweep that is resumed; give it with --resume NAME")
    if parsed.retry_failed and not parsed.resume:
        parser.error("--retry-failed tries the failed trials of a sweep again; give it with --resume NAME")
    return parsed


def tune_parser(prog: str = "tune_main.py") -> Parser:
    """Return the parser of all flags of a sweep. `prog` is what the command is called in its messages."""
    parser = Parser(
        prog=prog,
        description="Search for the best bird-sound detector: train models in stages, share stages between trials, compare the trials in "
        "MLflow.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version_flag(parser)
    parser.add_options_flag()
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="on a terminal, print a line for each epoch above the table too; with an error, show where in the code it happened",
    )
    how_much.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="show nothing of the trials while they run; warnings and the result are printed",
    )
    parser.add_argument(
        "--search",
        metavar="NAME|FILE",
        help="what to try: sed, cnn, all, noisy_student or heads (files in sweeps/searches/), or a .py file of your own",
    )
    known = parser.add_argument_group("starting from earlier work")
    one_of = known.add_mutually_exclusive_group()
    one_of.add_argument(
        "--resume",
        metavar="NAME",
        help="continue a sweep: ended trials stay as they are, the others continue from their last epoch; flags that say where it runs "
        "and limits may be given again",
    )
    one_of.add_argument(
        "--extend",
        metavar="NAME",
        help="add --samples N trials to a sweep that has ended; it keeps its options except for the flags that you give, such as "
        "--search for other backbones, ranges or stages; only new stages are trained",
    )
    known.add_argument(
        "--drop-extension",
        action="store_true",
        help="with --resume: draw no more trials of the sweep's last extension, for example because its search was a mistake; the trials "
        "that it has are finished",
    )
    known.add_argument(
        "--retry-failed",
        action="store_true",
        help="with --resume: try failed trials again, for example once the data or a driver that they lacked is there",
    )
    known.add_argument(
        "--from-stage",
        metavar="REF",
        help=f"start every trial from this stored stage and train only the stages after it; REF is {REFERENCE}, also of a stage that "
        "`birdclef store import` made",
    )
    known.add_argument(
        "--allow-leaked-scores",
        action="store_true",
        default=None,
        help="start although the stage of --from-stage or a stored teacher was trained on validation recordings or their authors, and mark every score as "
        "leaked: such scores are too high",
    )
    plan = parser.add_argument_group("planning")
    plan.add_argument(
        "--plan", action="store_true", help="show what the sweep would train and what it would cost, without training"
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        metavar="DIR|URI",
        help="a folder in the layout of BirdCLEF, or a set that `birdclef data pack` made, in a folder or at s3:// or gs://, which each machine "
        "fetches once into --cache-dir (default: the synthetic demo set, which is made first)",
    )
    data.add_argument(
        "--target-species",
        metavar="FILE",
        help=TARGET_SPECIES_HELP,
    )
    data.add_argument(
        "--max-bad-share",
        type=float,
        metavar="SHARE",
        help="refuse to start when more than this share of the recordings is unusable, 0 to 1 (default 0.05)",
    )
    data.add_argument("--fold", type=int, metavar="K", help=FOLD_HELP)
    data.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="train each trial on N folds, 0 to N-1, each stage for all folds before the next one; its score is the mean (2 to 5)",
    )
    data.add_argument(
        "--repeats",
        type=int,
        metavar="N",
        help="train each trial N times, with other random numbers each time; its score is the mean (2 or more)",
    )
    data.add_argument(
        "--cache-dir", metavar="DIR", help="folder for decoded audio, on each machine (default ~/.cache/birdclef-sweeps)"
    )
    data.add_argument(
        "--max-seconds-per-recording",
        type=float,
        metavar="S",
        help="use and cache only the first S seconds of each recording (default: all of it)",
    )
    data.add_argument(
        "--max-bytes",
        type=bytes_argument,
        metavar="N",
        help="most bytes of decoded audio, such as 200G, files of a packed set included; recordings without room are decoded at each use "
        "(default: the free disk)",
    )
    size = parser.add_argument_group("what is searched, and how much")
    size.add_argument(
        "--objective",
        metavar="SCORE[,COST]",
        help="what trials are compared by: a tracked score such as val/cmap, val/cmap_pad5, val/lrap or val_soundscapes/auroc, or a weighted "
        "sum such as 0.5*val/cmap+0.5*val_soundscapes/auroc (default: what the search says, else macro AUROC on labelled soundscapes where "
        f"the data have some, else unpadded val/cmap). With a cost beside it, the result is the Pareto front of both: {_COSTS}",
    )
    size.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="number of trials, of which each is trained (default 6 with the small budget, 32 with the full); with --extend, number of further trials",
    )
    size.add_argument(
        "--max-gpu-hours",
        type=float,
        metavar="H",
        help="most GPU hours (without GPUs: worker hours) of the whole sweep, extensions included: nothing is begun that cannot end within "
        "them, and the sweep ends with its result; without --samples it draws as many trials as they allow",
    )
    size.add_argument("--max-hours", type=float, metavar="H", help="most hours in which the sweep runs; the same")
    size.add_argument("--max-cost", type=float, metavar="MONEY", help="most money for GPU hours, at --price-per-hour; the same")
    size.add_argument(
        "--price-per-hour",
        type=float,
        metavar="PRICE",
        help="price of one GPU hour (without GPUs: of one worker hour), for --max-cost and to show money",
    )
    size.add_argument(
        "--budget",
        choices=("small", "full"),
        help="small: tiny spectrograms and short epochs, for CPUs; full: the recipes unchanged (default: full for a search file of "
        "your own, and with GPUs and --data; otherwise small)",
    )
    size.add_argument(
        "--pruning",
        choices=get_args(PruningName),
        help="worth: at the end of a stage, stop a trial if another one is worth more for what it costs (the default with the sampler "
        "stage); halving: stop stages whose scores are low among those of their kind (not with a COST); off: train every trial to its end",
    )
    size.add_argument(
        "--sampler",
        metavar="stage|tpe|random|grid|NAME",
        help="what draws the trials: stage (what may gain most for what it still costs; the default), tpe, random, grid (every point "
        "of a finite space), or the class of a sampler of Optuna, such as GPSampler",
    )
    size.add_argument("--seed", type=int, help="random seed of the sampler (default 0)")
    size.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set any configuration field, for all stages, one stage or the model: --set epochs=2 --set train_ce.weight_decay=0 "
        "--set spectrogram.num_mels=64; a field that is set is not sampled (repeatable)",
    )
    size.add_argument(
        "--pretrained",
        metavar="auto|require|off|PATH",
        help="first weights of the encoders: pretrained ones from the Hugging Face hub if it can be reached (auto, the default), from the "
        "hub or stop (require), random ones (off), or files of your own (PATH)",
    )
    place = parser.add_argument_group("where it runs and where results go")
    place.add_argument("--name", help="name of the new sweep (default: made of the search and the time)")
    place.add_argument(
        "--storage",
        metavar="DIR|URI",
        help=f"place of checkpoints and records: a folder, s3://... or gs://... (default {DEFAULT_STORAGE})",
    )
    place.add_argument(
        "--max-store-bytes",
        type=bytes_argument,
        metavar="N",
        help="most bytes of stored stages, such as 200G: while the sweep runs, those least worth keeping are removed (default: no limit)",
    )
    place.add_argument(
        "--storage-outage-minutes",
        type=float,
        metavar="M",
        help="for how long records and checkpoints wait when the storage (s3:// or gs://) cannot be reached, is too busy, or refuses "
        f"credentials that have expired (default {DEFAULT_MINUTES:g}); then the sweep stops and can be resumed",
    )
    place.add_argument(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster to join; auto: the one that this machine belongs to (default: start one here)",
    )
    place.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="N",
        help="GPUs per trial; 0.5 lets two trials share a GPU (default 1 if there are GPUs)",
    )
    place.add_argument(
        "--cpus-per-trial", type=int, metavar="N", help="CPU cores per trial (default: an equal share; 1 without GPUs)"
    )
    place.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="most trials at a time (default: as many as fit; counted anew as machines join and leave)",
    )
    place.add_argument(
        "--wait-for-gpus",
        type=int,
        metavar="N",
        help="with --address: begin once the cluster has N GPUs; an autoscaler is asked for them",
    )
    place.add_argument(
        "--tracking-uri",
        metavar="URI|DIR|off",
        help="address of an MLflow server, a folder for a local server, or off (default: a local server on mlflow/); user and password are "
        "read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or from ~/.mlflow/credentials",
    )
    told = parser.add_argument_group("what it is called, and whom it tells")
    told.add_argument(
        "--tag",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="tag of the sweep, shown in lists and on pages, and given to every run in MLflow (repeatable)",
    )
    told.add_argument("--note", metavar="TEXT", help="what to remember of the sweep, shown beside it")
    told.add_argument(
        "--on-end",
        metavar="COMMAND",
        help="command for the shell, run when the sweep has ended: the result as JSON is its standard input, and BIRDCLEF_RESULT names a file with "
        "it. A command that fails or hangs does not hold the sweep",
    )
    told.add_argument("--on-best", metavar="COMMAND", help="the same, whenever a trial has finished with the best score so far")
    add_then_options(parser)
    return parser


def _tune(arguments: argparse.Namespace) -> int:
    given = _given(arguments)
    storage = given.get("storage", DEFAULT_STORAGE)
    if arguments.resume:
        _refuse(given, "--resume continues a sweep with the options that it has", allowed=("storage", *PLACEMENT))
        if arguments.plan:
            raise InputError("--plan is for a new sweep (--search) or an extension (--extend), but got --resume.")
    if arguments.extend and "name" in given:
        raise InputError(f"--extend {arguments.extend} keeps that name, but got --name {given['name']}.")
    options = SweepOptions(**given) if not (arguments.resume or arguments.extend) else None
    afterwards = Afterwards.of(arguments, Path(options.data or DEMO_DATA) if options else None)

    # Ray, torch and Optuna take seconds to import: wrong arguments are refused before that.
    from sweeps.run import runner
    from sweeps.run.console import Detail

    console = Console(file=sys.stdout)
    detail: Detail = "quiet" if arguments.quiet else "verbose" if arguments.verbose else "normal"
    if arguments.plan:
        if options is None:
            runner.plan_extension(arguments.extend, storage, given, console)
        else:
            runner.plan_sweep(options, console)
        return 0
    if arguments.resume:
        result = runner.resume_sweep(
            arguments.resume,
            storage,
            given,
            console,
            drop_extension=arguments.drop_extension,
            retry_failed=arguments.retry_failed,
            detail=detail,
        )
    elif options is None:
        result = runner.extend_sweep(arguments.extend, storage, given, console, detail=detail)
    else:
        result = runner.start_sweep(options, console, detail=detail)
    if result.interrupted or afterwards is None:
        return EXIT_INTERRUPTED if result.interrupted else 0
    return _then(afterwards, result.name, storage)


def _then(afterwards: Afterwards, sweep: str, storage: str) -> int:
    """Do what is to be done when a sweep has ended, and return the exit code."""
    from birdclef_core.store.storage import Storage
    from sweeps.execution.recordings import data_folder
    from sweeps.schedule.records import SweepRecords

    options = SweepRecords(Storage.parse(storage).at(sweep)).load_sweep().options
    return run_commands(afterwards.commands(sweep, storage, options.cache_dir, data_folder(options)))


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that were given on the command line, by their names in SweepOptions."""
    own = (
        "resume",
        "extend",
        "drop_extension",
        "retry_failed",
        "set",
        "tag",
        "plan",
        "then",
        "refit",
        *THEN_FLAGS,
        "options",
        "verbose",
        "quiet",
    )
    given = {key: value for key, value in vars(arguments).items() if key not in own and value is not None}
    given |= {"settings": parse_settings(arguments.set)} if arguments.set else {}
    return given | ({"tags": parse_tags(arguments.tag)} if arguments.tag else {})


def _refuse(given: Mapping[str, Any], rule: str, *, allowed: Sequence[str]) -> None:
    """Raise InputError when an option was given that is not among `allowed`."""
    flags = ["--set" if key == "settings" else f"--{key.replace('_', '-')}" for key in given if key not in allowed]
    if flags:
        raise InputError(f"{rule}, but got {', '.join(flags)}. Change them with --extend once the sweep has ended.")
