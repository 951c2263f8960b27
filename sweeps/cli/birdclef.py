"""The command line of `birdclef`: everything but running a sweep."""

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from sweeps.cli.common import guarded
from sweeps.cli.data import add_data_commands
from sweeps.cli.stages import add_stage_commands


def birdclef(arguments: Sequence[str] | None = None) -> int:
    """`birdclef COMMAND`: 0 done, 1 failed, 2 wrong input, 130 stopped by Ctrl-C."""
    parsed = _parser().parse_args(arguments)
    return guarded(lambda: parsed.run(parsed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="birdclef", description="Look at sweeps and their recordings.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    ui = commands.add_parser("ui", help="open the trials of a sweep in MLflow")
    ui.add_argument("sweep", nargs="?", help="name of a sweep (default: the newest)")
    ui.add_argument("--tracking-uri", metavar="URI|DIR", help="as the sweep was given it (default: the local server on mlflow/)")
    ui.set_defaults(run=_ui)

    track = commands.add_parser("track", help="what a tracker has not received").add_subparsers(required=True, metavar="COMMAND")
    sync = track.add_parser("sync", help="deliver a sweep's waiting records")
    sync.add_argument("sweep_dir", type=Path, help="the sweep's local folder")
    sync.add_argument("--tracking-uri", metavar="URI|DIR", help="default: where the last delivery went")
    sync.set_defaults(run=_sync)

    add_stage_commands(commands)
    add_data_commands(commands.add_parser("data", help="recordings").add_subparsers(required=True, metavar="COMMAND"))
    return parser


def _ui(arguments: argparse.Namespace) -> int:
    from sweeps.tracking.connect import open_ui

    with open_ui(arguments.tracking_uri, sweep=arguments.sweep) as url:
        print(f"Open {url}\nCtrl-C ends it.", flush=True)
        signal.pause()
    return 0


def _sync(arguments: argparse.Namespace) -> int:
    from sweeps.tracking.connect import sync

    report = sync(arguments.sweep_dir, arguments.tracking_uri)
    waiting = f", {report.kept} still wait ({report.problem})" if report.kept else ""
    refused = f", {report.rejected} were refused (see {arguments.sweep_dir})" if report.rejected else ""
    print(f"{report.delivered} records of this sweep are delivered{waiting}{refused}.")
    return 1 if report.kept or report.rejected else 0
