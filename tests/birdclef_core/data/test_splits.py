"""Folds are a partition: groups whole, species in as many folds as can be, sizes equal, and few recordings move when more come."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_recordings import long_tailed

from birdclef_core.data.splits import NUM_FOLDS, Folds, assign_folds


def table_of(species: list[str], authors: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"primary_label": species, "author": authors})


def split(table: pd.DataFrame, **changes: Any) -> Folds:
    table = table.reset_index(drop=True)
    return assign_folds(table["primary_label"], table["author"], **changes)


def validating(table: pd.DataFrame, found: Folds) -> pd.DataFrame:
    """How many recordings of each species validate in each fold."""
    inside = table.reset_index(drop=True)[~found.always_trains_R]
    counts = pd.crosstab(inside["primary_label"], found.fold_R[~found.always_trains_R])
    return counts.reindex(index=sorted(table["primary_label"].unique()), columns=range(NUM_FOLDS), fill_value=0)


def test_every_author_is_in_one_fold_and_every_species_in_all() -> None:
    table = long_tailed(6000, 40, 3000, seed=3)
    found = split(table)
    assert table.assign(fold=found.fold_R).groupby("author")["fold"].nunique().max() == 1
    assert not found.always_trains_R.any()
    counts = validating(table, found)
    assert counts.to_numpy().sum() == len(table) and (counts > 0).all(axis=None)
    sizes = np.bincount(found.fold_R) / len(table)
    assert sizes.min() > 0.17 and sizes.max() < 0.23


def test_the_figures_at_24000_recordings_of_834_species() -> None:
    """`docs/benchmarks/data.md` has them; `pytest -s` prints them."""
    table = long_tailed(24_000, 834, 2_500)
    started = time.process_time()
    found = split(table)
    cpu_s = time.process_time() - started
    authors_S = table.groupby("primary_label")["author"].nunique()
    counts = validating(table, found)
    folds_S = (counts > 0).sum(axis=1)
    reach_S = authors_S.clip(upper=NUM_FOLDS)
    sizes = np.bincount(found.fold_R) / len(table)
    of_one = table["primary_label"].map(authors_S) == 1
    moved = table["author"].nunique(), found.num_moved
    print(
        f"\n{table['author'].nunique():,} authors, the largest with {table['author'].value_counts().iloc[0]:,} recordings; {cpu_s:.2f} s; "
        f"folds of {sizes.min():.1%} to {sizes.max():.1%}; {int((~found.always_trains_R).sum()):,} recordings validate in one fold, "
        f"{int(found.always_trains_R.sum())} of {int((folds_S == 0).sum())} species in none; of {int(reach_S[authors_S > 1].sum()):,} "
        f"pairs of a species and a fold {int((reach_S - folds_S)[authors_S > 1].sum())} are missing; {moved[1]} of {moved[0]:,} authors moved"
    )
    assert np.array_equal(found.always_trains_R, of_one), "only what cannot be scored is scored in no fold"
    assert (folds_S[authors_S > 1] >= 2).all(), "scored, with training recordings of other authors"
    assert (reach_S - folds_S)[authors_S > 1].sum() < 0.04 * reach_S.sum()
    assert sizes.min() >= 0.18 and sizes.max() <= 0.23
    assert found.num_moved < 0.2 * moved[0] and cpu_s < 5


def test_few_recordings_move_when_more_come() -> None:
    table = long_tailed(6_000, 300, 1_200)
    old = np.random.default_rng(9).random(len(table)) < 0.99
    before, after = split(table[old]), split(table)
    assert (before.fold_R == after.fold_R[old]).mean() > 0.88


def test_nothing_moves_where_the_folds_were_kept() -> None:
    """New recordings of old authors go where these are, and those of new authors fill the folds evenly."""
    table = long_tailed(3000, 60, 300, seed=3)
    old = (np.random.default_rng(0).random(len(table)) < 0.7) & (table["author"] < "a25").to_numpy()
    before = split(table[old])
    previous = pd.Series(pd.NA, index=table.index, dtype="Int64")
    previous[old] = before.fold_R
    after = split(table, previous=previous)
    assert np.array_equal(after.fold_R[old], before.fold_R)
    folds = table.assign(fold=after.fold_R).groupby("author")["fold"]
    assert folds.nunique().max() == 1
    assert not np.array_equal(after.fold_R, split(table).fold_R)
    sizes = np.bincount(after.fold_R) / len(table)
    assert sizes.min() > 0.15 and sizes.max() < 0.25


def test_an_author_stays_where_most_of_the_recordings_were() -> None:
    table = table_of(["a"] * 10, ["Ann"] * 3 + ["Bob"] * 7)
    previous = pd.Series([3, 3, 1, 0, 2, 2, None, None, None, None], dtype="Int64")
    assert split(table, previous=previous).fold_R.tolist() == [3] * 3 + [2] * 7


def test_same_input_same_folds_and_another_seed_others() -> None:
    table = long_tailed(600, 30, 80)
    first = split(table, seed=2**40).fold_R
    assert np.array_equal(first, split(table, seed=2**40).fold_R)
    assert not np.array_equal(first, split(table, seed=1).fold_R)
    shuffled = table.sample(frac=1, random_state=0)
    assert np.array_equal(split(shuffled, seed=2**40).fold_R, first[shuffled.index])


def test_the_folds_are_golden() -> None:
    """A changed hash or rule would move everyone's validation set."""
    found = split(table_of(["s"] * 30, ["Ann", "Bob", "Çelik", "Eve", "Fay", "日本"] * 4 + ["Gus"] * 6))
    assert found.fold_R.tolist() == [2, 0, 0, 3, 2, 4] * 4 + [1] * 6
    large = split(long_tailed(2000, 50, 200))
    assert np.bincount(large.fold_R).tolist() == [578, 401, 349, 335, 337] and large.num_moved == 52


