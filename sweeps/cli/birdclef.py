"""The command line of `birdclef`: all commands. `birdclef tune` is that of `tune_main.py`, which is in `tune.py`."""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweeps.cli.common import guarded
from sweeps.cli.credentials import command_line
from sweeps.cli.data import add_data_commands
from sweeps.cli.detectors.calibrate import add_calibrate_command
from sweeps.cli.detectors.ensemble import add_ensemble_command
from sweeps.cli.detectors.export import add_export_command
from sweeps.cli.detectors.refit import add_refit_command
from sweeps.cli.detectors.submit import add_submit_command
from sweeps.cli.parser import COMPLETES, SHELLS, Parser, add_version_flag, complete, shell_code, with_verbose_flag
from sweeps.cli.predict import add_predict_command
from sweeps.cli.stages import add_stage_commands
from sweeps.cli.sweeps import add_sweep_commands


def birdclef(arguments: Sequence[str] | None = None) -> int:
    """Run `birdclef COMMAND` and return its exit code: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C."""
    given = command_line(arguments)
    complete(_parser)
    if given[:1] == ["tune"]:
        from sweeps.cli.tune import tune_main

        return tune_main(given[1:], prog="birdclef tune")
    parsed = _parser().parse_args(given)
    return guarded(lambda: parsed.run(parsed), verbose=parsed.verbose)


def _parser() -> Parser:
    parser = Parser(
        prog="birdclef",
        description="Run sweeps, predict recordings, and look at sweeps, their trained stages and their recordings.",
    )
    add_version_flag(parser)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    _add_tune(commands)

    add_sweep_commands(commands)
    ui = commands.add_parser("ui", help="show the trials of a sweep in MLflow")
    ui.add_argument("sweep", nargs="?", help="name of the sweep (default: the newest)")
    ui.add_argument(
        "--tracking-uri", metavar="URI|DIR", help="what the sweep had as --tracking-uri (default: the local server on mlflow/)"
    )
    ui.set_defaults(run=_ui)

    track = commands.add_parser("track", help="deliver tracking events").add_subparsers(required=True, metavar="COMMAND")
    sync = track.add_parser("sync", help="send MLflow the events of a sweep that it has not received")
    sync.add_argument("sweep_dir", type=Path, help="local folder of the sweep, which has its journal")
    sync.add_argument("--tracking-uri", metavar="URI|DIR", help="where to deliver (default: to the server of the last delivery)")
    sync.set_defaults(run=_sync)

    add_ensemble_command(commands)
    add_predict_command(commands)
    add_calibrate_command(commands)
    add_submit_command(commands)
    add_export_command(commands)
    add_refit_command(commands)
    table = commands.add_parser("fields", help="list every setting of models and stages that searches and --set can name")
    table.add_argument("word", nargs="?", default="", help="only fields whose names contain this, such as noise or learning_rate")
    table.set_defaults(run=_fields)

    add_stage_commands(commands)
    add_data_commands(
        commands.add_parser("data", help="collect, check and describe recordings").add_subparsers(
            required=True, metavar="COMMAND"
        )
    )
    completion = commands.add_parser("completion", help="print the code by which a shell completes what you type")
    completion.description = (
        'For bash, put this line into ~/.bashrc, and for zsh into ~/.zshrc: eval "$(birdclef completion bash)"'
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")
    completion.set_defaults(run=_completion)
    return with_verbose_flag(parser)


def _add_tune(commands: Any) -> None:
    """Add `tune`, which parses its options itself: here they are needed only by a shell that completes them."""
    parents = []
    if COMPLETES in os.environ:
        from sweeps.cli.tune import tune_parser

        parents = [tune_parser()]
    commands.add_parser("tune", help="plan and run sweeps: the same as tune_main.py", add_help=False, parents=parents)


def _completion(arguments: argparse.Namespace) -> int:
    print(shell_code(arguments.shell, "birdclef"))
    return 0


def _ui(arguments: argparse.Namespace) -> int:
    from sweeps.tracking.connect import open_ui

    with open_ui(arguments.tracking_uri, sweep=arguments.sweep) as url:
        print(f"Open {url}\nPress Ctrl-C to end.", flush=True)
        signal.pause()
    return 0


def _fields(arguments: argparse.Namespace) -> int:
    from sweeps.search.field_table import fields_page

    print(fields_page(arguments.word))
    return 0


def _sync(arguments: argparse.Namespace) -> int:
    from sweeps.tracking.connect import sync
    from sweeps.tracking.journal import REJECTED_NAME

    status = sync(arguments.sweep_dir, arguments.tracking_uri)
    waiting = f", {status.kept} are still waiting ({status.problem})" if status.kept else ""
    refused = (
        f", {status.rejected} were refused by the server (see {arguments.sweep_dir / REJECTED_NAME})" if status.rejected else ""
    )
    print(f"{status.delivered} events of this sweep have been delivered{waiting}{refused}.")
    return 1 if status.kept or status.rejected else 0
