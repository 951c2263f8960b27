"""What can be wrong with labels and with the split: codes that are not known, recordings on both sides."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from birdclef_core.data.dataset import Dataset
from birdclef_core.data.labels import NOT_SPECIES
from birdclef_core.data.listing import Listing
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, Level
from birdclef_core.inventory.check_files import in_words, same_recordings
from birdclef_core.inventory.problems import Problem
from birdclef_core.inventory.species_names import find_taxonomies, named_codes, read_taxonomies, renamed_codes


def label_problems(root: Path, listing: Listing) -> list[Problem]:
    """Return problems of the metadata; codes are compared with the taxonomy files of the folder, where there are any."""
    recordings = listing.recordings
    primary = recordings["primary_label"]
    secondary = recordings["secondary_labels"].explode().dropna()
    counts = pd.concat([primary, secondary]).value_counts().drop(labels=list(NOT_SPECIES), errors="ignore")
    taxonomy, unreadable = _taxonomies(find_taxonomies([root]))
    named = named_codes(recordings)
    renamed = renamed_codes(named, taxonomy)
    known = set(taxonomy["code"]) | set(renamed)
    unknown = [code for code in counts.index if code not in known] if len(taxonomy) else []
    codes_of = named[named["scientific_name"] != ""].groupby("scientific_name")["code"].unique()
    several = codes_of[codes_of.str.len() > 1]
    unlearnt = secondary[~secondary.isin(set(primary))].value_counts()
    repeated = recordings["path"].dropna()
    repeated = repeated[repeated.duplicated()].unique()
    return [
        _problem(
            "unlearnt_label",
            "secondary [label is|labels are] the primary label of no recording",
            _counted(unlearnt),
            "not learnt; their recordings stay in for their other labels.",
        ),
        _problem(
            "named_twice",
            "[file is|files are] named by several rows",
            repeated,
            "the first row counts, the labels of the others are lost.",
        ),
        _problem(
            "renamed_species",
            "species [code has|codes have] another form in the taxonomy",
            [f"{old} is {new} now ({_times(counts[old])})" for old, new in renamed.items()],
            "trained apart from recordings under the new code, and unknown where that is asked for. Collecting renames them.",
        ),
        _problem(
            "several_codes",
            "species [has|have] several codes",
            [f"{name}: {', '.join(codes)}" for name, codes in several.items()],
            "taught as several species.",
        ),
        _problem(
            "unknown_species",
            "species [code is|codes are] not in the taxonomy",
            _counted(counts[unknown]),
            "trained under the code they have; a spelling mistake makes a species of its own.",
            level="note",
        ),
        _problem(
            "taxonomy_not_read",
            "taxonomy [file|files] cannot be read",
            unreadable,
            "codes of species are not compared with it. Get it again, or remove it.",
        ),
    ]


def split_problems(dataset: Dataset, files: pd.DataFrame) -> list[Problem]:
    """Return problems of the split that is trained on. `files` is the table of a `CheckReport`."""
    recordings = dataset.recordings
    inside = recordings["is_validation"]
    side = dict(zip(recordings["path"], inside, strict=True))
    leaks = []
    for group in same_recordings(files):
        sides = group["path"].map(side).dropna()
        if sides.nunique() > 1:
            leaks.append(in_words(group["path"]))
    return [
        _problem(
            "duplicate_across_split",
            "[recording is|recordings are] on both sides of the split",
            leaks,
            "the model has heard what it is scored on: scores look better than they are.",
        ),
    ]


def _taxonomies(paths: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Return the taxonomy files that can be read, and why the others cannot."""
    usable, unreadable = [], []
    for path in paths:
        try:
            read_taxonomies([path])
            usable.append(path)
        except DataError as error:
            unreadable.append(str(error))
    return read_taxonomies(usable), unreadable


def _problem(kind: str, fault: str, cases: Iterable[str], meaning: str, *, level: Level = "loses") -> Problem:
    return Problem(Finding.of(kind, fault, cases, meaning, level=level))


def _counted(counts: pd.Series) -> list[str]:
    return [f"{code} ({_times(count)})" for code, count in counts.items()]


def _times(count: int) -> str:
    return f"{count:,} {'recording' if count == 1 else 'recordings'}"
