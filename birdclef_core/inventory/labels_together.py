"""Which species are heard in the same recordings, and how often. Shapes: R recordings, S species."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array, triu


@dataclass(frozen=True)
class SharedRecordings:
    """How many recordings each two species share."""

    codes: list[str]
    """The species, primary or secondary labels."""
    shared_SS: csr_array
    """Counts; nothing on the diagonal."""

    @classmethod
    def of(cls, primary: pd.Series, secondary: pd.Series) -> "SharedRecordings":
        """Return the counts of recordings with a primary label and secondary labels (tuples) each."""
        rows = np.concatenate([np.arange(len(primary)), np.repeat(np.arange(len(primary)), secondary.str.len())])
        labels = pd.concat([primary, secondary.explode().dropna()], ignore_index=True)
        column, codes = pd.factorize(labels)
        present_RS = csr_array((np.ones(len(column), dtype=np.int64), (rows, column)), shape=(len(primary), len(codes)))
        present_RS.data[:] = 1
        shared_SS = (present_RS.T @ present_RS).tolil()
        shared_SS.setdiag(0)
        shared_SS = csr_array(shared_SS)
        shared_SS.eliminate_zeros()
        return cls([str(code) for code in codes], shared_SS)

    def best_pairs(self, count: int) -> list[tuple[str, str, int]]:
        """Return the pairs of species that share most recordings, over all species, with that number; `count` pairs at most."""
        pairs = triu(self.shared_SS, k=1).tocoo()
        best = np.argsort(-pairs.data, kind="stable")[:count]
        return [(self.codes[pairs.row[index]], self.codes[pairs.col[index]], int(pairs.data[index])) for index in best]

    def sharing_most(self, count: int) -> tuple[list[str], NDArray[np.int64]]:
        """Return the species that share most recordings with any other species, `count` at most, and the counts among them."""
        totals = np.asarray(self.shared_SS.sum(axis=1)).ravel()
        chosen = [int(index) for index in np.argsort(-totals, kind="stable")[:count] if totals[index]]
        return [self.codes[index] for index in chosen], self.shared_SS[chosen][:, chosen].toarray()
