import time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data.splits import Split, author_grouped_split
from birdclef_core.errors import InputError


def made_up(num_recordings: int = 600, num_species: int = 30, num_authors: int = 80) -> pd.DataFrame:
    """Authors of very different diligence, each of whom knows a third of the species."""
    rng = np.random.default_rng(3)
    diligence = rng.pareto(1.5, num_authors) + 0.2
    authors = rng.choice(num_authors, num_recordings, p=diligence / diligence.sum())
    species = (authors + 3 * rng.integers(0, num_species // 3, num_recordings)) % num_species
    table = pd.DataFrame({"species": [f"s{code:02}" for code in species], "author": [f"a{number}" for number in authors]})
    return table.assign(path=[f"{number}.ogg" for number in range(num_recordings)])


def table_of(species: list[str], authors: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"species": species, "author": authors, "path": [f"{row}.ogg" for row in range(len(species))]})


def split(table: pd.DataFrame, seed: int = 5, share: float = 0.2, **changes: Any) -> Split:
    table = table.reset_index(drop=True)
    return author_grouped_split(table["species"], table["author"], share=share, seed=seed, recording_ids=table["path"], **changes)


def test_share_authors_and_species() -> None:
    table = made_up()
    for fold in range(5):
        found = split(table, fold=fold)
        held = table["species"][found.is_validation].value_counts() / table["species"].value_counts()
        assert 0.15 < found.is_validation.mean() < 0.3
        assert not set(table["author"][found.is_validation]) & set(table["author"][~found.is_validation])
        assert found.unscored_species == () and held.min() >= 0.1 and held.max() <= 0.5


def test_same_input_same_split_and_another_seed_another() -> None:
    table = made_up()
    first, again = (split(table, seed=2**40).is_validation for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, split(table, seed=1).is_validation)
    shuffled = table.sample(frac=1, random_state=0)
    assert np.array_equal(split(shuffled, seed=2**40).is_validation, first[shuffled.index])


def test_the_folds_of_authors_are_golden() -> None:
    """A changed hash would move everyone's validation set."""
    found = split(table_of(["s"] * 6, ["Ann", "Bob", "Çelik", "", "Eve", "Fay"]), seed=0)
    assert found.fold_R.tolist() == [4, 3, 0, 4, 2, 2]


@pytest.mark.parametrize("unknown_authors", [False, True])
def test_old_recordings_keep_their_side_when_new_ones_come(unknown_authors: bool) -> None:
    """By their fold always, by the repairs mostly, with the earlier split at hand without exception."""
    table = made_up(3000, 60, 300)
    if unknown_authors:
        table["author"] = ""
    old = np.random.default_rng(0).random(len(table)) < 0.9
    before, after = split(table[old]), split(table)
    assert np.array_equal(after.fold_R[old], before.fold_R)
    assert (after.is_validation[old] == before.is_validation).mean() > 0.9
    previous = pd.Series(pd.NA, index=table.index, dtype="boolean")
    previous[old] = before.is_validation
    held = split(table, previous=previous)
    assert np.array_equal(held.is_validation[old], before.is_validation)
    assert 0.15 < held.is_validation[~old].mean() < 0.3


def test_an_earlier_split_gives_way_where_a_species_would_be_lost() -> None:
    """`new` is heard by two authors that are both in validation: one of them has to train it."""
    table = made_up()
    before = split(table)
    holders = table["author"][before.is_validation].unique()[:2]
    added = pd.DataFrame({"species": "new", "author": holders, "path": ["n0", "n1"]})
    table = pd.concat([table, added], ignore_index=True)
    found = split(table, previous=pd.Series([*before.is_validation, None, None], dtype=object))
    assert sorted(found.is_validation[-2:]) == [False, True] and found.num_moved == 1


def test_an_earlier_split_stays_where_a_species_only_gives_much() -> None:
    """Two of three recordings of `new` are by an author in validation: more than a new author could hold back."""
    table = made_up()
    before = split(table)
    insider, outsider = table["author"][before.is_validation].iloc[0], table["author"][~before.is_validation].iloc[0]
    added = pd.DataFrame({"species": "new", "author": [insider, insider, outsider], "path": ["n0", "n1", "n2"]})
    table = pd.concat([table, added], ignore_index=True)
    found = split(table, previous=pd.Series([*before.is_validation, None, None, None], dtype=object))
    assert found.is_validation[-3:].tolist() == [True, True, False] and found.num_moved == 0


def test_rare_species_stay_in_training_and_are_unscored() -> None:
    """One recording, and many of one author: neither may be lost to validation, whatever the seed."""
    table = table_of(["common"] * 20 + ["single"] + ["lonely"] * 5, [f"a{number}" for number in range(20)] + ["x"] + ["one"] * 5)
    for seed in range(10):
        found = split(table, seed)
        assert found.unscored_species == ("lonely", "single")
        assert not found.is_validation[20:].any()


def test_a_species_with_few_authors_is_scored() -> None:
    """Seen on a set of 58 recordings: folds alone leave half of the species unscored."""
    counts = [4, 4, 3, 5, 2, 16, 3, 4, 3, 4, 3, 3, 4]
    table = table_of([f"s{code:02}" for code, count in enumerate(counts) for _ in range(count)], [""] * 58)
    for seed in range(5):
        found = split(table, seed)
        assert found.unscored_species == ()
        held = pd.Series(found.is_validation).groupby(table["species"]).mean()
        assert held.max() <= 0.5


def test_nothing_to_split_and_wrong_values() -> None:
    table = table_of(["a", "a"], ["x", "x"])
    assert not split(table).is_validation.any()
    with pytest.raises(InputError, match="validation_share=0"):
        split(table, share=0)
    with pytest.raises(InputError, match=r"0 <= fold < 5 .* fold=5"):
        split(table, fold=5)


def test_the_whole_metadata_take_well_under_two_seconds() -> None:
    """Without authors it took 20 s."""
    species = [f"s{code}" for code in np.random.default_rng(0).zipf(1.3, 119_292) % 834]
    table = table_of(species, [""] * len(species))
    started = time.perf_counter()
    split(table)
    assert time.perf_counter() - started < 2