def test_what_only_one_author_has_always_trains() -> None:
    """One recording, and many of one author: neither may be lost to training, and the author's other recordings validate."""
    common = [f"a{number}" for number in range(20)]
    table = table_of(["common"] * 20 + ["single"] + ["lonely"] * 5, [*common, "a3"] + ["a4"] * 5)
    for seed in range(10):
        found = split(table, seed=seed)
        assert found.always_trains_R.tolist() == [False] * 20 + [True] * 6
        assert found.fold_R[20] == found.fold_R[3] and found.fold_R[25] == found.fold_R[4]


def test_two_authors_who_each_have_a_species_of_their_own() -> None:
    """Once refused as if nothing could be validated. The first folds are filled."""
    table = table_of(["amecro", "amecro", "gretit1", "gretit1", "norcar", "houspa"], ["A", "B", "A", "B", "A", "B"])
    for seed in range(10):
        found = split(table, seed=seed)
        assert found.always_trains_R.tolist() == [False] * 4 + [True] * 2
        assert sorted(set(found.fold_R)) == [0, 1] and found.fold_R[0] != found.fold_R[1]


def test_the_first_folds_have_what_can_be_scored() -> None:
    """The most diligent author has a species alone, and would fill fold 0."""
    table = table_of(["own"] * 9 + ["a", "a"], ["C"] * 9 + ["A", "B"])
    for seed in range(10):
        found = split(table, seed=seed)
        assert sorted(found.fold_R[-2:]) == [0, 1] and found.fold_R[0] > 1


def test_the_first_folds_stay_as_they_were_kept() -> None:
    table = table_of(["own"] * 9 + ["a", "a"], ["C"] * 9 + ["A", "B"])
    previous = pd.Series([0] * 9 + [3, None], dtype="Int64")
    found = split(table, previous=previous)
    assert found.fold_R[:-1].tolist() == [0] * 9 + [3] and found.fold_R[-1] not in (0, 3)


def test_species_of_few_authors_are_in_as_many_folds() -> None:
    """2 to 4 authors a species, each of whom has a species that nobody else has."""
    rows = [(f"s{code}", f"a{code}-{number}") for code, count in enumerate([2, 3, 4, 2, 3, 4, 2]) for number in range(count)]
    rows += [(f"own of {author}", author) for _, author in rows]
    table = pd.DataFrame(rows, columns=["primary_label", "author"])
    for seed in range(5):
        folds = (validating(table, split(table, seed=seed)) > 0).sum(axis=1)
        assert [folds[f"s{code}"] for code in range(7)] == [2, 3, 4, 2, 3, 4, 2]


def test_four_recordings_by_four_authors_among_many_are_scored() -> None:
    table = long_tailed(6_000, 300, 600)
    frequent = table["author"].value_counts().index[:4]
    table = pd.concat([table, table_of(["four"] * 4, list(frequent))], ignore_index=True)
    found = split(table)
    assert len(set(found.fold_R[-4:])) >= 2 and not found.always_trains_R[-4:].any()


def test_authors_who_cannot_be_put_apart() -> None:
    """Six authors, and a species for every two of them: five folds are too few. The species of the two in one fold are scored too."""
    pairs = [(one, other) for one in range(6) for other in range(one)]
    rows = [(f"s{one}{other}", f"a{author}") for one, other in pairs for author in (one, other, other)]
    table = pd.DataFrame(rows, columns=["primary_label", "author"])
    found = split(table)
    counts = validating(table, found)
    assert (counts.sum(axis=1) > 0).all()
    together = counts.index[(counts > 0).sum(axis=1) == 1]
    always = table[found.always_trains_R]
    assert list(together) == sorted(set(always["primary_label"])) and len(always) == 2 * len(together) > 0, (
        "the larger group trains"
    )


def test_recordings_of_no_species_go_with_their_author() -> None:
    table = table_of(["a"] * 10, [f"a{number}" for number in range(10)])
    silent = table.assign(primary_label=None)
    both = pd.concat([table, silent[:1]], ignore_index=True)
    found = split(both)
    assert found.fold_R[-1] == found.fold_R[0] and not found.always_trains_R.any()
    assert not split(silent).always_trains_R.any()


def test_nothing_to_split() -> None:
    assert split(table_of(["a", "a"], ["x", "x"])).always_trains_R.all()
    assert len(split(table_of([], [])).fold_R) == 0


@pytest.mark.slow
@pytest.mark.parametrize("authors", [8_000, 0], ids=["8,000 authors", "every recording by itself"])
def test_the_whole_metadata_take_a_few_seconds(authors: int) -> None:
    """Without authors it once took 20 s."""
    table = long_tailed(119_292, 834, authors or 10)
    if not authors:
        table["author"] = table.index.astype(str)
    started = time.process_time()
    split(table)
    assert time.process_time() - started < 8
