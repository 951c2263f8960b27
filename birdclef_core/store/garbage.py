"""Chooses which stages to remove from a store that has become too large: those least worth keeping for their size.

The worth of a stage is the number of uses expected of it, times the cost of training it again, divided by its bytes. A stage stays
as long as one that was trained from it does, so the lineage of every stage that stays is complete.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.summary import IMPORTED, StageSummary, files_of, original_of, total_bytes

HALF_LIFE_DAYS = 30.0
"""The uses expected of a stage halve each time it has become this much older."""
UNSEEN_USES = 0.1
"""Uses expected of a stage that no second trial has used yet, when it is new."""

MUST_STAY = "best or unfinished trials need it, it was imported, or it was trained on all recordings"
DELETING_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A published stage that is chosen for removal, and the reason why."""

    summary: StageSummary
    worth: float
    """Device seconds that keeping it is expected to save, per mebibyte."""
    uses: int
    """Number of trials that have had the stage in their chain."""


@dataclass(frozen=True, kw_only=True)
class GarbageList:
    """What to remove from a store so that it fits its budget."""

    abandoned: Mapping[str, int]
    """Bytes of the epoch checkpoints to remove, by the id of the stage that could have gone on from them."""
    removals: tuple[Removal, ...]
    """The stages to remove, in this order: none before the stages that were trained from it."""
    bytes_before: int
    """Size of the store now."""
    bytes_after: int
    """Size of the store afterwards."""
    budget_bytes: int
    """Size that the store may have."""

    @property
    def fits(self) -> bool:
        """Whether the store fits its budget afterwards. Where it does not, all that is left must stay."""
        return self.bytes_after <= self.budget_bytes


def ancestry(stage_ids: Iterable[str], summaries: Mapping[str, StageSummary]) -> set[str]:
    """Return the ids of the stages and of all that they were trained from, as far as the store has them."""
    found: set[str] = set()
    pending = list(stage_ids)
    while pending:
        stage_id = pending.pop()
        if stage_id in summaries and stage_id not in found:
            found.add(stage_id)
            pending += summaries[stage_id].needs
    return found


def choose_garbage(
    summaries: Mapping[str, StageSummary],
    uses: Mapping[str, int],
    keep: Iterable[str],
    *,
    budget_bytes: int,
    unfinished: Mapping[str, int] | None = None,
    other_bytes: int = 0,
    now: datetime | None = None,
) -> GarbageList:
    """Return what to remove so that the store fits its budget, in O(n log n) for n stages.

    `uses`: number of trials that have had each stage in their chain. `keep`: ids of stages that must stay, as must all that they were
    trained from, all imported stages, which cannot be trained again, and those that were trained on all recordings to be used. `unfinished`: bytes of epoch checkpoints by stage id; they
    are removed first, but not those of stages in `keep`. `other_bytes`: size of everything else in the store.
    """
    now, unfinished, kept = now or datetime.now(UTC), unfinished or {}, set(keep)
    own = (stage_id for stage_id, item in summaries.items() if item.code == IMPORTED or item.is_refit)
    protected = ancestry([*kept, *own], summaries)
    # An adopted stage and the one it was adopted from are one training: each is worth what both are used for. Where they share
    # files, they go together or not at all, as removing one of them frees nothing.
    uses_of = Counter[str]()
    sharers: defaultdict[str, list[str]] = defaultdict(list)
    for stage_id in summaries:
        uses_of[original_of(stage_id, summaries)] += uses.get(stage_id, 0)
        sharers[files_of(stage_id, summaries)].append(stage_id)
    total = before = total_bytes(summaries) + sum(unfinished.values()) + other_bytes
    abandoned: dict[str, int] = {}
    for stage_id in sorted(unfinished.keys() - kept, key=lambda stage_id: -unfinished[stage_id]):
        if total > budget_bytes:
            abandoned[stage_id] = unfinished[stage_id]
            total -= unfinished[stage_id]
    children = Counter(stage_id for item in summaries.values() for stage_id in item.needs)
    heap: list[tuple[float, str, str]] = []

    def offer(files: str) -> None:
        if not any(stage_id in protected or children[stage_id] for stage_id in sharers[files]):
            item = summaries[sharers[files][0]]
            expected_uses = uses_of[original_of(item.stage_id, summaries)]
            heapq.heappush(heap, (worth(item, expected_uses, now), item.finished_at, files))

    for files in sharers:
        offer(files)
    removals: list[Removal] = []
    while total > budget_bytes and heap:
        value, _, files = heapq.heappop(heap)
        total -= summaries[sharers[files][0]].num_bytes
        for stage_id in sharers[files]:
            item = summaries[stage_id]
            removals.append(Removal(summary=item, worth=value, uses=uses_of[original_of(stage_id, summaries)]))
            for needed in item.needs:
                if needed in summaries:
                    children[needed] -= 1
                    offer(files_of(needed, summaries))
    return GarbageList(
        abandoned=abandoned, removals=tuple(removals), bytes_before=before, bytes_after=total, budget_bytes=budget_bytes
    )


def collect(store: StageStore, garbage: GarbageList) -> None:
    """Remove what is listed. Whenever this is cut off, every stage that is left has all that it was trained from."""
    for removal in garbage.removals:
        store.unpublish(removal.summary.stage_id)
    with ThreadPoolExecutor(DELETING_THREADS) as pool:
        list(pool.map(store.remove, [removal.summary.stage_id for removal in garbage.removals]))
        list(pool.map(store.drop_epoch_checkpoints, garbage.abandoned))


def worth(item: StageSummary, uses: int, now: datetime) -> float:
    """Return the device seconds that keeping a stage is expected to save, per mebibyte: past reuse, halved every 30 days of age."""
    age_days = max(0.0, (now - _time(item.finished_at, now)).total_seconds() / 86_400)
    expected_uses = (max(0, uses - 1) + UNSEEN_USES) * 0.5 ** (age_days / HALF_LIFE_DAYS)
    return expected_uses * item.cost_s / max(item.num_bytes / 2**20, 1e-6)


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return time if time.tzinfo else time.replace(tzinfo=UTC)
