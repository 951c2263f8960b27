"""The request that one run of a driver carries out: start a sweep, resume it or extend it. It also keeps the sweep's record."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from birdclef_core.code_version import code_version
from birdclef_core.errors import InputError
from birdclef_core.recipes import small_budget
from birdclef_core.store.leakage import Leak
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.budget import Budget, Limits
from sweeps.checkpoints.start_stage import find_start, start_after, with_model_of
from sweeps.options import SweepOptions
from sweeps.provenance import git_commit, versions
from sweeps.run.teachers import resolve_teachers
from sweeps.sampling.study import check_sampler
from sweeps.schedule.coordinator import Observer
from sweeps.schedule.pruning import chosen_pruning
from sweeps.schedule.records import VERSION, State, SweepPart, SweepRecord, SweepRecords, TrialRecord
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import SAVE_EVERY_S, Trial
from sweeps.schedule.update import TrialUpdate
from sweeps.search.checks import check_file, check_search, check_small_recipes
from sweeps.search.parameters import Parameter
from sweeps.search.search_files import load_search, override
from sweeps.search.space import Search

DEFAULT_SAMPLES = {"small": 6, "full": 32}
"""Number of trials where none is given, by budget."""
ENDED: tuple[State, ...] = ("finished", "failed")
"""States in which a sweep can be extended."""

RequestKind = Literal["start", "resume", "extend"]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """A request to start, resume or extend a sweep."""

    kind: RequestKind
    name: str
    options: SweepOptions
    records: SweepRecords
    record: SweepRecord | None = None
    """The sweep's record as it was read; None for a new sweep."""
    known: tuple[TrialRecord, ...] = ()
    """The trials that the sweep has already."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings given with an extension that draws from the sweep's own search."""
    reads_search: bool = True
    """Whether the search is the one that the options name; otherwise it is the one of the sweep's last part."""
    dropped: SweepPart | None = None
    """The extension that a resumed sweep draws no more trials of. If it has trials, it is still the last of the sweep's parts."""

    retried: tuple[TrialRecord, ...] = ()
    """The failed trials of a resumed sweep that are open again."""

    @property
    def parts(self) -> tuple[SweepPart, ...]:
        """The sweep's parts up to now."""
        return self.record.parts if self.record else ()

    @property
    def part(self) -> int:
        """Index of the part that is carried out: 0 for the sweep's start, then one for each extension."""
        return len(self.parts) - (self.kind == "resume")

    @property
    def first_trial(self) -> int:
        """Number of the first trial of the part."""
        return self.parts[-1].first_trial if self.kind == "resume" else len(self.known)

    @property
    def plan_file(self) -> str:
        """Name of the file with the part's plan."""
        return "plan.json" if self.part == 0 else f"plan-{self.part}.json"

    @property
    def limits(self) -> Limits:
        """The most that the sweep may spend."""
        return Limits.of(self.options)

    @property
    def ran_s(self) -> float:
        """Seconds in which drivers of the sweep ran before."""
        return self.record.ran_s if self.record else 0.0

    def samples(self, budget: str) -> int | None:
        """Return the number of trials that the sweep is to have in all; None where its limits alone end it."""
        return self.options.samples or (None if self.limits.any_set else DEFAULT_SAMPLES[budget])

    def check_search(self) -> Search:
        """Return the search if it is right. Raises InputError for a wrong search or setting, before anything is written."""
        try:
            search = self.search(self.budget(has_gpus=True))
        except InputError:
            if self.budget(has_gpus=True) == self.budget(has_gpus=False):
                raise
            search = self.search(self.budget(has_gpus=False))
        chosen_pruning(self.options.pruning, search)
        return search

    def budget(self, *, has_gpus: bool) -> str:
        """Return the user's budget; without one, full for a search file of the user's own, and where there are GPUs and data."""
        is_own = self.options.search.endswith(".py")
        return self.options.budget or ("full" if is_own or (has_gpus and self.options.data) else "small")

    def search(self, budget: str) -> Search:
        """Return the search that trials are drawn from. Raises InputError for a wrong search or setting."""
        start = self.start
        if not self.reads_search:
            search = self._with_objective(override(self.parts[-1].search, self.settings))
            search = with_model_of(search, start) if start else search
        else:
            search = self._with_objective(load_search(self.options.search))
            check_file(search)
            if budget == "small":
                full = search
                search = replace(search.with_small_space(), recipes=tuple(small_budget(recipe) for recipe in search.recipes))
                check_small_recipes(full, search)
            search = override(search, self.options.settings)
            search = start_after(search, start) if start else search
            search = replace(search, sampler=self.options.sampler or search.sampler)
            check_sampler(search)
        search = resolve_teachers(search, self.options.storage)
        if self.reads_search or self.settings:
            check_search(search)
        elif (samples := self.samples(budget)) is None or samples > len(self.known):
            self._check_kept(search)
        return search

    def _check_kept(self, search: Search) -> None:
        """Raise InputError, with the way out, for a search of the sweep's record that no more trials can be drawn from."""
        try:
            check_search(search)
        except InputError as error:
            if self.kind == "extend":
                way_out = "Give the extension another search: --search"
            elif len(self.parts) > 1:
                way_out = f"Drop the extension that brought it: --resume {self.name} --drop-extension"
            else:
                way_out = "Start a new sweep: it reuses every stage that is trained"
            raise InputError(
                f"{self.name} cannot draw from its own search, which an older version of the code let in. {error} {way_out}."
            ) from None

    def _with_objective(self, search: Search) -> Search:
        """Return the search with the objective that the options or an earlier part say, or else its own.

        Raises InputError for another objective than the trials of a sweep were compared by.
        """
        asked = self.options.objective or search.objective
        if self.parts:
            own = self.parts[-1].search.objective
            if asked not in (None, own):
                raise InputError(
                    f"All trials of a sweep are compared by the same objective, and {self.name} has {own}, but got {asked}. Start a new "
                    "sweep for another objective: it reuses every stage that is trained."
                )
            asked = own
        return replace(search, objective=asked)

    @cached_property
    def start(self) -> StageRecord | None:
        """The start stage; None when trials start from the encoders' first weights. Raises InputError as `find_start` does."""
        return find_start(Storage.parse(self.options.storage), self.options.from_stage) if self.options.from_stage else None

    def encoders(self) -> dict[str, str]:
        """Return the names of the first weights that the sweep has used, by encoder."""
        return {encoder: weights for part in self.parts for encoder, weights in part.pretrained.items()}

    def space(self, search: Search) -> dict[str, Parameter]:
        """Return all parameters in which trials of any part differ."""
        spaces = [*(part.search.space for part in self.parts), search.space]
        return {key: parameter for space in spaces for key, parameter in space.items()}

    def check_data(self, fingerprint: str) -> None:
        """Raise InputError when a sweep would go on with other recordings than it began with."""
        before = self.record.data_fingerprint if self.record else fingerprint
        if fingerprint != before:
            raise InputError(
                f"The recordings of a sweep must stay as they were, because scores on others cannot be compared, but {self.name} began "
                f"with data {before[:12]} and {self.options.data or 'the demo set'} is {fingerprint[:12]} now (recordings, labels, target "
                "species, noise or --max-seconds-per-recording differ). Put them back, or start a new sweep with --search and --data."
            )

    def begin(
        self,
        search: Search,
        *,
        budget: str,
        data_fingerprint: str,
        pretrained: Mapping[str, str],
        leak: Leak | None = None,
    ) -> SweepRecord:
        """Write in the sweep's record that the request is being carried out, and return the record."""
        samples, start, now = self.samples(budget), self.start, _now()
        # The complete id of the start stage: a reference, such as a sweep's best trial, may mean another stage later.
        from_stage = start.stage_id if start else None
        options = replace(self.options, budget=budget, samples=samples, name=self.name, from_stage=from_stage)
        parts = self.parts
        if self.dropped is not None and self.dropped not in parts:
            # Another extension may take its number.
            self.records.storage.delete(f"plan-{len(parts)}.json")
        if self.kind != "resume":
            part = SweepPart(
                started_at=now,
                first_trial=len(self.known),
                samples=None if samples is None else samples - len(self.known),
                options=options,
                search=search,
                pretrained=dict(pretrained),
                code_version=code_version(),
                versions=versions(),
                git_commit=git_commit(),
            )
            parts = (*parts, part)
        parts = (*parts[:-1], replace(parts[-1], leak=leak))
        record = SweepRecord(
            version=VERSION,
            name=self.name,
            search=self.record.search if self.record else search.name,
            data_fingerprint=data_fingerprint,
            started_at=self.record.started_at if self.record else now,
            options=options,
            code_version=parts[-1].code_version,
            trials=len(self.known),
            parts=parts,
            state="running",
            state_since=now,
            ran_s=self.ran_s,
        )
        if self.retried:
            self.records.save_trials(self.retried)
        self.records.save_sweep(record)
        return record

    def end(self, record: SweepRecord, state: State, *, trials: int, ran_s: float) -> SweepRecord:
        """Write in the sweep's record how this run of its driver ended, and what there is now: trials, seconds of all drivers."""
        ended = replace(record, state=state, state_since=_now(), trials=trials, ran_s=ran_s)
        self.records.save_sweep(ended)
        return ended


