"""What a driver is asked for (a new sweep, one that goes on, one that is extended), and the sweep's record of it.

`sweep.json` holds the options as they are now, the state, and under `parts` what was asked for when: the start first, then each
extension, each with the search it drew from. A sweep goes on with the last of them.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from birdclef_core.code_version import code_version
from birdclef_core.errors import InputError
from birdclef_core.recipes import small_budget
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.start_stage import find_start, start_after, with_model_of
from sweeps.options import SweepOptions
from sweeps.provenance import git_commit, versions
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.search.as_json import search_as_json, search_from_json
from sweeps.search.space import Search, load_search, override

DEFAULT_SAMPLES = {"small": 6, "full": 32}
ENDED = ("finished", "failed")

RequestKind = Literal["start", "resume", "extend"]
State = Literal["running", "interrupted", "finished", "failed"]


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What one run of a driver is to do."""

    kind: RequestKind
    name: str
    options: SweepOptions
    records: SweepRecords
    record: Mapping[str, Any] = field(default_factory=dict)
    """The sweep's; empty for a new one."""
    known: tuple[TrialRecord, ...] = ()
    """Trials that there are."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Given with an extension that goes on with the sweep's own search."""
    reads_search: bool = True
    """Whether the search is read from where the options say, not from the record."""

    @property
    def part(self) -> int:
        """Which of the sweep's parts this is about: 0 its start, then its extensions."""
        return len(self.record.get("parts", ())) - (self.kind == "resume")

    @property
    def first_trial(self) -> int:
        """Number of the first trial of the part."""
        return self.record["parts"][-1]["first_trial"] if self.kind == "resume" else len(self.known)

    @property
    def plan_file(self) -> str:
        return "plan.json" if self.part == 0 else f"plan-{self.part}.json"

    def samples(self, budget: str) -> int:
        """How many trials the sweep is to have in all."""
        return self.options.samples or DEFAULT_SAMPLES[budget]

    def check_search(self) -> None:
        """Raises InputError for a wrong search or setting, before anything is made."""
        budget = self.options.budget or ("full" if self.options.data else "small")
        try:
            self.search(budget)
        except InputError:
            if self.options.budget or budget == "small":
                raise
            self.search("small")  # which it will be where there are no GPUs

    def search(self, budget: str) -> Search:
        """The search that trials are drawn from."""
        start = self.start
        if not self.reads_search:
            search = override(search_from_json(self.record["parts"][-1]["search"]), self.settings)
            return with_model_of(search, start) if start else search
        search = load_search(self.options.search)
        if budget == "small":
            search = replace(search.with_small_space(), recipes=tuple(small_budget(recipe) for recipe in search.recipes))
        search = override(search, self.options.settings)
        return start_after(search, start) if start else search

    @cached_property
    def start(self) -> StageRecord | None:
        """The stage that trials start from; None when they start from encoders' weights. Raises InputError as `find_start` does."""
        return find_start(Storage.parse(self.options.storage), self.options.from_stage) if self.options.from_stage else None

    def encoders(self) -> dict[str, str]:
        """The weights that the sweep's encoders started from, by encoder."""
        return {encoder: weights for part in self.record.get("parts", ()) for encoder, weights in part["pretrained"].items()}

    def space(self, search: Search) -> list[str]:
        """Every parameter that the sweep's trials differ in, whichever part they are of."""
        before = [key for part in self.record.get("parts", ()) for key in part["search"]["space"]]
        return list(dict.fromkeys([*before, *search.space]))

    def check_data(self, fingerprint: str) -> None:
        """Raises InputError when a sweep would go on with other recordings than it began with."""
        before = self.record.get("data_fingerprint", fingerprint)
        if fingerprint != before:
            raise InputError(
                f"The recordings of a sweep must stay as they were, because scores on others cannot be compared, but {self.name} began "
                f"with data {before[:12]} and {self.options.data or 'the demo set'} is {fingerprint[:12]} now (recordings, labels, target "
                "species, noise or --max-seconds-per-recording differ). Put them back, or start a new sweep with --search and --data."
            )

    def begin(self, search: Search, *, budget: str, data_fingerprint: str, pretrained: Mapping[str, str]) -> dict[str, Any]:
        """Writes down that the order is being carried out; gives the sweep's record."""
        samples, start = self.samples(budget), self.start
        # The stage's whole id: a reference, such as a sweep's best trial, may mean another stage later.
        from_stage = start.stage_id if start else None
        options = asdict(replace(self.options, budget=budget, samples=samples, name=self.name, from_stage=from_stage))
        part = {
            "started_at": _now(),
            "first_trial": len(self.known),
            "samples": samples - len(self.known),
            "options": options,
            "search": search_as_json(search),
            "pretrained": dict(pretrained),
            "code_version": code_version(),
            "versions": versions(),
            "git_commit": git_commit(),
        }
        parts = [*self.record.get("parts", ()), *(() if self.kind == "resume" else (part,))]
        origin = {"name": self.name, "search": search.name, "data_fingerprint": data_fingerprint, "started_at": _now()}
        now = {"options": options, "code_version": parts[-1]["code_version"], "trials": len(self.known), "parts": parts}
        record = {**origin, **self.record, **now}
        self.set_state(record, "running")
        return record

    def set_state(self, record: dict[str, Any], state: State, trials: int | None = None) -> None:
        """Keeps the sweep's state, and with it how many trials there are at least."""
        record |= {"state": state, "state_since": _now(), "trials": record["trials"] if trials is None else trials}
        self.records.save_sweep(record)


