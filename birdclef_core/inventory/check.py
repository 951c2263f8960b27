"""Checks a data folder before anything is trained on it: every file is decoded, every label and the split are looked at."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import stat_files
from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.listing import Listing, list_folder
from birdclef_core.errors import DataError
from birdclef_core.inventory.check_files import LIMITS, file_problems
from birdclef_core.inventory.check_labels import label_problems, split_problems
from birdclef_core.inventory.measure import measure_file
from birdclef_core.inventory.problems import LEVELS, Problem
from birdclef_core.inventory.resumable import Progress, look_at_files

CLEAN, LOSES_DATA, UNUSABLE = 0, 1, 2
"""Exit codes: nothing found, or notes only; recordings or labels are lost, or scores are not to be trusted; cannot be trained on."""

_NOTHING_SEEN = dict.fromkeys(("header_s", "duration_s", "peak", "mean", "rms", "clipped_share"), 0.0) | {
    **dict.fromkeys(("sample_rate_hz", "channels", "not_finite"), 0),
    **dict.fromkeys(("format", "content", "error"), ""),
    "is_cut": False,
}
_MEASURES = "measures-1"  # The number is raised when what is measured changes.


@dataclass(frozen=True)
class CheckReport:
    """What was found."""

    root: Path
    files: pd.DataFrame
    """One row a file: path, kind (recording, noise or unlabelled), primary_label, is_missing, size_bytes, what `measure_file` sees,
    and problems, the kinds that are wrong with it, separated by blanks."""
    problems: tuple[Problem, ...]
    """What is wrong, the worst first."""
    refusal: str
    """Why `load_dataset` refuses the folder; empty when it takes it."""
    num_measured: int
    """Files that were decoded now; the others had not changed since the last time."""
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        """0, 1 or 2: see `CLEAN`, `LOSES_DATA`, `UNUSABLE`."""
        if self.refusal:
            return UNUSABLE
        return LOSES_DATA if any(problem.level == "loses" for problem in self.problems) else CLEAN


def check(
    root: Path,
    *,
    target_species: Path | None = None,
    max_bad_share: float = 0.05,
    fold: int = 0,
    store: Path | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Decodes every file of a BirdCLEF-shaped or collected folder and reports what is wrong, and what that does to training.

    The arguments are those of `load_dataset`, so that the split is the one that is trained on. `store` is a folder in which
    measurements are kept: interrupted, a check goes on; later, it decodes only what changed. `threads`: one a core by default.
    `progress` gets (files done, files in all). Raises nothing over data: a folder that cannot be used is a report with `refusal`.
    """
    started = time.monotonic()
    try:
        listing = list_folder(root)
    except DataError as error:
        return CheckReport(root, pd.DataFrame(), (), str(error), 0, time.monotonic() - started)
    files, num_measured = _measure(root, listing, store, threads or len(os.sched_getaffinity(0)), progress)
    dataset, refusal = None, ""
    try:
        dataset = load_dataset(
            root,
            target_species=target_species,
            max_bad_share=max_bad_share,
            fold=fold,
        )
    except DataError as error:
        refusal = str(error)
    problems = [*file_problems(files), *label_problems(root, listing)]
    if dataset is not None:
        problems += split_problems(dataset, files)
    found = sorted((problem for problem in problems if problem.finding.count), key=lambda problem: LEVELS.index(problem.level))
    files["problems"] = _problems_of(files["path"], found)
    return CheckReport(root, files, tuple(found), refusal, num_measured, time.monotonic() - started)


def write_check(report: CheckReport, out: Path) -> tuple[Path, Path]:
    """Writes check.json (the problems) and check.csv (the files) into `out` and returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "root": str(report.root),
        "exit_code": report.exit_code,
        "refusal": report.refusal,
        "num_files": len(report.files),
        "limits": LIMITS,
        "problems": [{"kind": item.kind, "level": item.level, **asdict(item.finding)} for item in report.problems],
    }
    json_path, csv_path = out / "check.json", out / "check.csv"
    json_path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    report.files.to_csv(csv_path, index=False)
    return json_path, csv_path


def check_rows(report: CheckReport) -> list[tuple[str, str, str, str, str]]:
    """What a terminal shows, a row a problem: level, kind, count, meaning, an example."""
    return [
        (item.level, item.kind, f"{item.finding.count:,}", item.finding.meaning, next(iter(item.finding.examples), ""))
        for item in report.problems
    ]


def _measure(
    root: Path, listing: Listing, store: Path | None, threads: int, progress: Progress | None
) -> tuple[pd.DataFrame, int]:
    """A row a file that the folder names or holds, the missing ones too, and how many were decoded."""
    files = _files(listing)
    there = files[~files["is_missing"]]
    stats = stat_files(root, list(there["path"])).set_index(there.index)
    files["size_bytes"] = stats["size_bytes"].reindex(files.index, fill_value=0).clip(lower=0)
    wanted = stats.assign(path=[str(root.absolute() / path) for path in there["path"]], deep=False)
    seen, num_measured = look_at_files(
        wanted, lambda path, _: measure_file(Path(path)), store=store and store / _MEASURES, threads=threads, progress=progress
    )
    return files.join(seen.drop(columns="path").set_index(there.index)).fillna(_NOTHING_SEEN), num_measured


def _files(listing: Listing) -> pd.DataFrame:
    recordings = listing.recordings
    named = pd.DataFrame(
        {
            "path": recordings["path"].where(recordings["path"].notna(), recordings["filename"]).astype(str),
            "kind": "recording",
            "primary_label": recordings["primary_label"],
            "is_missing": recordings["path"].isna(),
        }
    )
    noise = pd.DataFrame({"path": listing.noise["path"].astype(str), "kind": "noise", "primary_label": "", "is_missing": False})
    others = pd.DataFrame(
        {"path": listing.unlabelled, "kind": "unlabelled", "primary_label": "", "is_missing": False}, dtype=object
    )
    files = pd.concat([named, noise, others.astype({"path": str, "is_missing": bool})], ignore_index=True)
    return files.drop_duplicates("path", ignore_index=True)


def _problems_of(paths: pd.Series, problems: Sequence[Problem]) -> pd.Series:
    """The kinds that are wrong with each file."""
    cases = pd.DataFrame([(path, item.kind) for item in problems for path in item.paths], columns=["path", "kind"])
    kinds = {path: " ".join(group) for path, group in cases.groupby("path")["kind"]}
    return pd.Series([kinds.get(path, "") for path in paths], index=paths.index, dtype=str)
