"""`birdclef data collect|check|report|pack|demo`: collect recordings, check them, describe them, pack them, make the demo set."""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sweeps.options import FOLD_HELP, TARGET_SPECIES_HELP


def add_data_commands(commands: Any) -> None:
    """Add `collect`, `check`, `report`, `pack` and `demo` to the sub-parsers of `birdclef data`."""
    collect = commands.add_parser(
        "collect",
        help="join several sources into one data folder with a manifest; by default no audio is copied; exit code 0: good, "
        "1: some data of the sources are lost, 2: unusable",
    )
    collect.add_quiet_flag()
    collect.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SRC",
        help="a BirdCLEF folder of any year, a Xeno-canto set, or a folder with one sub-folder per species",
    )
    collect.add_argument("--out", required=True, type=Path, metavar="DIR", help="the data folder to make or to add to")
    collect.add_argument(
        "--mode",
        choices=("reference", "link", "copy"),
        default="reference",
        help="how audio gets into the folder (default reference: it stays where it is)",
    )
    collect.add_argument(
        "--overrides",
        type=Path,
        metavar="CSV",
        help="labels decided by hand, with columns recording_id and primary_label (conflicts are listed in label_conflicts.csv)",
    )
    collect.add_argument(
        "--noise", action="append", default=[], type=Path, metavar="DIR", help="a folder of background noise (repeatable)"
    )
    collect.set_defaults(run=_collect)

    check = commands.add_parser(
        "check", help="decode every file, check labels and split; exit code 0: good, 1: some data are lost, 2: unusable"
    )
    check.add_quiet_flag()
    check.add_argument("root", type=Path, metavar="DIR", help="the data folder")
    check.add_argument("--target-species", type=Path, metavar="FILE", help=TARGET_SPECIES_HELP)
    check.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for check.json and check.csv (default: the data folder, or NAME-check here where that is read-only)",
    )
    check.add_argument("--fold", type=int, default=0, metavar="K", help=FOLD_HELP)
    check.set_defaults(run=_check)

    report = commands.add_parser("report", help="describe a data folder on one HTML page with pictures")
    report.add_argument("root", type=Path, metavar="DIR", help="the data folder")
    report.add_argument("--target-species", type=Path, metavar="FILE", help=TARGET_SPECIES_HELP)
    report.add_argument(
        "--out",
        type=Path,
        metavar="HTML",
        help="the page to write (default: report.html in the data folder, or NAME-report.html here where that is read-only)",
    )
    report.add_argument("--fold", type=int, default=0, metavar="K", help=FOLD_HELP)
    report.set_defaults(run=_report)

    pack = commands.add_parser(
        "pack",
        help="pack a data folder into large files, at s3:// or gs:// or in a folder, which `--data` takes as it takes the folder: "
        "each machine fetches them once",
    )
    pack.add_quiet_flag()
    pack.add_argument("root", type=Path, metavar="DATA", help="the data folder")
    pack.add_argument("to", metavar="TO", help="where to: an empty folder, or a URI such as s3://bucket/set")
    pack.set_defaults(run=_pack)

    demo = commands.add_parser("demo", help="make the synthetic demo set")
    demo.add_argument("--out", type=Path, default=Path("demo-data"), metavar="DIR", help="default demo-data")
    demo.add_argument("--seed", type=int, default=0, help="random seed of the set (default 0)")
    demo.set_defaults(run=_demo)


def _collect(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.collect import collect

    console = Console()
    with _progress("Reading audio", arguments) as progress:
        report = collect(
            arguments.sources,
            arguments.out,
            mode=arguments.mode,
            overrides=arguments.overrides,
            noise=arguments.noise,
            progress=progress,
        )
    console.print(
        f"{report.num_recordings:,} recordings ({report.hours:,.1f} hours) and {report.num_noise:,} noise files are listed in "
        f"{report.manifest}; {report.num_repeated:,} duplicates were left out, {report.num_unusable:,} files cannot be used. "
        f"{report.num_probed:,} of {report.num_files:,} files were new or changed and were read, in {report.elapsed_s:.0f} s.",
        highlight=False,
        soft_wrap=True,
    )
    for finding in report.findings:
        console.print(f"  {finding.describe()}", highlight=False, markup=False, soft_wrap=True)
    return report.exit_code


def _check(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.check import check, check_lines, write_check
    from birdclef_core.output_place import folder_for_check

    out = folder_for_check(arguments.root, arguments.out)
    with _progress("Decoding", arguments) as progress:
        report = check(arguments.root, target_species=arguments.target_species, fold=arguments.fold, store=out, progress=progress)
    console = Console()
    if report.refusal:
        console.print(f"Unusable: {report.refusal}", highlight=False, markup=False, soft_wrap=True)
    for line in check_lines(report):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if not report.problems and not report.refusal:
        console.print(f"Nothing is wrong with the {len(report.files):,} files.", highlight=False)
    if out:
        paths = ", ".join(map(str, write_check(report, out)))
        console.print(f"Written: {paths}", highlight=False, markup=False, soft_wrap=True)
    elif arguments.root.is_dir():
        console.print(
            f"Nothing is written: {arguments.root} and {Path.cwd()} are read-only. Give a folder with --out.", soft_wrap=True
        )
    return report.exit_code


def _report(arguments: argparse.Namespace) -> int:
    from birdclef_core.inventory.report import report
    from birdclef_core.output_place import place_of_report, writing_to

    out = place_of_report(arguments.root, arguments.out)
    with writing_to(out):
        page = report(arguments.root, out, target_species=arguments.target_species, fold=arguments.fold)
    print(f"Open {page}")
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from birdclef_core.data.packed.writing import pack

    with _progress("Packing", arguments) as progress:
        report = pack(arguments.root, arguments.to, progress=progress)
    index, console = report.index, Console()
    lines = [
        f"{arguments.to} has {index.num_recordings:,} recordings, {index.num_noise:,} noise files and {index.num_soundscapes:,} labelled "
        f"soundscapes: {index.num_files:,} files, {index.file_bytes / 1e9:.2f} GB, in {len(index.shards):,} shards, of which {report.num_sent:,} "
        f"were written now. Data fingerprint {index.data_fingerprint[:16]} (fold 0), as in {arguments.root}.",
        f"Use it with: --data {shlex.quote(arguments.to)}",
    ]
    if report.missing:
        lines.insert(
            1, f"  {len(report.missing):,} audio files are named and cannot be read, such as {report.missing[0]}: left out."
        )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from birdclef_core.demo.demo_set import make_demo

    print(f"The synthetic demo set is in {make_demo(arguments.out, seed=arguments.seed)}.")
    return 0


@contextmanager
def _progress(what: str, arguments: argparse.Namespace) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr, on a terminal only and not with --quiet; yields the function that moves it."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=arguments.quiet) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