def new_request(options: SweepOptions) -> SweepRequest:
    """A new sweep. Raises InputError when its name is taken."""
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
    """A new sweep that is planned alone: its name may be taken."""
    name = options.name or Path(options.search).stem
    records = SweepRecords(Storage.parse(options.storage).at(name))
    return SweepRequest(kind="start", name=name, options=options.with_absolute_paths(), records=records)


def resume_request(name: str, storage: str, given: Mapping[str, Any]) -> SweepRequest:
    """Goes on with a sweep where it stopped; `given` (of PLACEMENT) replaces what it had. Raises InputError when its records cannot
    be trusted."""
    records, record, known = _load(name, storage)
    options = replace(SweepOptions.from_record(record), **{**given, "storage": storage}).with_absolute_paths()
    return SweepRequest(
        kind="resume", name=name, options=options, records=records, record=record, known=known, reads_search=False
    )


def extend_request(name: str, storage: str, given: Mapping[str, Any]) -> SweepRequest:
    """More trials for a sweep that has ended: `given` (options by their names, `settings` among them) replaces what it had.

    Raises InputError when the sweep has not ended, or for options that a sweep cannot change.
    """
    records, record, known = _load(name, storage)
    before = SweepOptions.from_record(record)
    if record["state"] not in ENDED:
        was = "runs, or was killed" if record["state"] == "running" else f"was {record['state']}"
        under_way, drawn = sum(not trial.ended for trial in known), len(known)
        raise InputError(
            f"A sweep must have ended before it is extended, but {name} {was}: {under_way} of its {drawn} trials are under "
            f"way and {(before.samples or drawn) - drawn} are to come. End it first: --resume {name}"
        )
    more = given.get("samples")
    if more is None or more < 1:
        raise InputError(f"--extend {name} takes --samples N, how many trials more{'' if more is None else f', but got {more}'}.")
    settings = {**before.settings, **given.get("settings", {})}
    changes = {**given, "settings": settings, "samples": len(known) + more, "storage": storage}
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


def _load(name: str, storage: str) -> tuple[SweepRecords, dict[str, Any], tuple[TrialRecord, ...]]:
    records = SweepRecords(Storage.parse(storage).at(name))
    record = records.load_sweep()
    known = tuple(records.load_trials())
    if len(known) < record["trials"]:
        raise InputError(
            f"A sweep's records must be whole to go on with it, but {name} had {record['trials']} trials and {records.storage.path('trials')} "
            f"has {len(known)}. Nothing was changed. Put the files back from a copy, or start a new sweep on this storage: what is "
            "trained is reused."
        )
    return records, record, known


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
