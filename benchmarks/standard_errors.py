"""Compare standard errors with the truth, and with those of draws: `python benchmarks/standard_errors.py`.

The truth is how far figures differ between validation sets whose authors are drawn anew. The controls are the bootstrap of recordings
and of authors: standard deviation of the figures of sets that are drawn with replacement from one set.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birdclef_core.evaluation.jackknife import standard_errors
from birdclef_core.evaluation.metrics import summarise

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
from made_up_authors import POPULATIONS, ValidationSet

FIGURES = ("cmap_pad5", "cmap", "auroc", "lrap")
Errors = dict[str, float]


def by_draws(one: ValidationSet, group_R: NDArray[np.int64], draws: int) -> Errors:
    """Return the standard deviation of each figure over sets of as many groups, drawn with replacement."""
    rng = np.random.default_rng(0)
    rows_of = [np.flatnonzero(group_R == group) for group in range(int(group_R.max()) + 1)]
    figures = []
    for _ in range(draws):
        rows = np.concatenate([rows_of[group] for group in rng.integers(len(rows_of), size=len(rows_of))])
        figures.append(summarise(one.truth_RC[rows], one.score_RC[rows]))
    return {name: float(np.nanstd([figure[name] for figure in figures], ddof=1)) for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=600, help="validation sets for the truth; every fourth gets a standard error")
    parser.add_argument("--draws", type=int, default=100, help="draws of a bootstrap, for every fortieth set")
    parser.add_argument("--only", default="", help="populations with this in their name")
    options = parser.parse_args()
    print(f"{'mean standard error / true one':<44}" + "".join(f"{name:>28}" for name in FIGURES))
    print(f"{'':<44}" + len(FIGURES) * f"{'here':>10}{'authors':>9}{'records':>9}")
    for title, population in ((title, item) for title, item in POPULATIONS.items() if options.only in title):
        rng = np.random.default_rng(1)
        sets = [population.draw(rng) for _ in range(options.sets)]
        truth = [summarise(one.truth_RC, one.score_RC) for one in sets]
        methods: dict[str, tuple[int, Callable[[ValidationSet], Errors]]] = {
            "here": (4, lambda one: standard_errors(one.truth_RC, one.score_RC, one.group_R)),
            "authors": (40, lambda one: by_draws(one, one.group_R, options.draws)),
            "records": (40, lambda one: by_draws(one, np.arange(len(one.group_R)), options.draws)),
        }
        errors = {name: [method(one) for one in sets[::step]] for name, (step, method) in methods.items()}
        cells = ""
        for figure in FIGURES:
            true = np.nanstd([item[figure] for item in truth], ddof=1)
            ratios = [np.nanmean([item[figure] for item in errors[name]]) / true for name in methods]
            cells += f"{ratios[0]:>10.2f}{ratios[1]:>9.2f}{ratios[2]:>9.2f}"
        print(f"{title:<44}{cells}", flush=True)
    time_it()


def time_it() -> None:
    """Print how much CPU time the standard errors of large validation sets take."""
    rng = np.random.default_rng(0)
    for recordings, species, authors in ((4_800, 264, 800), (4_800, 834, 800), (20_000, 834, 3_000)):
        share_C = np.arange(1.0, species + 1) ** -0.7
        truth_RC = np.zeros((recordings, species), bool)
        truth_RC[np.arange(recordings), rng.choice(species, recordings, p=share_C / share_C.sum())] = True
        score_RC, author_R = rng.random((recordings, species)), rng.integers(authors, size=recordings)
        times_s = []
        for _ in range(5):
            started = time.process_time()
            standard_errors(truth_RC, score_RC, author_R)
            times_s.append(time.process_time() - started)
        shown = f"{statistics.median(times_s):.2f} s of CPU time ({min(times_s):.2f} - {max(times_s):.2f})"
        print(f"{recordings:,} recordings x {species} species by {authors:,} authors: {shown}")


if __name__ == "__main__":
    main()
