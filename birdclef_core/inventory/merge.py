"""Makes one recording of what several collections say about it: which claims belong together, and whose word counts.

A claim is one mention of a recording in one source. Claims are of the same recording when they name the same Xeno-canto number or
when their files hold the same bytes. The rule for labels: a table's word counts before that of a folder's name, then the source
that was given first, then the first row.
"""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from birdclef_core.data.recording_names import unique_ids, xeno_canto_ids

CONFLICT_COLUMNS = ("recording_id", "primary_label", "decided_by", "claims")

_FIRST_KNOWN = ("author", "rating", "latitude", "longitude", "year", "date", "absence")
_TEXTS = ("author", "date")  # Empty when unknown.
_AUDIO = ("path", "duration_s", "sample_rate_hz", "channels", "format", "size_bytes", "error")


@dataclass(frozen=True)
class Merged:
    recordings: pd.DataFrame
    """One row a recording, in the order in which the sources name them: the manifest's columns but `kind`, `group` and the names
    of the species, and absence (why the audio is not there, where more is known than that it is missing)."""
    conflicts: pd.DataFrame
    """`CONFLICT_COLUMNS`, one row a recording whose claims have different primary labels."""
    unlabelled: tuple[str, ...]
    """Audio that nothing gives a label."""
    num_only_described: int
    """Recordings that a table without audio of its own describes and that no source has."""
    num_repeated: int
    """Claims about a recording that an earlier claim had named."""


def merge_claims(claims: pd.DataFrame) -> Merged:
    """Return one row a recording, and what could not be merged.

    `claims` has `CLAIM_COLUMNS`, source (rank), source_name, only_describes (its source has no audio), content ("" or a hash)
    and the facts of its file; path and error are None where there is no audio, primary_label is "" where there is only audio.

    Of a recording's files the longest that can be opened counts (whole seconds, then the order of the sources). Secondary labels
    are those of all claims together, without the primary one. Author, rating, place and date are the first that are known.
    """
    claims = claims.assign(recording=_components(claims), labelled=claims["primary_label"] != "").reset_index(drop=True)
    by_recording = claims.groupby("recording")
    labelled = by_recording["labelled"].any()
    described = labelled & by_recording["path"].count().eq(0) & by_recording["only_describes"].all()
    kept = claims[claims["recording"].map(labelled & ~described)]
    ranked = kept.sort_values(["labelled", "by_table", "source"], ascending=[False, False, True], kind="stable")
    table = _table(ranked)
    return Merged(
        recordings=table.reset_index(drop=True),
        conflicts=_conflicts(ranked[ranked["labelled"]], table),
        unlabelled=tuple(claims["path"][~claims["recording"].map(labelled)]),
        num_only_described=int(described.sum()),
        num_repeated=int(kept["labelled"].sum()) - len(table),
    )


def override_labels(merged: Merged, overrides: pd.DataFrame) -> Merged:
    """Return the recordings with the labels that the user decided.

    `overrides` has recording_id (each once, all of the collection), primary_label, where "" leaves the
    recording out, and secondary_labels (tuples, or None for those that were found)."""
    table, conflicts = merged.recordings.copy(), merged.conflicts.copy()
    wanted = overrides.set_index("recording_id")
    table["primary_label"] = _replaced(table, "primary_label", wanted["primary_label"])
    found = _replaced(table, "secondary_labels", wanted["secondary_labels"].dropna())
    pairs = zip(found, table["primary_label"], strict=True)
    table["secondary_labels"] = pd.Series([tuple(code for code in labels if code != own) for labels, own in pairs], dtype=object)
    conflicts["primary_label"] = _replaced(conflicts, "primary_label", wanted["primary_label"])
    conflicts.loc[conflicts["recording_id"].isin(wanted.index), "decided_by"] = "override"
    return replace(merged, recordings=table[table["primary_label"] != ""].reset_index(drop=True), conflicts=conflicts)


def _replaced(table: pd.DataFrame, column: str, values: pd.Series) -> pd.Series:
    new = table["recording_id"].map(values)
    return table[column].where(new.isna(), new)


