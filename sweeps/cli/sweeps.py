"""`birdclef report|sweeps`: the page of a sweep or of several, and the list of all sweeps."""

import argparse
from pathlib import Path
from typing import Any

from sweeps.cli.common import add_storage_option


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


def _report(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage
    from sweeps.report.page.writing import make_report

    print(f"Report: {make_report(existing_storage(arguments.storage), arguments.sweeps, arguments.out)}")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage
    from sweeps.report.listing import list_sweeps

    print("\n".join(list_sweeps(existing_storage(arguments.storage))))
    return 0
