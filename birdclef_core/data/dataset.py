"""A data folder as the rest of the project sees it: checked, split, with its label spaces and its identity."""

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from birdclef_core.data.groups import copies_among, equal_contents
from birdclef_core.data.kept_split import read_split
from birdclef_core.data.labels import NOT_SPECIES, clean_text, spell_as
from birdclef_core.data.listing import Listing, list_folder, with_headers
from birdclef_core.data.recording_folds import divide, is_validation, require_validation, split_findings
from birdclef_core.data.recording_names import unique_ids
from birdclef_core.data.soundscapes import Soundscapes, load_soundscapes
from birdclef_core.data.tables import is_there, read_text
from birdclef_core.data.unlabelled import Unlabelled, load_unlabelled
from birdclef_core.errors import DataError
from birdclef_core.findings import Finding, settle_unusable
from birdclef_core.identity import fingerprint
from birdclef_core.taxonomy import LabelSpace

TARGET_LIST_NAME = "target_species.txt"
TRAINING_SOUNDSCAPES_NAME = "soundscapes_for_training.txt"

_COMMENT = re.compile(r"(^|\s)#.*")

_COLUMNS = (
    *("recording_id", "path", "primary_label", "secondary_labels", "author", "rating", "duration_s", "size_bytes"),
    *("latitude", "longitude", "year", "date", "source"),
)
_IDENTITY_COLUMNS = ("recording_id", "primary_label", "secondary_labels", "rating", "duration_s", "size_bytes", "is_validation")


@dataclass(frozen=True)
class Dataset:
    """Recordings that can be used, split by author, with noise and label spaces."""

    root: Path
    """The data folder."""
    recordings: pd.DataFrame
    """One row a recording, in metadata order: recording_id, path (relative to root; absolute where a manifest says so),
    primary_label, secondary_labels (tuples), author ("" when unknown), rating (0..5, NaN when not rated), duration_s, size_bytes; group,
    known_by, fold and always_trains (see `divide`), and is_validation; latitude, longitude, year and date (of recording) and source
    (the collection it came in) where the metadata have them."""
    noise: pd.DataFrame
    """One row a noise file: path (as above), group (first folder under `background_noise`, or ""), duration_s, size_bytes."""
    all_species: LabelSpace
    """Every primary label of a usable recording."""
    target_species: LabelSpace
    """The species to be detected: those of a list, else all."""
    fingerprint: str
    """Hash of everything in here that changes training or scores: names, labels, ratings, durations, sizes, the split, the noise
    files, the labelled windows of soundscapes. Where the files lie does not count: the same recordings have the same hash on every
    machine, collected or not."""
    findings: tuple[Finding, ...]
    soundscapes: Soundscapes | None = None
    """Labelled soundscapes, a second validation set, where the folder has some."""
    training_soundscapes: Soundscapes | None = None
    """The labelled soundscapes that are for training and score nothing: those that `soundscapes_for_training.txt` names."""
    labelled: frozenset[str] = frozenset()
    """Paths of all labelled soundscapes, relative to root."""

    @cached_property
    def unlabelled(self) -> Unlabelled | None:
        """Soundscapes without labels, where the folder has some. Their headers are read when they are first asked for: there may be
        thousands of files, which few sweeps need."""
        return load_unlabelled(self.root, self.labelled)

    def of_fold(self, fold: int) -> "Dataset":
        """Return the same recordings with another fold as validation. Raises as `require_validation` does."""
        require_validation(self.root, self.recordings, fold)
        recordings = self.recordings.assign(is_validation=is_validation(self.recordings, fold))
        identity = _fingerprint(recordings, self.noise, self.soundscapes, self.training_soundscapes)
        other = replace(self, recordings=recordings, fingerprint=identity)
        if "unlabelled" in vars(self):  # their headers have been read
            vars(other)["unlabelled"] = self.unlabelled
        return other

    @cached_property
    def sources_fingerprint(self) -> str:
        """Hash of which recording came in which source; empty where the metadata do not say it. It is not in `fingerprint`, because only
        stages that draw by sources depend on it."""
        return fingerprint(self.recordings["source"].tolist()) if "source" in self.recordings else ""

    def all_training(self) -> "Dataset":
        """Return the dataset without validation: every recording trains, and nothing is scored, labelled soundscapes neither."""
        recordings = self.recordings.assign(is_validation=False)
        identity = _fingerprint(recordings, self.noise, None, self.training_soundscapes)
        return replace(self, recordings=recordings, soundscapes=None, fingerprint=identity)


