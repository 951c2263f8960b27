"""Time the selection of an ensemble, and find out what an ensemble's scores were worth on windows that it never saw.

`time`: 24 candidates, 4,000 windows, 264 species. The control is the same greedy selection, one bag, every candidate tried in every round, each
mixture scored by `metrics.auroc`.
`worth`: made-up candidates of nearly equal worth, selected on the windows of a few files and scored on the windows of many others. The control is
greedy selection as it was published: one bag, no rule for who enters, weights as they were found.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.scores import Problem, judge
from birdclef_core.ensemble.selection import Rows, Rules, Weighted, normalised, select
from birdclef_core.evaluation.metrics import auroc

ROUNDS = 20
GREEDY = "greedy selection as published"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("time", "worth"))
    parser.add_argument("--sets", type=int, default=20, help="made-up sets of candidates (worth)")
    arguments = parser.parse_args()
    if arguments.what == "time":
        time_selection()
    else:
        for own, title in ((1.0, "candidates correlated by about .5"), (0.35, "candidates correlated by about .9")):
            print(f"\n{title}; means of {arguments.sets} sets ± their standard error")
            what_it_was_worth(own, arguments.sets)


def made_up(
    generator: np.random.Generator, *, files: Sequence[int], windows: int, species: int, own: float, candidates: int = 24
) -> list[Rows]:
    """Return rows of as many sets of files as `files` has numbers, heard by the same candidates.

    Logits are what is heard, times how good a candidate is (which varies by 2%), plus errors that all share and errors of its own. Some
    errors are those of a whole file. `own`: how large the errors of its own are.
    """
    quality_K = 1 + 0.02 * generator.standard_normal(candidates)
    rarity_C = generator.gamma(1.0, 1.0, species)
    return [_made_up_rows(generator, quality_K, rarity_C, number, windows, own) for number in files]


def _made_up_rows(
    generator: np.random.Generator, quality_K: NDArray, rarity_C: NDArray, files: int, windows: int, own: float
) -> Rows:
    file_R = np.repeat(np.arange(files), windows)
    shape = (len(file_R), len(rarity_C))

    def errors() -> NDArray[np.float64]:
        of_files = generator.standard_normal((files, shape[1]))[file_R]
        return generator.standard_normal(shape) + 0.5 * of_files

    is_there_RC = (generator.random((files, shape[1])) < 0.3)[file_R]
    truth_RC = is_there_RC & (generator.random(shape) < 0.02 * rarity_C)
    heard_RC = 1.5 * truth_RC + errors()
    logits_KRC = np.stack([(quality * heard_RC + own * errors()).astype(np.float32) for quality in quality_K])
    return Rows(source="soundscapes", truth_RC=truth_RC, logits_KRC=logits_KRC, group_R=file_R)


def time_selection() -> None:
    (rows,) = made_up(np.random.default_rng(0), files=[40], windows=100, species=264, own=1.0)
    heard = int(rows.truth_RC.any(axis=0).sum())
    print(f"{len(rows.group_R)} windows of {rows.num_groups} files, {heard} of {rows.truth_RC.shape[1]} species heard")
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(3):
        for name, run in (
            ("selection", lambda: select(rows, "auroc", _cost, Rules())),
            ("control, one round", lambda: _control_round(rows)),
        ):
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    started, started_at = time.process_time(), time.perf_counter()
    judge(_problem(rows), "nothing")
    with_scores, elapsed = time.process_time() - started, time.perf_counter() - started_at
    selection, control = min(seconds["selection"]), min(seconds["control, one round"]) * ROUNDS
    print(
        f"selection with 6 bags: {selection:.1f} s; with cross-fitting and all it is compared with: {with_scores:.1f} s ({elapsed:.1f} s elapsed)"
    )
    print(f"control, one bag of {ROUNDS} rounds: {control:.1f} s, {control / selection:.1f} times as long (CPU time, least of 3)")


def _control_round(rows: Rows) -> None:
    for candidate in range(len(rows.logits_KRC)):
        auroc(rows.truth_RC, expit(rows.mixture(((0, 0.5), (candidate, 0.5)))))


def what_it_was_worth(own: float, sets: int) -> None:
    figures: defaultdict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    for seed in range(sets):
        seen, unseen = made_up(np.random.default_rng(seed), files=[12, 60], windows=40, species=60, own=own)
        verdict = judge(_problem(seen), "nothing")
        ranked = RankedLogits(unseen.truth_RC, unseen.logits_KRC, "auroc")
        for way in verdict.ways:
            apparent, cross_fitted = way.scores.apparent.value, way.scores.cross_fitted.value
            assert apparent is not None and cross_fitted is not None
            figures[way.name].append((len(way.members), apparent, cross_fitted, ranked.mixture(way.members)))
        greedy = greedy_as_published(RankedLogits(seen.truth_RC, seen.logits_KRC, "auroc"))
        apparent = auroc(seen.truth_RC, expit(seen.mixture(greedy)))
        figures[GREEDY].append((len(greedy), apparent, np.nan, ranked.mixture(greedy)))
    print(f"{'':<34}{'members':>9}{'apparent':>18}{'cross-fitted':>18}{'never seen':>18}")
    for name, values in figures.items():
        members, *scores = np.array(values).T
        columns = "".join(f"{item.mean():>9.4f} ± {item.std(ddof=1) / np.sqrt(sets):.4f}" for item in scores)
        print(f"{name:<34}{members.mean():>9.1f}{columns}", flush=True)
    equal, ours, theirs = (np.array(figures[name])[:, 3] for name in ("equal weights, all candidates", "ensemble", GREEDY))
    for name, other in (("ensemble", ours), (GREEDY, theirs)):
        print(
            f"never seen, {name} - equal weights: {(other - equal).mean():+.4f} ± {(other - equal).std(ddof=1) / np.sqrt(sets):.4f}"
        )


def greedy_as_published(ranked: RankedLogits) -> Weighted:
    """Return what greedy selection with replacement keeps without any care."""
    total_GN = np.zeros_like(ranked.values_KGN[0])
    counts = np.zeros(ranked.num_candidates)
    best_score = -np.inf
    for _ in range(ROUNDS):
        scores = [ranked.addition(total_GN, candidate) for candidate in range(ranked.num_candidates)]
        best = int(np.argmax(scores))
        if scores[best] <= best_score:
            break
        total_GN, best_score = total_GN + ranked.values_KGN[best], scores[best]
        counts[best] += 1
    return normalised([(candidate, counts[candidate]) for candidate in np.flatnonzero(counts).tolist()])


def _problem(rows: Rows) -> Problem:
    count = len(rows.logits_KRC)
    return Problem(
        rows=rows,
        metric="auroc",
        cost=_cost,
        rules=Rules(),
        recipes=[str(candidate % 4) for candidate in range(count)],
        recipe_weights=[None] * count,
    )


def _cost(members: Sequence[int]) -> float:
    return 20.0 * len(members)


if __name__ == "__main__":
    main()
