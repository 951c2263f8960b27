import numpy as np
import pandas as pd
import pytest

from birdclef_core.data.splits import author_grouped_split, author_groups
from birdclef_core.errors import InputError


def made_up(num_recordings: int = 600, num_species: int = 30, num_authors: int = 80) -> tuple[pd.Series, pd.Series]:
    rng = np.random.default_rng(3)
    species = pd.Series([f"s{code:02}" for code in rng.integers(0, num_species, num_recordings)])
    return species, pd.Series([f"a{number}" for number in rng.integers(0, num_authors, num_recordings)])


def test_share_authors_and_species() -> None:
    species, authors = made_up()
    split = author_grouped_split(species, authors, share=0.2, seed=5)
    assert 0.15 < split.is_validation.mean() < 0.3
    assert not set(authors[split.is_validation]) & set(authors[~split.is_validation])
    assert set(species[~split.is_validation]) == set(species)
    assert split.unscored_species == ()


def test_same_input_same_split_and_another_seed_another() -> None:
    species, authors = made_up()
    first, again = (author_grouped_split(species, authors, share=0.2, seed=2**40) for _ in range(2))
    other = author_grouped_split(species, authors, share=0.2, seed=1)
    assert np.array_equal(first.is_validation, again.is_validation)
    assert not np.array_equal(first.is_validation, other.is_validation)


def test_rare_species_stay_in_training_and_are_unscored() -> None:
    """One recording, and many of one author: neither may be lost to validation, whatever the seed."""
    species = pd.Series(["common"] * 20 + ["single"] + ["lonely"] * 5)
    authors = pd.Series([f"a{number}" for number in range(20)] + ["x"] + ["one"] * 5)
    for seed in range(10):
        split = author_grouped_split(species, authors, share=0.2, seed=seed)
        assert split.unscored_species == ("lonely", "single")
        assert not split.is_validation[20:].any()


def test_a_species_with_few_authors_is_scored() -> None:
    """Seen on a set of 58 recordings: folds alone leave half of the species unscored."""
    counts = [4, 4, 3, 5, 2, 16, 3, 4, 3, 4, 3, 3, 4]
    species = pd.Series([f"s{code:02}" for code, count in enumerate(counts) for _ in range(count)])
    for seed in range(5):
        split = author_grouped_split(species, pd.Series([""] * 58), share=0.2, seed=seed)
        assert split.unscored_species == ()
        held = pd.Series(split.is_validation).groupby(species).mean()
        assert held.max() <= 0.5


def test_unknown_authors_are_one_each() -> None:
    assert list(author_groups(pd.Series(["", "ann", "", "ann"], index=[9, 3, 5, 1]))) == [0, 1, 2, 1]


def test_nothing_to_split() -> None:
    assert not author_grouped_split(pd.Series(["a", "a"]), pd.Series(["x", "x"]), share=0.2, seed=0).is_validation.any()
    with pytest.raises(InputError, match="validation_share=0"):
        author_grouped_split(pd.Series(["a"]), pd.Series(["x"]), share=0, seed=0)