def load_dataset(
    root: Path,
    *,
    target_species: Path | None = None,
    max_bad_share: float = 0.05,
    fold: int = 0,
    bad_files_csv: Path | None = None,
) -> Dataset:
    """Return the recordings of a BirdCLEF-shaped folder, or of one that was collected, checked and split.

    Metadata: `manifest.parquet` (see `collect`), else `train.csv` or `train_metadata.csv`, the complete-metadata columns too (see
    `read_metadata`). Audio: what the manifest names, else `train_audio`, `train_audios` or `train_short_audio`, with or without
    species folders. Noise: `background_noise`, if any, or the manifest's. The target list has one code a line; without
    `target_species`, `target_species.txt` in the folder counts, else all species are targets. `fold`, 0 to 4, validates;
    recordings of a split that was kept (see `keep_split`) stay in their fold. Labelled soundscapes are read as `load_soundscapes`
    says. What is left out is counted in `findings`.

    Raises InputError for a fold that does not exist, and DataError for a folder, file, column or audio that is missing or cannot be read, more than `max_bad_share` unusable
    recordings (all are named in `bad_files_csv`), an unknown code in the target list, a target species without recordings, or
    nothing to validate on.
    """
    listing = list_folder(root)
    table, findings = _with_audio(root, listing, max_bad_share, bad_files_csv)
    all_species = LabelSpace.of("all", set(table["primary_label"]) - NOT_SPECIES)
    target = _target_space(root, target_species, table, all_species)
    is_collected = "recording_id" in listing.recordings  # Then files with equal content are one recording already.
    content = [""] * len(table) if is_collected else equal_contents(root, table)
    table = table.join(divide(table, content, read_split(root, table["recording_id"])))
    require_validation(root, table, fold)
    table["is_validation"] = is_validation(table, fold)
    noise, noise_findings = _noise(root, listing, max_bad_share)
    findings = listing.findings + findings + noise_findings + _label_findings(table, all_species)
    findings += split_findings(table, all_species.species, fold)
    soundscapes, training = load_soundscapes(root), None
    labelled: frozenset[str] = frozenset()
    if soundscapes is not None:
        soundscapes = soundscapes.spelled_as(all_species)
        findings += soundscapes.findings + soundscapes.unknown_labels(target)
        labelled = frozenset(soundscapes.files["path"])
        soundscapes, training, more = _part_soundscapes(root, soundscapes)
        findings += more
    return Dataset(
        root,
        table,
        noise,
        all_species,
        target,
        _fingerprint(table, noise, soundscapes, training),
        findings,
        soundscapes,
        training,
        labelled,
    )


def _part_soundscapes(root: Path, soundscapes: Soundscapes) -> tuple[Soundscapes | None, Soundscapes | None, tuple[Finding, ...]]:
    """Part labelled soundscapes into those that score and those that train, which the folder's list names one a line.

    Raises DataError for a name that no labelled soundscape has, and for a soundscape for training that is a copy of one that scores.
    """
    path = root / TRAINING_SOUNDSCAPES_NAME
    if not is_there(path):
        return soundscapes, None, ()
    lines = (clean_text(_COMMENT.sub("", line)) for line in read_text(path).split("\n"))
    names = {line.rsplit("/", 1)[-1].rsplit(".", 1)[0] for line in lines if line}
    stems = soundscapes.files["path"].str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0]
    if unknown := sorted(names - set(stems)):
        raise DataError(
            f"Every line of {path} must name a labelled soundscape, but {', '.join(unknown[:5])} {'is' if len(unknown) == 1 else 'are'} "
            f"none. Labelled are {', '.join(sorted(stems)[:5])}{' and more' if len(stems) > 5 else ''}."
        )
    training = {row for row, stem in enumerate(stems) if stem in names}
    parts = [
        [path for row, path in enumerate(soundscapes.files["path"]) if (row in training) == trains] for trains in (True, False)
    ]
    for copy, original in copies_among(root, *parts).items():
        raise DataError(
            f"A labelled soundscape may train or score, but {copy}, which {path} names, is a copy of {original}, which scores. Name both, or "
            "remove one of them."
        )
    finding = Finding.of(
        "training_soundscapes",
        "labelled [soundscape is|soundscapes are] for training",
        [soundscapes.files["path"][row] for row in sorted(training)],
        f"they score nothing, because {TRAINING_SOUNDSCAPES_NAME} names them.",
        level="note",
    )
    scored = soundscapes.of_files({*range(len(soundscapes.files))} - training)
    return scored, soundscapes.of_files(training), (finding,) if training else ()


