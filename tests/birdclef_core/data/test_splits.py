import time

import numpy as np
import pandas as pd
import pytest

from birdclef_core.data.splits import Split, author_grouped_split, author_groups
from birdclef_core.errors import InputError


def made_up(num_recordings: int = 600, num_species: int = 30, num_authors: int = 80) -> pd.DataFrame:
    """Authors of very different diligence, each of whom knows a third of the species."""
    rng = np.random.default_rng(3)
    diligence = rng.pareto(1.5, num_authors) + 0.2
    authors = rng.choice(num_authors, num_recordings, p=diligence / diligence.sum())
    species = (authors + 3 * rng.integers(0, num_species // 3, num_recordings)) % num_species
    table = pd.DataFrame({"species": [f"s{code:02}" for code in species], "author": [f"a{number}" for number in authors]})
    return table.assign(path=[f"{number}.ogg" for number in range(num_recordings)])


def split(table: pd.DataFrame, seed: int = 5, **changes: object) -> Split:
    table = table.reset_index(drop=True)
    return author_grouped_split(table["species"], table["author"], share=0.2, seed=seed, recording_ids=table["path"], **changes)


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
    names = pd.Series(["Ann", "Bob", "Çelik", "", "Eve", "Fay"])
    found = author_grouped_split(pd.Series(["s"] * 6), names, share=0.2, seed=0, recording_ids=pd.Series(list("uvwxyz")))
    assert found.fold_R.tolist() == [4, 3, 0, 0, 2, 2]


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


def test_rare_species_stay_in_training_and_are_unscored() -> None:
    """One recording, and many of one author: neither may be lost to validation, whatever the seed."""
    species = pd.Series(["common"] * 20 + ["single"] + ["lonely"] * 5)
    authors = pd.Series([f"a{number}" for number in range(20)] + ["x"] + ["one"] * 5)
    for seed in range(10):
        found = author_grouped_split(species, authors, share=0.2, seed=seed)
        assert found.unscored_species == ("lonely", "single")
        assert not found.is_validation[20:].any()


def test_a_species_with_few_authors_is_scored() -> None:
    """Seen on a set of 58 recordings: folds alone leave half of the species unscored."""
    counts = [4, 4, 3, 5, 2, 16, 3, 4, 3, 4, 3, 3, 4]
    species = pd.Series([f"s{code:02}" for code, count in enumerate(counts) for _ in range(count)])
    for seed in range(5):
        found = author_grouped_split(species, pd.Series([""] * 58), share=0.2, seed=seed)
        assert found.unscored_species == ()
        held = pd.Series(found.is_validation).groupby(species).mean()
        assert held.max() <= 0.5


def test_unknown_authors_are_one_each() -> None:
    assert list(author_groups(pd.Series(["", "ann", "", "ann"], index=[9, 3, 5, 1]))) == [0, 1, 2, 1]


def test_nothing_to_split_and_wrong_values() -> None:
    assert not author_grouped_split(pd.Series(["a", "a"]), pd.Series(["x", "x"]), share=0.2, seed=0).is_validation.any()
    with pytest.raises(InputError, match="validation_share=0"):
        author_grouped_split(pd.Series(["a"]), pd.Series(["x"]), share=0, seed=0)
    with pytest.raises(InputError, match=r"0 <= fold < 5 .* fold=5"):
        author_grouped_split(pd.Series(["a"]), pd.Series(["x"]), share=0.2, seed=0, fold=5)


def test_the_whole_metadata_take_well_under_two_seconds() -> None:
    """Without authors it took 20 s."""
    rng = np.random.default_rng(0)
    species = pd.Series([f"s{code}" for code in rng.zipf(1.3, 119_292) % 834])
    started = time.perf_counter()
    author_grouped_split(species, pd.Series([""] * len(species)), share=0.2, seed=0)
    assert time.perf_counter() - started < 2