class RunningTime(Observer):
    """Keeps in the sweep's record for how long its drivers ran: a limit of hours holds for all of them, also for killed ones."""

    def __init__(self, records: RecordWriter, record: SweepRecord, budget: Budget) -> None:
        self._records, self._record, self._budget = records, record, budget
        self._saved_s = record.ran_s

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        if self._budget.ran_s - self._saved_s > SAVE_EVERY_S:
            self._saved_s = self._budget.ran_s
            self._records.save_sweep(replace(self._record, ran_s=self._saved_s))


def new_request(options: SweepOptions) -> SweepRequest:
    """Return the request to start a new sweep. Raises InputError when there is a sweep of that name."""
    request = plan_request(options)
    name = options.name or f"{Path(options.search).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    records = SweepRecords(Storage.parse(options.storage).at(name))
    if records.exists():
        raise InputError(
            f"The sweep's name must be new, but {name!r} is in {options.storage}; go on with it by --resume {name}, or extend it by "
            f"--extend {name}."
        )
    return replace(request, name=name, records=records)


def plan_request(options: SweepOptions) -> SweepRequest:
    """Return the request for a new sweep that is only planned: there may be a sweep of that name."""
    name = options.name or Path(options.search).stem
    records = SweepRecords(Storage.parse(options.storage).at(name))
    return SweepRequest(kind="start", name=name, options=options.with_absolute_paths(), records=records)


