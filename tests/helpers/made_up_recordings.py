"""Tables of recordings as large collections have them: a few authors made most, each in a region; a few species are most of them."""

import numpy as np
import pandas as pd


def long_tailed(num_recordings: int, num_species: int, num_authors: int, *, seed: int = 0) -> pd.DataFrame:
    """Return primary_label and author; every species has at least one recording, and not every author may have one.

    Both are drawn from Pareto distributions. Of twelve regions each has about a third of the species, and the others are fifty times
    rarer there.
    """
    rng = np.random.default_rng(seed)
    diligence_A = rng.pareto(1.1, num_authors) + 0.05
    region_A = rng.integers(12, size=num_authors)
    popularity_S = rng.pareto(1.0, num_species) + 0.05
    is_at_home_RS = rng.random((12, num_species)) < 0.3
    authors = rng.choice(num_authors, num_recordings, p=diligence_A / diligence_A.sum())
    species = np.empty(num_recordings, dtype=np.int64)
    for region in range(12):
        rows = np.flatnonzero(region_A[authors] == region)
        chance_S = popularity_S * np.where(is_at_home_RS[region], 1, 0.02)
        species[rows] = rng.choice(num_species, len(rows), p=chance_S / chance_S.sum())
    species[:num_species] = rng.permutation(num_species)
    return pd.DataFrame({"primary_label": [f"s{code:03}" for code in species], "author": [f"a{number}" for number in authors]})
