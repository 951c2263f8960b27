"""The record of an ensemble, `ensemble.json`: its members with their weights, its procedure, and what it scored."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from birdclef_core.errors import InputError
from birdclef_core.inference.deployed import soup_id
from birdclef_core.inference.procedure import Procedure
from birdclef_core.json_files import from_json, to_json
from birdclef_core.output_place import writing_to

ENSEMBLE_FILE = "ensemble.json"
VERSION: Literal[1] = 1
"""Version of the record. One of another version is refused, because what it means could only be guessed."""

_SUM_TOLERANCE = 1e-6

Metric = Literal["auroc", "cmap", "cmap_pad5", "cmap_pad3", "lrap"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Source = Literal["soundscapes", "recordings"]
"""What is scored: labelled windows of soundscapes, or validation recordings."""


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One network of an ensemble."""

    stage_id: str
    """Id of the stage that has its weights, 64 digits."""
    souped_with: tuple[str, ...]
    """Ids of the other stages if its weights are the mean of several stages; empty for a stage alone."""
    recipe: str
    """Name of the recipe; empty for a stage that no recipe has."""
    encoder: str
    weight: float
    """Share of its logits in those of the ensemble. The shares of all members sum to 1."""
    cpu_ms_per_window: float
    """Milliseconds of CPU time that it takes for one window, without reading audio."""

    @property
    def stage_ids(self) -> tuple[str, ...]:
        """Ids of all stages whose weights it has."""
        return (self.stage_id, *self.souped_with)

    @property
    def model_id(self) -> str:
        """Id of its network: that of the stage, or a hash of the ids of all its stages."""
        return soup_id(self.stage_ids)


@dataclass(frozen=True, kw_only=True)
class EnsembleScore:
    """One score of an ensemble."""

    value: float | None
    """None where there is no such score."""
    error: float | None
    """Standard error of the value; None where it is not known."""
    reason: str
    """Why the value or the error is None; empty where both are known."""
    metric: Metric
    source: Source
    num_rows: int
    """Number of windows or recordings that were scored."""
    num_groups: int
    """Number of soundscape files or authors that these are of."""

    def __post_init__(self) -> None:
        if (self.value is None or self.error is None) != bool(self.reason):
            raise InputError("reason must say why value or error is null, and be empty where both are known.")


@dataclass(frozen=True, kw_only=True)
class EnsembleScores:
    """What an ensemble scored. The three differ in what the scored data were used for."""

    apparent: EnsembleScore
    """On the data that it was selected on: too good."""
    cross_fitted: EnsembleScore
    """On the same data, each part scored by an ensemble that was selected without it."""
    untouched: EnsembleScore
    """On data that nothing was selected by."""


@dataclass(frozen=True, kw_only=True)
class EnsembleRecord:
    """The record of an ensemble."""

    version: Literal[1]
    storage: str
    """The folder or URI of the storage that has its stages, without passwords and keys."""
    species: tuple[str, ...]
    """Species codes, sorted."""
    procedure: Procedure
    members: tuple[EnsembleMember, ...]
    """In the order in which they should be kept when time is short."""
    weights_of_first: tuple[tuple[float, ...], ...]
    """The k-th entry has the k weights of the first k members when only these run. The last has the members' own."""
    objective: str
    """What the sweeps compare trials by, such as `val_soundscapes/auroc`."""
    metric: Metric
    """What its members and weights were selected by."""
    selected_on: Source
    folds: tuple[int, ...] = ()
    """The folds whose validation recordings it was selected on, where each scored only models that did not learn from it (out of
    fold); empty: soundscapes, or the recordings of one fold."""
    data_fingerprint: str
    """Fingerprint of the recordings and soundscapes that it was selected on; with several folds, a hash of theirs."""
    scores: EnsembleScores
    created_at: str
    """Time at which it was selected, ISO 8601."""

    def __post_init__(self) -> None:
        if not self.members or not self.species or list(self.species) != sorted(set(self.species)):
            raise InputError("members must have at least one entry, and species must be sorted and each be there once.")
        ids = [stage for member in self.members for stage in member.stage_ids]
        if len(set(ids)) < len(ids):
            raise InputError("members must name each stage once.")
        if [len(weights) for weights in self.weights_of_first] != list(range(1, len(self.members) + 1)):
            raise InputError("weights_of_first must have an entry of k weights for the first k members, for each k.")
        for weights in self.weights_of_first:
            if min(weights) <= 0 or not math.isclose(sum(weights), 1, abs_tol=_SUM_TOLERANCE):
                raise InputError(f"weights must be above 0 and sum to 1, but some are {[round(item, 6) for item in weights]}.")
        if self.weights_of_first[-1] != tuple(member.weight for member in self.members):
            raise InputError("the last entry of weights_of_first must have the weights of the members.")
        if any(not 0 <= member.cpu_ms_per_window < math.inf for member in self.members):
            raise InputError("cpu_ms_per_window must be a number of 0 or more.")

    def first(self, count: int) -> tuple[tuple[EnsembleMember, float], ...]:
        """Return the first `count` members, each with its weight when only these run. Raises InputError for another number than there are."""
        if not 1 <= count <= len(self.members):
            raise InputError(
                f"1 <= count <= {len(self.members)} must hold, as the ensemble has so many members, but got {count}."
            )
        return tuple(zip(self.members[:count], self.weights_of_first[count - 1], strict=True))


def write_record(record: EnsembleRecord, path: Path) -> None:
    """Write a record. Raises InputError when the place cannot be written."""
    with writing_to(path, way_out="give another folder with -o"):
        path.write_text(to_json(record, indent=1), encoding="utf-8")


def read_record(path: Path) -> EnsembleRecord:
    """Return the record in a file. Raises InputError, with the file and what is wrong, when it cannot be read or is none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be an ensemble ({ENSEMBLE_FILE}), but cannot be read: {error.strerror}.") from None
    return from_json(EnsembleRecord, content, file=str(path))
