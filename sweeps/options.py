"""The options of a sweep, as the command line gives them.

They are checked here and kept in the sweep's record, so that a resumed sweep needs its name only.
"""

import re
import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from birdclef_core.errors import InputError
from birdclef_core.store.patience import DEFAULT_MINUTES
from sweeps.objective import Objective

FOLD_HELP = "which of the five folds of authors is used for validation, 0 to 4 (default 0)"
TARGET_SPECIES_HELP = "codes of the species to detect, one per line (default: target_species.txt of the data folder, else all)"
MAX_FOLDS = 5
"""As many folds as recordings are divided into. Written here because the command line must not wait for libraries that divide."""
DEFAULT_STORAGE = "sweeps-output"
DEMO_DATA = "demo-data"
"""Folder of the synthetic demo set, in the working directory."""
DEFAULT_CACHE = "~/.cache/birdclef-sweeps"
PruningName = Literal["worth", "halving", "off"]
PLACEMENT = (
    "address",
    "gpus_per_trial",
    "cpus_per_trial",
    "max_concurrent",
    "wait_for_gpus",
    "cache_dir",
    "max_store_bytes",
    "storage_outage_minutes",
    "tracking_uri",
    "allow_leaked_scores",
    "max_gpu_hours",
    "max_hours",
    "max_cost",
    "price_per_hour",
    "on_end",
    "on_best",
    "tags",
    "note",
)
"""Options that change no result, so they may be given with `--resume`, for other machines than before."""


