"""Time the metrics of one evaluation against scikit-learn on the same scores: `python benchmarks/metrics.py`.

One call computes the summary of an epoch: cmAP padded by 5 and by 3, unpadded cmAP, LRAP and AUROC. The control computes the same
five figures with scikit-learn's functions. Both run alternately, several times.
"""

import argparse
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

from birdclef_core.evaluation.metrics import auroc, cmap, lrap, padded_cmap, summarise

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    truth: NDArray[np.bool_]
    scores: NDArray[np.float32]


def make_case(recordings: int, species: int, labels_each: float, seed: int = 0) -> Case:
    """Make a truth with `labels_each` labels per recording on average, more of common species, and scores that correlate with it."""
    generator = np.random.default_rng(seed)
    share_C = generator.dirichlet(np.full(species, 0.5)) * labels_each
    truth = generator.random((recordings, species)) < np.minimum(share_C, 1)
    logits = generator.normal(-4, 1.5, truth.shape) + 3 * truth
    return Case(truth, (1 / (1 + np.exp(-logits))).astype(np.float32))


def columns(case: Case, kept_C: NDArray[np.bool_]) -> Case:
    """Return row-major copies of the columns: on the column-major ones that indexing gives, scikit-learn is over ten times slower."""
    return Case(np.ascontiguousarray(case.truth[:, kept_C]), np.ascontiguousarray(case.scores[:, kept_C]))


def padded(case: Case, k: int) -> Case:
    ones = np.ones((k, case.truth.shape[1]), np.float32)
    return Case(np.vstack((case.truth, ones.astype(bool))), np.vstack((case.scores, ones)))


def controls(case: Case) -> dict[str, Work]:
    """Return scikit-learn's calls for the five figures, on input that was prepared for it beforehand."""
    pad5, pad3 = padded(case, 5), padded(case, 3)
    seen = columns(case, case.truth.any(axis=0))
    both = columns(case, case.truth.any(axis=0) & ~case.truth.all(axis=0))
    labelled = Case(case.truth[case.truth.any(axis=1)], case.scores[case.truth.any(axis=1)])
    return {
        "cmap_pad5": lambda: average_precision_score(pad5.truth, pad5.scores, average="macro"),
        "cmap_pad3": lambda: average_precision_score(pad3.truth, pad3.scores, average="macro"),
        "cmap": lambda: average_precision_score(seen.truth, seen.scores, average="macro"),
        "lrap": lambda: label_ranking_average_precision_score(labelled.truth, labelled.scores),
        "auroc": lambda: roc_auc_score(both.truth, both.scores, average="macro"),
    }


def timed(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(name: str, ours: Work, theirs: Work, repeats: int) -> None:
    """One line: median and range of both, run in turn, and the ratio of the medians."""
    pairs = [(timed(ours), timed(theirs)) for _ in range(repeats)]
    mine, control = zip(*pairs, strict=True)
    ratio = statistics.median(control) / statistics.median(mine)
    print(f"{name:<12} {spread(mine)}   {spread(control)}   {ratio:5.1f}x", flush=True)


def spread(times_s: tuple[float, ...]) -> str:
    return f"{statistics.median(times_s):7.3f} s ({min(times_s):6.3f} - {max(times_s):6.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=20_000)
    parser.add_argument("--species", type=int, default=834)
    parser.add_argument("--labels-each", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    case = make_case(options.recordings, options.species, options.labels_each)
    truth, scores = case.truth, case.scores
    print(
        f"{options.recordings} x {options.species}, {truth.sum()} labels, {int(truth.any(axis=0).sum())} species with a recording; "
        f"Python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}, "
        f"{platform.machine()}, {os.cpu_count()} cores"
    )
    theirs, summary = controls(case), summarise(truth, scores)
    worst = max(abs(summary[name] - float(work())) for name, work in theirs.items())  # type: ignore[arg-type]
    print(f"largest difference of the five figures: {worst:.1e}")
    print(f"{'':<12} {'here: median (range)':<29}   {'scikit-learn':<29}   ratio")
    ours: dict[str, Work] = {
        "cmap_pad5": lambda: padded_cmap(truth, scores, 5),
        "cmap": lambda: cmap(truth, scores),
        "lrap": lambda: lrap(truth, scores),
        "auroc": lambda: auroc(truth, scores),
    }
    compare("all five", lambda: summarise(truth, scores), lambda: [work() for work in theirs.values()], options.repeats)
    for name, work in ours.items():
        compare(name, work, theirs[name], options.repeats)


if __name__ == "__main__":
    main()