def read_target_list(path: Path) -> tuple[str, ...]:
    """Return species codes, one a line; empty lines and what follows a # do not count.

    Raises DataError when the file is missing, is no text, or has no code.
    """
    if not is_there(path):
        raise DataError(f"The list of target species must exist, but {path} does not.")
    codes = (clean_text(_COMMENT.sub("", line)) for line in read_text(path).split("\n"))
    listed = tuple(code for code in codes if code)
    if not listed:
        raise DataError(f"{path} must have at least one species code, one a line, but has none. Add one, or remove the file.")
    return listed


def _with_audio(
    root: Path, listing: Listing, max_bad_share: float, csv_path: Path | None
) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    """Return the rows whose audio can be opened, with recording_id, path, duration_s and size_bytes."""
    table = listing.recordings
    absent = table["path"].isna()
    reasons = dict(zip(table["filename"][absent], table["absence"][absent], strict=True))
    num_absent = len(reasons)
    table = table[~absent]
    findings = _repeated(table)
    table = with_headers(root, table[~table["path"].duplicated()].reset_index(drop=True))
    bad = table["error"] != ""
    reasons.update(zip(table["path"][bad], table["error"][bad], strict=True))
    total = len(table) + num_absent
    findings += settle_unusable(
        reasons, total=total, max_share=max_bad_share, kind="unusable", files="[recording|recordings]", csv_path=csv_path
    )
    table = table[~bad].reset_index(drop=True)
    if table.empty:
        raise DataError(f"At least one recording of {root} must be usable, but none is.")
    if "recording_id" not in table:
        table["recording_id"] = unique_ids(table["path"])
    return table[[name for name in _COLUMNS if name in table]], findings


def _repeated(table: pd.DataFrame) -> tuple[Finding, ...]:
    repeated = table["path"][table["path"].duplicated()]
    if repeated.empty:
        return ()
    fault = "[row names a file|rows name files] that an earlier row has named"
    return (Finding.of("named_twice", fault, repeated, "left out; the labels of the first row count."),)


def _target_space(root: Path, listed: Path | None, table: pd.DataFrame, all_species: LabelSpace) -> LabelSpace:
    path = listed or root / TARGET_LIST_NAME
    if listed is None and not is_there(path):
        return LabelSpace("target", all_species.species)
    codes = [spell_as(code, all_species.species) for code in read_target_list(path)]
    missing = [code for code in codes if code not in all_species.index]
    if missing:
        secondary = {code for labels in table["secondary_labels"] for code in labels}
        unknown = [code for code in missing if code not in secondary]
        what = (
            f"{', '.join(unknown)} of {path} is in no row"
            if unknown
            else f"{', '.join(missing)} of {path} is only heard in the background"
        )
        raise DataError(
            f"Every target species must have a recording of its own that can be opened, but {what}. Correct or shorten the list."
        )
    return LabelSpace.of("target", codes)


def _noise(root: Path, listing: Listing, max_bad_share: float) -> tuple[pd.DataFrame, tuple[Finding, ...]]:
    table = with_headers(root, listing.noise)
    bad = table["error"] != ""
    reasons = dict(zip(table["path"][bad], table["error"][bad], strict=True))
    findings = settle_unusable(
        reasons, total=len(table), max_share=max_bad_share, kind="unusable_noise", files="[noise file|noise files]"
    )
    return table[~bad].reset_index(drop=True).drop(columns="error"), findings


def _label_findings(table: pd.DataFrame, all_species: LabelSpace) -> tuple[Finding, ...]:
    labels = table["secondary_labels"].explode().dropna()
    unknown = labels[~labels.isin(all_species.index)].value_counts()
    if unknown.empty:
        return ()
    cases = [f"{code} ({count} recordings)" for code, count in unknown.items()]
    fault = "secondary [label is|labels are] the primary label of no recording"
    return (Finding.of("unlearnt_label", fault, cases, "not learnt; their recordings stay in for their other labels."),)


def _fingerprint(
    recordings: pd.DataFrame, noise: pd.DataFrame, soundscapes: Soundscapes | None, training: Soundscapes | None
) -> str:
    content = {name: recordings[name].tolist() for name in _IDENTITY_COLUMNS}
    content["rating"] = [None if math.isnan(rating) else rating for rating in content["rating"]]
    names = noise["path"].astype(str).str.rsplit("/", n=1).str[-1]
    noise_content = {"name": names.tolist(), **{name: noise[name].tolist() for name in ("group", "duration_s", "size_bytes")}}
    scored = {} if soundscapes is None else {"soundscapes": soundscapes.identity()}
    trained = {} if training is None else {"training_soundscapes": training.identity()}
    return fingerprint({"recordings": content, "noise": noise_content} | scored | trained)