def storage_flag(storage: str) -> str:
    """The flag of a command that names the sweep's storage, as a shell reads it; empty for the default. A URI may have `&` and `?`."""
    return "" if storage == DEFAULT_STORAGE else f" --storage {shlex.quote(storage)}"


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options of one sweep, each named like its flag. Raises InputError when one is out of range.

    None means that the option was not given; its default is then chosen when the sweep starts.
    """

    search: str
    """Name of a search in `sweeps/searches/`, or the path of a search file."""
    data: str | None = None
    """A data folder in the layout of BirdCLEF, or the folder or URI of a packed set; None: the synthetic demo set."""
    from_stage: str | None = None
    """The start stage: a reference as the user gave it, or the complete stage id once it has been looked up."""
    allow_leaked_scores: bool = False
    """Whether the start stage and stored teachers may have been trained on validation recordings; all scores are marked then."""
    samples: int | None = None
    """Number of trials; of an extension, number of further trials. None: the default of the budget, or as many as the limits allow."""
    max_gpu_hours: float | None = None
    """Most hours of GPUs, or of workers without GPUs, of the whole sweep."""
    max_hours: float | None = None
    """Most hours in which a driver of the sweep runs."""
    max_cost: float | None = None
    """Most money for GPU hours of the whole sweep."""
    price_per_hour: float | None = None
    """Price of a GPU hour, or of a worker's hour without GPUs."""
    budget: str | None = None
    """`small` or `full`."""
    pruning: PruningName | None = None
    """`worth`: at the end of a stage a trial stops if another one is worth more for what it costs; `halving`: stages whose scores are low
    among those of their kind stop; `off`: every trial is trained to its end. None: `worth` with the sampler `stage`, else `halving`."""
    sampler: str | None = None
    """See `Search.sampler`; None: the search says it."""
    seed: int = 0
    """Random seed of the sampler."""
    objective: str | None = None
    """What trials are compared by, see `Objective.of`; None: the search says it, or the data."""
    name: str | None = None
    storage: str = DEFAULT_STORAGE
    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: int | None = None
    max_concurrent: int | None = None
    wait_for_gpus: int | None = None
    """How many GPUs the cluster must have before the sweep begins."""
    pretrained: str = "auto"
    """Where the encoders' first weights come from: `auto`, `require`, `off` or a path."""
    target_species: str | None = None
    """A file with one species code per line; None: the data folder's own list, or all species."""
    max_bad_share: float = 0.05
    """Largest share of recordings that may be unusable, 0 to 1."""
    fold: int = 0
    """Fold of the split that is used for validation, 0 to 4."""
    folds: int | None = None
    """On how many folds each trial is trained and scored, from fold 0 on; None: on `fold` alone."""
    repeats: int | None = None
    """How often each trial is trained, with other random numbers each time; None: once."""
    tracking_uri: str | None = None
    """An MLflow server, a folder for a local one, or `off`."""
    cache_dir: str = DEFAULT_CACHE
    """Folder of decoded audio, on each machine."""
    max_seconds_per_recording: float | None = None
    max_bytes: int | None = None
    """Most bytes of the cache of decoded audio and of the files of a packed set in it."""
    max_store_bytes: int | None = None
    """Most bytes of the stage store."""
    storage_outage_minutes: float = DEFAULT_MINUTES
    """For how many minutes what must be written waits for a remote storage that is away."""
    on_end: str | None = None
    """A command for the shell that is run when the sweep has ended, with its result as JSON."""
    on_best: str | None = None
    """The same for each new best trial."""
    tags: dict[str, str] = field(default_factory=dict)
    """What the user calls the sweep by: shown in lists and on pages, and given to every run in MLflow."""
    note: str | None = None
    """What the user wants to remember of the sweep."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Configuration fields that were set by `--set`, by their dotted names."""

    def __post_init__(self) -> None:
        rules = (
            ("--samples >= 1", self.samples, self.samples is None or self.samples >= 1),
            ("--max-gpu-hours > 0", self.max_gpu_hours, self.max_gpu_hours is None or self.max_gpu_hours > 0),
            ("--max-hours > 0", self.max_hours, self.max_hours is None or self.max_hours > 0),
            ("--max-cost > 0", self.max_cost, self.max_cost is None or self.max_cost > 0),
            ("--price-per-hour > 0", self.price_per_hour, self.price_per_hour is None or self.price_per_hour > 0),
            ("--max-cost only with --price-per-hour", self.max_cost, self.max_cost is None or self.price_per_hour is not None),
            (f"--pruning {' or '.join(get_args(PruningName))}", self.pruning, self.pruning in (None, *get_args(PruningName))),
            ("--seed >= 0", self.seed, self.seed >= 0),
            ("--gpus-per-trial >= 0", self.gpus_per_trial, self.gpus_per_trial is None or self.gpus_per_trial >= 0),
            ("--cpus-per-trial >= 1", self.cpus_per_trial, self.cpus_per_trial is None or self.cpus_per_trial >= 1),
            ("--max-concurrent >= 1", self.max_concurrent, self.max_concurrent is None or self.max_concurrent >= 1),
            ("--wait-for-gpus >= 0", self.wait_for_gpus, self.wait_for_gpus is None or self.wait_for_gpus >= 0),
            ("--wait-for-gpus only with --address", self.wait_for_gpus, self.address is not None or not self.wait_for_gpus),
            (f"2 <= --folds <= {MAX_FOLDS}", self.folds, self.folds is None or 2 <= self.folds <= MAX_FOLDS),
            ("--repeats >= 2", self.repeats, self.repeats is None or self.repeats >= 2),
            ("--folds without --fold (the folds are 0 to N-1)", f"--fold {self.fold}", self.folds is None or not self.fold),
            (
                "--folds without --repeats",
                f"--folds {self.folds} and --repeats {self.repeats}",
                self.folds is None or self.repeats is None,
            ),
            ("--max-store-bytes >= 1", self.max_store_bytes, self.max_store_bytes is None or self.max_store_bytes >= 1),
            ("--storage-outage-minutes >= 0", self.storage_outage_minutes, self.storage_outage_minutes >= 0),
            ("--max-bytes >= 0", self.max_bytes, self.max_bytes is None or self.max_bytes >= 0),
            ("0 <= --max-bad-share <= 1", self.max_bad_share, 0 <= self.max_bad_share <= 1),
            ("--name made of letters, digits, '.', '_' and '-'", self.name, re.fullmatch(r"[\w.-]+", self.name or "-")),
        )
        for name, text in vars(self).items():
            if isinstance(text, str) and "\0" in text:
                raise InputError(f"--{name.replace('_', '-')} must have no zero bytes, but got {text!r}.")
        for rule, value, holds in rules:
            if not holds:
                raise InputError(f"{rule} must hold, but got {value!r}.")
        if self.objective is not None:
            object.__setattr__(self, "objective", str(Objective.of(self.objective)))

    @property
    def validating(self) -> tuple[int, ...]:
        """The folds that validate."""
        return (self.fold,) if self.folds is None else tuple(range(self.folds))

    def with_absolute_paths(self) -> "SweepOptions":
        """Return the options with absolute paths, so that the sweep can be resumed from any working directory."""

        def absolute(path: str | None) -> str | None:
            return str(Path(path).expanduser().resolve()) if path and "://" not in path else path

        search = absolute(self.search) if self.search.endswith(".py") else self.search
        pretrained = self.pretrained if self.pretrained in ("auto", "require", "off") else absolute(self.pretrained)
        return replace(
            self,
            search=str(search),
            data=absolute(self.data),
            target_species=absolute(self.target_species),
            pretrained=str(pretrained),
            cache_dir=str(absolute(self.cache_dir)),
        )