def resume_request(
    name: str, storage: str, given: Mapping[str, Any], *, drop_extension: bool = False, retry_failed: bool = False
) -> SweepRequest:
    """Return the request to go on with a sweep where it stopped. `given` holds options of PLACEMENT that replace the sweep's.

    With `drop_extension`, no more trials of its last extension are drawn: those that it has are finished, and one without trials
    is taken out of the record. With `retry_failed`, its failed trials are open again. Raises InputError when there is no such sweep, one
    of its records cannot be read, the extension to drop does not exist, or no trial to retry has failed.
    """
    records, record, known = _load(name, storage)
    retried = tuple(trial for trial in known if retry_failed and trial.status == "failed")
    if retry_failed and not retried:
        raise InputError(f"--retry-failed tries failed trials again, but {name} has none. Leave it out.")
    for trial in retried:
        trial.open_again()
    dropped = record.parts[-1] if drop_extension else None
    if dropped is not None:
        record = _without_extension(record, len(known))
    options = replace(record.options, **{**given, "storage": storage}).with_absolute_paths()
    return SweepRequest(
        kind="resume",
        name=name,
        options=options,
        records=records,
        record=record,
        known=known,
        reads_search=False,
        dropped=dropped,
        retried=retried,
    )


def _without_extension(record: SweepRecord, num_trials: int) -> SweepRecord:
    """The record of a sweep that draws no more trials of its last extension. `num_trials`: number of trials that it has."""
    *before, last = record.parts
    if not before:
        raise InputError(
            f"--drop-extension takes back an extension, but {record.name} has none: it would have nothing to draw from. Start a new sweep "
            "instead: it reuses every stage that is trained."
        )
    if num_trials > last.first_trial:
        last = replace(last, samples=num_trials - last.first_trial)
        return replace(record, parts=(*before, last), options=replace(record.options, samples=num_trials))
    return replace(record, parts=tuple(before), options=replace(before[-1].options, samples=num_trials))


