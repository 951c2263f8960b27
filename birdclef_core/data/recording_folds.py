"""The folds of a data set's recordings: their groups, their folds, and what is to be said of both."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from birdclef_core.data.groups import BY_AUTHOR, BY_ITSELF, BY_PLACE, group_recordings
from birdclef_core.data.labels import NOT_SPECIES
from birdclef_core.data.splits import NUM_FOLDS, assign_folds
from birdclef_core.errors import DataError, InputError
from birdclef_core.findings import Finding, inflect


def divide(recordings: pd.DataFrame, content: Sequence[str], previous: pd.Series | None) -> pd.DataFrame:
    """Return group, known_by, fold and always_trains of each recording.

    `recordings` has primary_label and what `group_recordings` needs, as is `content`; `previous` is the fold of each recording in an
    earlier split, NA where it was not in it. The columns: group (its name) and known_by (what makes it) are those of `Groups`; fold
    (0 to 4) is where the recording validates, unless it always_trains (see `Folds`). A copy of a recording that always trains does so
    too, and so do copies that are everywhere.
    """
    groups = group_recordings(recordings, content)
    species = recordings["primary_label"].mask(recordings["primary_label"].isin(NOT_SPECIES))
    folds = assign_folds(species, groups.name, previous=previous)
    always = groups.with_copies(folds.always_trains_R | groups.is_everywhere.to_numpy())
    columns = {"group": groups.name, "known_by": groups.known_by, "fold": folds.fold_R, "always_trains": always}
    return pd.DataFrame(columns, index=recordings.index)


def is_validation(recordings: pd.DataFrame, fold: int) -> pd.Series:
    """Return whether each recording validates when `fold` is the validation fold. `recordings` has fold and always_trains."""
    return (recordings["fold"] == fold) & ~recordings["always_trains"]


def require_validation(root: Path, recordings: pd.DataFrame, fold: int) -> None:
    """Raise InputError for a fold that does not exist, and DataError for one without validation recordings."""
    if not 0 <= fold < NUM_FOLDS:
        raise InputError(f"0 <= fold < {NUM_FOLDS} must hold, but got fold={fold}.")
    filled = sorted(recordings["fold"][~recordings["always_trains"]].unique())
    unknown = int((recordings["author"] == "").sum())
    if not filled:
        without = f" ({unknown:,} {inflect('[recording has|recordings have]', unknown)} no author)" if unknown else ""
        raise DataError(
            f"Some species must have recordings of two authors, so that one is put aside for validation, but none in {root} "
            f"has{without}. Add recordings, or fill in the column author of the metadata."
        )
    if fold not in filled:
        listed = " or ".join(map(str, filled))
        raise DataError(
            f"Fold {fold} of {root} must have a recording that can be scored, but there are too few authors to fill {NUM_FOLDS} folds. "
            f"Choose --fold {listed}."
        )


def split_findings(recordings: pd.DataFrame, species: Sequence[str], fold: int) -> tuple[Finding, ...]:
    """Return what is to be said of groups and folds. `recordings` has the columns of `divide`, author and primary_label."""
    found = [
        _unknown_authors(recordings),
        _never_scored(recordings, species, fold),
        _kept_in_training(recordings),
        _scored_elsewhere(recordings, species, fold),
    ]
    return tuple(finding for finding in found if finding.count)


def how_grouped(recordings: pd.DataFrame) -> str:
    """Return as sentences what keeps recordings together on one side of the split. `recordings` has the columns of `divide`."""
    known_by = recordings["known_by"]
    said = []
    if (by_author := known_by == BY_AUTHOR).any():
        where = "" if by_author.all() else " where the author is known"
        number = int((by_author & recordings["always_trains"]).sum())
        said.append(
            f"All recordings of an author are on one side{where}"
            + (f", except {number:,} that {inflect('[trains|train]', number)} in every fold." if number else ".")
        )
    if (by_place := known_by == BY_PLACE).any():
        number, groups = int(by_place.sum()), recordings["group"][by_place].nunique()
        dated = "date" in recordings and (recordings["date"][by_place] != "").any()
        said.append(
            f"{number:,} {inflect('[recording|recordings]', number)} without an author {inflect('[is|are]', number)} kept together by "
            f"{'place and day' if dated else 'place'}, in {groups:,} {inflect('[group|groups]', groups)}."
        )
    if (alone := known_by == BY_ITSELF).any():
        number = int(alone.sum())
        said.append(
            f"Of {number:,} {inflect('[recording|recordings]', number)} neither author nor place {inflect('[is|are]', number)} known: if "
            "several are by one author, they may be on both sides, and scores look better than they are."
        )
    return " ".join([*said, "Equal files, and pieces of one recording by their names, are on one side."])


def _unknown_authors(recordings: pd.DataFrame) -> Finding:
    unknown = recordings[recordings["author"] == ""]
    fault = "[recording has|recordings have] no author"
    meaning = f"the split cannot keep their authors apart. {how_grouped(recordings)} Fill in the column author of the metadata."
    return Finding.of("unknown_author", fault, unknown["path"], meaning, level="note")


def _never_scored(recordings: pd.DataFrame, species: Sequence[str], fold: int) -> Finding:
    always = recordings["always_trains"]
    scored = set(recordings["primary_label"][~always])
    unscored = [code for code in species if code not in scored]
    alike = is_validation(recordings, fold) & recordings["group"].isin(recordings["group"][always])
    number = int(alike.sum())
    also = (
        f" Their authors also have {number:,} {inflect('[recording|recordings]', number)} of other species among those that validate."
        if number
        else ""
    )
    or_place = ", or of one place where authors are unknown" if (recordings["author"] == "").any() else ""
    fault = f"species [has|have] recordings of one author only{or_place}"
    meaning = f"trained in every fold and scored in none, as no other recordings are left to train or to score them.{also}"
    return Finding.of("unscorable_species", fault, unscored, meaning, level="note")


def _kept_in_training(recordings: pd.DataFrame) -> Finding:
    always = recordings["always_trains"]
    scored = set(recordings["primary_label"][~always])
    cases = recordings["recording_id"][always & recordings["primary_label"].isin(scored)]
    fault = "[recording trains|recordings train] in every fold although the species is scored"
    meaning = "a copy of it has to train, or the few authors of its species could not be put into different folds."
    return Finding.of("always_trains", fault, cases, meaning, level="note")


def _scored_elsewhere(recordings: pd.DataFrame, species: Sequence[str], fold: int) -> Finding:
    can_validate = recordings[~recordings["always_trains"]]
    here = set(can_validate["primary_label"][can_validate["fold"] == fold])
    elsewhere = set(can_validate["primary_label"]) - here
    fault = f"species [has|have] no validation recording in fold {fold}"
    meaning = (
        "trained, and scored in other folds only: fewer authors recorded them than there are folds, or most is by one author."
    )
    return Finding.of("unscored_species", fault, [code for code in species if code in elsewhere], meaning, level="note")
