"""`birdclef report|sweeps`: the page of a sweep or of several, the list of all sweeps, and a sweep as a study of Optuna."""

import argparse
from pathlib import Path
from typing import Any

from sweeps.cli.common import add_storage_option
from sweeps.wording import counted


def add_sweep_commands(commands: Any) -> None:
    """Add the commands to the sub-parsers of `birdclef`."""
    report: argparse.ArgumentParser = commands.add_parser(
        "report", help="make the page of a sweep, also while it runs, or a page that compares several"
    )
    report.description = (
        "Writes one HTML file: the best score so far, which parameters matter, parameters against scores, cost, what stopped and why, the "
        "stages, and all trials. It asks nothing of the network. A sweep makes its own page while it runs and when it ends, "
        "result/report.html in its folder."
    )
    report.add_argument("sweeps", nargs="*", metavar="SWEEP", help="names of sweeps of one storage (default: the newest)")
    report.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="FILE",
        help="the page (default: result/report.html of the sweep; report.html of several)",
    )
    add_storage_option(report)
    report.set_defaults(run=_report)

    known = commands.add_parser("sweeps", help="list the sweeps of a storage").add_subparsers(required=True, metavar="COMMAND")
    listing = known.add_parser("ls", help="list every sweep with its state, trials, best score, device time, start and tags")
    add_storage_option(listing)
    listing.set_defaults(run=_list)
    export = known.add_parser("export", help="write the trials of a sweep into a database of Optuna")
    export.description = (
        "Writes an Optuna study with all trials that have ended: parameters, scores, which were stopped and at which score. optuna-dashboard "
        "and optuna.load_study read it. Several sweeps may be in one file; a sweep that is written again replaces itself."
    )
    export.add_argument("sweep", metavar="SWEEP", help="name of the sweep")
    export.add_argument("--optuna", required=True, type=Path, metavar="FILE", help="the database, such as study.db (SQLite)")
    add_storage_option(export)
    export.set_defaults(run=_export)


def _report(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage
    from sweeps.report.page.writing import make_report

    print(f"Report: {make_report(existing_storage(arguments.storage), arguments.sweeps, arguments.out)}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from sweeps.library.sweep import load_sweep

    study = load_sweep(arguments.sweep, storage=arguments.storage).study(arguments.optuna)
    print(f"{counted(len(study.trials), 'trial')} of {arguments.sweep} written: optuna-dashboard sqlite:///{arguments.optuna}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage
    from sweeps.report.listing import list_sweeps

    print("\n".join(list_sweeps(existing_storage(arguments.storage))))
    return 0
