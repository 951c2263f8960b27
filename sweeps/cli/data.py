"""`birdclef data ...`: collect recordings, check them, describe them, make the demo set."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sweeps.options import FOLD_HELP


def add_data_commands(commands: Any) -> None:
    """Adds `collect`, `check`, `report` and `demo` to the sub-parsers of `birdclef data`."""
    collect = commands.add_parser(
        "collect", help="several sources as one data folder with a manifest; nothing is copied by default"
    )
    collect.add_argument(
        "sources", nargs="+", type=Path, metavar="SRC", help="BirdCLEF folders of any year, Xeno-canto sets, folders by species"
    )
    collect.add_argument("--out", required=True, type=Path, metavar="DIR")
    collect.add_argument("--mode", choices=("reference", "link", "copy"), default="reference", help="default: reference")
    collect.add_argument(
        "--overrides", type=Path, metavar="CSV", help="labels decided by hand: recording, primary_label (see label_conflicts.csv)"
    )
    collect.add_argument("--noise", action="append", default=[], type=Path, metavar="DIR", help="background noise (repeatable)")
    collect.set_defaults(run=_collect)

    check = commands.add_parser(
        "check", help="decode every file and look at labels and split; exits 0, 1 (data lost) or 2 (unusable)"
    )
    check.add_argument("root", type=Path, metavar="DIR")
    check.add_argument("--target-species", type=Path, metavar="FILE")
    check.add_argument(
        "--out", type=Path, metavar="DIR", help="where check.json and check.csv are written (default: the data folder)"
    )
    check.add_argument("--fold", type=int, default=0, metavar="K", help=FOLD_HELP)
    check.set_defaults(run=_check)

    report = commands.add_parser("report", help="one HTML page that describes a data folder with pictures")
    report.add_argument("root", type=Path, metavar="DIR")
    report.add_argument("--target-species", type=Path, metavar="FILE")
    report.add_argument("--out", type=Path, metavar="HTML", help="default: report.html in the data folder")
    report.add_argument("--fold", type=int, default=0, metavar="K", help=FOLD_HELP)
    report.set_defaults(run=_report)

    demo = commands.add_parser("demo", help="make the synthetic demo set")
    demo.add_argument("--out", type=Path, default=Path("demo-data"), metavar="DIR")
    demo.add_argument("--seed", type=int, default=0)
    demo.set_defaults(run=_demo)


def _collect(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.collect import collect

    console = Console()
    with _progress("Looking at audio") as progress:
        report = collect(
            arguments.sources,
            arguments.out,
            mode=arguments.mode,
            overrides=arguments.overrides,
            noise=arguments.noise,
            progress=progress,
        )
    console.print(
        f"{report.num_recordings:,} recordings ({report.hours:,.1f} hours) and {report.num_noise:,} noise files in {report.manifest}; "
        f"{report.num_repeated:,} came more than once, {report.num_unusable:,} cannot be used. "
        f"{report.num_probed:,} of {report.num_files:,} files were looked at anew, in {report.elapsed_s:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
    for finding in report.findings:
        console.print(f"  {finding.count:,} x not: {finding.rule}: {finding.meaning}", highlight=False, soft_wrap=True)
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.check import check, check_rows, write_check

    out = arguments.out or arguments.root
    with _progress("Decoding") as progress:
        report = check(arguments.root, target_species=arguments.target_species, fold=arguments.fold, store=out, progress=progress)
    console = Console()
    if report.refusal:
        console.print(f"Unusable: {report.refusal}", highlight=False, soft_wrap=True)
    rows = check_rows(report)
    if rows:
        table = Table(box=None, pad_edge=False)
        for name in ("level", "problem", "count", "what it means for training", "such as"):
            table.add_column(name, justify="right" if name == "count" else "left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    elif not report.refusal:
        console.print(f"Nothing is wrong with the {len(report.files):,} files.", highlight=False)
    if out.is_dir():
        json_path, csv_path = write_check(report, out)
        console.print(f"Written: {json_path}, {csv_path}", highlight=False, soft_wrap=True)
    return report.exit_code


def _report(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.report import report

    out = arguments.out or arguments.root / "report.html"
    page = report(arguments.root, out, target_species=arguments.target_species, fold=arguments.fold)
    print(f"Open {page}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from birdclef_core.demo.demo_set import make_demo

    print(f"The synthetic demo set is in {make_demo(arguments.out, seed=arguments.seed)}.")
    return 0


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, there only on a terminal."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
