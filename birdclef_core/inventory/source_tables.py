"""Finds the metadata table of a source among its tables, and says which of the others are not read."""

import re
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.data.metadata import METADATA_NAMES, describes_recordings
from birdclef_core.data.soundscapes import SOUNDSCAPE_LABELS
from birdclef_core.data.tables import is_there
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, Level, inflect
from birdclef_core.inventory.species_names import is_taxonomy

_SUFFIXES = (".csv", ".tsv")
_OTHER_FORMATS = (".xlsx", ".xls", ".ods", ".parquet", ".feather", ".json", ".jsonl", ".csv.gz", ".csv.zip")
_OF_OTHER_USE = frozenset(SOUNDSCAPE_LABELS) | {
    *("sample_submission.csv", "check.csv", "check.json", "label_conflicts.csv", "renamed_species.csv", "unlabelled_audio.csv"),
    *("unusable.csv", "unusable_recordings.csv"),
}
_NEEDED = "primary_label and filename (or id)"
_METADATA_NAME = re.compile(r"train|meta|recording|label", re.IGNORECASE)


@dataclass(frozen=True)
class SourceTables:
    """The tables at the top of a source."""

    used: Path | None
    """The one that describes the source's recordings; None when there is none."""
    more: tuple[Path, ...]
    """Others that describe recordings too."""
    unusable: dict[Path, str]
    """Why each other table describes no recordings."""

    def findings(self, *, any_audio: bool) -> tuple[Finding, ...]:
        """Return findings on the tables that are not read. `any_audio` says whether there is audio that they may be about."""
        found = []
        if self.used and self.more:
            fault = "more [table describes|tables describe] recordings"
            meaning = f"not read: {self.used} counts. Remove or rename the one that you do not want, or give both as sources."
            found.append(Finding.of("second_table", fault, map(str, self.more), meaning, level="note"))
        if self.unusable and any_audio:
            fault = "[table beside recordings is|tables beside recordings are] not read"
            alone = "" if self.used else " Authors, ratings and secondary labels of recordings are not known without one."
            cases = [f"{path}: {why}" for path, why in self.unusable.items()]
            level: Level = "note" if self.used or not any(_METADATA_NAME.search(path.name) for path in self.unusable) else "loses"
            meaning = f"nothing in {inflect('[it|them]', len(cases))} counts.{alone}"
            found.append(Finding.of("table_not_read", fault, cases, meaning, level=level))
        return tuple(found)


def find_tables(folder: Path) -> SourceTables:
    """Return the tables of a source: BirdCLEF's names first, else any CSV or TSV with the columns of recordings counts.

    Raises DataError where no table can be used and one is damaged, or one of BirdCLEF's names lacks the columns: recordings would
    lose their authors, ratings and secondary labels.
    """
    usable: list[Path] = []
    unusable: dict[Path, str] = {}
    faults: list[DataError] = []
    for path in _candidates(folder):
        try:
            if describes_recordings(path):
                usable.append(path)
            elif path.name in METADATA_NAMES:
                raise DataError(f"{path} must describe recordings, but lacks columns for it: {_NEEDED}. Correct or remove it.")
            else:
                unusable[path] = f"describes no recordings, which needs the columns {_NEEDED}"
        except DataError as error:
            faults.append(error)
            unusable[path] = str(error)
    unusable |= {path: "in a format that is not read: save it as CSV" for path in _listed(folder, _OTHER_FORMATS)}
    if faults and not usable:
        raise faults[0]
    return SourceTables(usable[0] if usable else None, tuple(usable[1:]), unusable)


def has_table(folder: Path) -> bool:
    """Return whether a folder has a table of recordings, or one that should be and is damaged."""
    try:
        return find_tables(folder).used is not None
    except DataError:
        return True


def _candidates(folder: Path) -> list[Path]:
    """Return tables that may describe recordings, in the order in which they count."""
    named = [folder / name for name in METADATA_NAMES if is_there(folder / name)]
    return [*named, *(path for path in _listed(folder, _SUFFIXES) if path not in named)]


def _listed(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [
        path
        for path in paths
        if path.name.lower().endswith(suffixes)
        and not path.name.startswith(".")
        and path.name not in _OF_OTHER_USE
        and not is_taxonomy(path.name)
        and path.is_file()
    ]