def extend_request(name: str, storage: str, given: Mapping[str, Any]) -> SweepRequest:
    """Return the request for more trials of a sweep that has ended. `given` holds options by name that replace the sweep's.

    `given["samples"]` is the number of further trials, and `given["settings"]` adds to the sweep's settings. Limits are of the whole
    sweep. Raises InputError when the sweep has not ended, when neither the number nor a limit is given, and as `resume_request` does.
    """
    records, record, known = _load(name, storage)
    before = record.options
    if record.state not in ENDED:
        was = "is running, or was killed" if record.state == "running" else f"was {record.state}"
        num_open, begun = sum(not trial.ended for trial in known), len(known)
        drop = (
            " (with --drop-extension, without those of its last extension that have not begun)" if len(record.parts) > 1 else ""
        )
        raise InputError(
            f"A sweep must have ended before it is extended, but {name} {was}: {num_open} of its {begun} trials have not ended, and "
            f"{(before.samples or begun) - begun} have not begun. Finish it first: --resume {name}{drop}"
        )
    more = given.get("samples")
    if (more is None and not {"max_gpu_hours", "max_hours", "max_cost"} & given.keys()) or (more is not None and more < 1):
        got = "" if more is None else f", but got {more}"
        raise InputError(
            f"--extend {name} takes --samples N, the number of further trials, 1 or more, or a new limit for the whole sweep, such as "
            f"--max-gpu-hours{got}."
        )
    if (fold := given.get("fold")) is not None and fold != before.fold:
        raise InputError(
            f"All trials of a sweep are scored on the same fold, and {name} has fold {before.fold}, but got --fold {fold}. Start a new sweep "
            "for another fold: stages that do not depend on it are reused."
        )
    for flag in ("folds", "repeats"):
        if (number := given.get(flag)) is not None and number != getattr(before, flag):
            raise InputError(
                f"All trials of a sweep are trained in the same replicates, and {name} has {getattr(before, flag) or 'no'} {flag}, but got --{flag} "
                f"{number}. Start a new sweep for others: it reuses every stage that is trained."
            )
    settings = {**before.settings, **given.get("settings", {})}
    changes = {**given, "settings": settings, "samples": None if more is None else len(known) + more, "storage": storage}
    options = replace(before, **changes).with_absolute_paths()
    reads_search = bool({"search", "budget", "from_stage"} & given.keys())
    return SweepRequest(
        kind="extend",
        name=name,
        options=options,
        records=records,
        record=record,
        known=known,
        settings={} if reads_search else given.get("settings", {}),
        reads_search=reads_search,
    )


def _load(name: str, storage: str) -> tuple[SweepRecords, SweepRecord, tuple[TrialRecord, ...]]:
    records = SweepRecords(Storage.parse(storage).at(name))
    record = records.load_sweep()
    known = tuple(records.load_trials())
    if len(known) < record.trials:
        raise InputError(
            f"A sweep can go on only if all its records are there, but {name} had {record.trials} trials and "
            f"{records.storage.path('trials')} has {len(known)}. Nothing was changed. Put the files back from a copy, or start a new sweep "
            "on this storage: it reuses every stage that is trained."
        )
    records.check_points(record, known)
    return records, record, known


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