def _components(claims: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number for each claim: that of its recording, counted in the order of first mention."""
    numbers = xeno_canto_ids(claims["filename"]).fillna(xeno_canto_ids(claims["path"]))
    names = pd.concat(
        [
            ("number " + numbers).reset_index(drop=True),
            ("content " + claims["content"]).where(claims["content"] != "").reset_index(drop=True),
            ("file " + claims["path"]).reset_index(drop=True),
        ]
    ).dropna()
    keys = pd.factorize(names)[0] + len(claims)
    size = len(claims) + (int(keys.max()) + 1 - len(claims) if len(keys) else 0)
    edges = coo_array((np.ones(len(keys), dtype=np.int8), (names.index.to_numpy(), keys)), shape=(size, size))
    labels = connected_components(edges, directed=False)[1][: len(claims)]
    return pd.factorize(labels)[0]


def _table(ranked: pd.DataFrame) -> pd.DataFrame:
    """Return one row a recording, from its claims in the order in which they count."""
    winners = ranked.drop_duplicates("recording").set_index("recording").sort_index()
    table = winners[["primary_label"]].copy()
    table["recording_id"] = _recording_ids(ranked, winners)
    known = ranked[["recording", *_FIRST_KNOWN]].assign(**{name: ranked[name].where(ranked[name] != "") for name in _TEXTS})
    table[list(_FIRST_KNOWN)] = known.groupby("recording").first()
    table[list(_TEXTS)] = table[list(_TEXTS)].fillna("")
    table["secondary_labels"] = _secondary_labels(ranked, table["primary_label"])
    audio = _best_audio(ranked)
    table[list(_AUDIO)] = audio[list(_AUDIO)]
    by_audio = pd.concat([audio.reset_index(), ranked])
    table["sources"] = _joined(by_audio.drop_duplicates(["recording", "source_name"]), "source_name")
    return table


def _recording_ids(ranked: pd.DataFrame, winners: pd.DataFrame) -> pd.Series:
    """Return XC and the number where a claim of the recording has one, else the name of the file; unique."""
    numbers = xeno_canto_ids(ranked["filename"]).fillna(xeno_canto_ids(ranked["path"]))
    first_number = numbers.groupby(ranked["recording"]).first()
    own_name = winners["path"].where(winners["path"].notna(), winners["filename"])
    return unique_ids(("XC" + first_number).where(first_number.notna(), own_name))


def _secondary_labels(ranked: pd.DataFrame, primary: pd.Series) -> pd.Series:
    labels = ranked[["recording", "secondary_labels"]].explode("secondary_labels").dropna()
    labels = labels[labels["secondary_labels"] != labels["recording"].map(primary)].drop_duplicates()
    return _joined(labels, "secondary_labels").reindex(primary.index, fill_value=())


def _joined(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return the values of each recording as a tuple."""
    ordered = rows.sort_values("recording", kind="stable")
    recordings, starts = np.unique(ordered["recording"].to_numpy(), return_index=True)
    values = ordered[column].to_list()
    tuples = [tuple(values[start:end]) for start, end in pairwise([*starts, len(values)])]
    return pd.Series(tuples, index=recordings, dtype=object)


def _best_audio(ranked: pd.DataFrame) -> pd.DataFrame:
    """Return the file that counts for each recording; one that cannot be opened, or none, only where there is no better."""
    usable = ranked["error"].eq("")
    order = pd.DataFrame(
        {"broken": ~usable, "absent": ranked["path"].isna(), "shorter": -ranked["duration_s"].fillna(0.0).round()},
        index=ranked.index,
    )
    best = ranked.loc[order.sort_values(["broken", "absent", "shorter"], kind="stable").index]
    return best.drop_duplicates("recording").set_index("recording").sort_index()


def _conflicts(ranked: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    claims = ranked.drop_duplicates(["recording", "primary_label", "source_name"])
    disputed = claims.groupby("recording")["primary_label"].nunique()
    disputed = disputed[disputed > 1]
    claims = claims[claims["recording"].isin(disputed.index)]
    said = claims.assign(said=claims["primary_label"] + " (" + claims["source_name"] + ")")
    conflicts = table.loc[disputed.index, ["recording_id", "primary_label"]]
    conflicts["decided_by"] = "rule"
    conflicts["claims"] = _joined(said, "said").str.join("; ")
    return conflicts[list(CONFLICT_COLUMNS)].reset_index(drop=True)
