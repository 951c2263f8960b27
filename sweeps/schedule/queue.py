"""Which of the waiting trials may start: none that needs a stage that another trial is training; first the one that most others wait for.

Every operation costs the logarithm of the number of waiting trials, or the length of a chain. The queue is the only one that
writes the view of the store.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sweeps.schedule.store_view import StoreView


@dataclass(frozen=True, order=True)
class _Place:
    """A trial's place in the queue: trials that were open before come first, then the older ones."""

    is_new: bool
    age: int
    trial: str = field(compare=False)


class TrialQueue:
    """The order of the waiting trials, and the stages that running trials have claimed. Knows trials by their names alone."""

    def __init__(self, view: StoreView) -> None:
        self._view = view
        self._waiting: dict[str, tuple[_Place, Sequence[str]]] = {}
        """Place and stage ids by trial."""
        self._added = 0
        self._groups: dict[str, list[_Place]] = {}
        """Heaps of the trials that could start, by the first stage that they would train: one starts, the others of its group wait."""
        self._order: list[tuple[bool, int, int, str]] = []
        """Heap over the groups: urgent ones first, then large ones, then early ones. An entry whose group has changed is skipped."""
        self._blocked: defaultdict[str, list[str]] = defaultdict(list)
        """Trials that wait for a stage that a running trial of this sweep will train, by the stage."""
        self._elsewhere: defaultdict[str, list[str]] = defaultdict(list)
        """Trials that wait for a stage that another sweep is training, by the stage."""
        self._claims: dict[str, str] = {}
        """The running trial that will train a stage, by the stage."""
        self._claimed: dict[str, list[str]] = {}
        """The stages that a running trial will train, by the trial."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def num_startable(self) -> int:
        """How many waiting trials could start at the same time: of those that would train the same stage, one."""
        return len(self._groups)

    def add(self, trial: str, stage_ids: Sequence[str], *, urgent: bool = False) -> None:
        """Add a waiting trial. An urgent one, which was open before, goes before the new ones."""
        self._added += 1
        self._waiting[trial] = (_Place(not urgent, self._added, trial), stage_ids)
        self._file(trial)

    def pop(self) -> str | None:
        """Remove and return the trial that is to start next; None when every waiting trial has to wait."""
        self._look_elsewhere()
        while self._order:
            _, minus_size, _, first = heapq.heappop(self._order)
            group = self._groups.get(first, [])
            if len(group) != -minus_size:
                continue
            if self._view.is_leased(first):
                self._elsewhere[first] += [place.trial for place in self._groups.pop(first)]
                continue
            trial = heapq.heappop(group).trial
            if group:
                self._push(first)
            else:
                del self._groups[first]
            del self._waiting[trial]
            return trial
        return None

    def is_published(self, stage_id: str) -> bool:
        """Whether the stage is in the store."""
        return self._view.is_published(stage_id)

    def num_published(self, stage_ids: Sequence[str]) -> int:
        """The number of the last stage of a chain that is in the store; 0 when none is."""
        return next((number for number in range(len(stage_ids), 0, -1) if self._view.is_published(stage_ids[number - 1])), 0)

    def untrained(self, stage_ids: Sequence[str]) -> set[str]:
        """The stages of a chain that are not in the store and that no running trial has claimed and no other sweep is training."""
        missing = self._missing(stage_ids)
        return {stage_id for stage_id in missing if stage_id not in self._claims and not self._view.is_leased(stage_id)}

    def claim(self, trial: str, stage_ids: Sequence[str]) -> None:
        """The trial has started and will train the stages of its chain that are not in the store."""
        missing = self._missing(stage_ids)
        self._claimed[trial] = missing
        self._claims |= dict.fromkeys(missing, trial)
        for stage_id in missing:
            self._refile(place.trial for place in self._groups.pop(stage_id, ()))

    def stage_published(self, stage_id: str) -> None:
        """The stage is in the store: trials that wait for it are sorted in again."""
        self._view.mark_published(stage_id)
        self._free(stage_id)

    def stage_in_training(self, trial: str, stage_id: str) -> None:
        """A running trial trains the stage. It had not claimed it if the stored copy turned out to be damaged."""
        if stage_id not in self._claims:
            self._view.mark_missing(stage_id)
            self._claims[stage_id] = trial
            self._claimed[trial].append(stage_id)

    def stage_leased(self, stage_id: str) -> None:
        """Another sweep trains the stage."""
        self._view.mark_leased(stage_id)

    def stage_removed(self, stage_id: str) -> None:
        """The stage is no longer in the store."""
        self._view.mark_missing(stage_id)

    def release(self, trial: str) -> None:
        """The trial no longer runs: what it had claimed and not published is free again."""
        for stage_id in self._claimed.pop(trial, ()):
            if self._claims.get(stage_id) == trial:
                self._free(stage_id)

    def _free(self, stage_id: str) -> None:
        self._claims.pop(stage_id, None)
        self._refile(self._blocked.pop(stage_id, ()))

    def _missing(self, stage_ids: Sequence[str]) -> list[str]:
        """The stages after the last one of the chain that is in the store."""
        return list(stage_ids[self.num_published(stage_ids) :])

    def _refile(self, trials: Iterable[str]) -> None:
        for trial in trials:
            self._file(trial)

    def _file(self, trial: str) -> None:
        place, stage_ids = self._waiting[trial]
        missing = self._missing(stage_ids)
        claimed = next((stage_id for stage_id in reversed(missing) if stage_id in self._claims), None)
        if claimed is not None:
            self._blocked[claimed].append(trial)
            return
        first = missing[0] if missing else stage_ids[-1]
        heapq.heappush(self._groups.setdefault(first, []), place)
        self._push(first)

    def _push(self, first: str) -> None:
        group = self._groups[first]
        heapq.heappush(self._order, (group[0].is_new, -len(group), group[0].age, first))

    def _look_elsewhere(self) -> None:
        """Sort in the trials that waited for another sweep, where it has published the stage or given it up."""
        for stage_id in [stage_id for stage_id in self._elsewhere if not self._view.is_leased(stage_id)]:
            self._refile(self._elsewhere.pop(stage_id))
