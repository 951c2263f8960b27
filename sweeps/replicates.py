"""The replicates of a trial: with `--folds` it is trained once for each fold, with `--repeats` several times with other random numbers.

The stages of a trial are in the order of its chain, and each stage for all replicates before the next one. The stages of the same name are a
level: its score is the mean over the replicates.
"""

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from birdclef_core.config import REPLICATE_MARK
from birdclef_core.taxonomy import SOUNDSCAPES
from sweeps.objective import METRICS, STANDARD_ERROR, Score

_FOLD, _REPEAT = "fold", "repeat"


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """What the stages of one replicate have of their own."""

    name: str
    data_fingerprint: str
    """Fingerprint of the recordings, with the replicate's own split."""
    fold: int | None = None
    """The fold that validates; None: that of the data."""
    seed: int = 0
    """What is added to the random seed of each stage."""

    @classmethod
    def of_fold(cls, fold: int, data_fingerprint: str) -> "Replicate":
        """Return the replicate that one fold validates."""
        return cls(name=f"{_FOLD}{fold}", data_fingerprint=data_fingerprint, fold=fold)

    @classmethod
    def of_repeat(cls, number: int, data_fingerprint: str) -> "Replicate":
        """Return a repetition. Number 0 has the random numbers of a trial without repetitions, so it shares that one's stages."""
        return cls(name=f"{_REPEAT}{number}", data_fingerprint=data_fingerprint, seed=number)


def stage_of(name: str) -> str:
    """Return the name of the stage without that of its replicate."""
    return name.partition(REPLICATE_MARK)[0]


def replicate_of(name: str) -> str:
    """Return the name of the replicate that a stage of a trial belongs to; empty: to all."""
    return name.partition(REPLICATE_MARK)[2]


def are_folds(names: Iterable[str]) -> bool:
    """Return whether the replicates that stages belong to are folds."""
    return all(replicate_of(name).startswith(_FOLD) for name in names)


def fold_of(name: str) -> int:
    """Return the number of the fold that a stage of a trial belongs to."""
    return int(replicate_of(name).removeprefix(_FOLD))


def level_of(names: Sequence[str], index: int) -> list[int]:
    """Return the indexes of the stages that are on the same level as that of `index`: the same stage of all replicates."""
    return [other for other, name in enumerate(names) if stage_of(name) == stage_of(names[index])]


def levels(names: Sequence[str]) -> list[list[int]]:
    """Return the indexes of a trial's stages by level, first to last."""
    return [list(group) for _, group in itertools.groupby(range(len(names)), key=lambda index: stage_of(names[index]))]


def mean_score(scores: Mapping[str, Score], *, on_soundscapes: bool) -> Score:
    """Return the mean of the objective over replicates, with its standard error; `scores` by the names of the stages that have them.

    `on_soundscapes`: whether the objective has a score on labelled soundscapes, which are the same for all replicates.
    """
    values = [score.value for score in scores.values()]
    errors = [math.nan if score.error is None else score.error for score in scores.values()]
    error = _error(values, errors, shared=on_soundscapes or not are_folds(scores))
    return Score(statistics.fmean(values), None if math.isnan(error) else error)


def mean_metrics(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over replicates, of scores with their standard errors; `metrics` by the names of stages.

    A metric that one of them does not have is left out.
    """
    replicates, on_one_set = list(metrics.values()), not are_folds(metrics)
    means: dict[str, float] = {}
    for name in replicates[0]:
        values = [replicate.get(name, math.nan) for replicate in replicates]
        if name.endswith(STANDARD_ERROR) or not all(map(math.isfinite, values)):
            continue
        means[name] = statistics.fmean(values)
        if name.partition("/")[2] in METRICS:
            errors = [replicate.get(f"{name}{STANDARD_ERROR}", math.nan) for replicate in replicates]
            shared = name.startswith(f"val_{SOUNDSCAPES}") or on_one_set
            error = _error(values, errors, shared=shared)
            means |= {} if math.isnan(error) else {f"{name}{STANDARD_ERROR}": error}
    return means


def _error(values: Sequence[float], errors: Sequence[float], *, shared: bool) -> float:
    """The standard error of a mean over replicates; NaN where it is not known.

    An error says how far a value would differ on other recordings of the same kind. Parts that are scored on the same recordings
    (`shared`) err together there, so the mean errs as much as one of them, and their spread, which comes from training, is added. Folds
    are scored on different recordings, so their spread has both reasons in it; of so few values it may be small by chance, so it counts
    at least as much as the errors say.
    """
    known = [error**2 for error in errors if not math.isnan(error)]
    scoring = statistics.fmean(known) if known else math.nan
    if len(values) == 1:
        return math.sqrt(scoring)
    spread = statistics.variance(values)
    if shared:
        return math.sqrt(scoring + spread / len(values))
    return math.sqrt(max(spread, scoring if known else 0.0) / len(values))
