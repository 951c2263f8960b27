"""Which stages of a store to remove when it has become too large: those that are least worth keeping for their size.

What a stage is worth is how often it is expected to be used again, times what it would cost to train it again, by its bytes.
Nothing is removed that something kept was trained from: a lineage that is kept stays whole.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.summary import IMPORTED, StageSummary

HALF_LIFE_DAYS = 30.0
UNSEEN_USES = 0.1
"""What a stage that nobody has used yet is taken to be used for: a small part of a use."""

MUST_STAY = "trials that are best or have not ended need it, or it was imported"
DELETING_THREADS = 8


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A published stage that is to go, and why it and not another."""

    summary: StageSummary
    worth: float
    """Device seconds that keeping it is expected to save, by mebibyte."""
    uses: int


@dataclass(frozen=True, kw_only=True)
class GarbagePlan:
    """What collecting garbage would do."""

    abandoned: Mapping[str, int]
    """Bytes of epoch checkpoints that are to go, by the stage that could have gone on from them."""
    removals: tuple[Removal, ...]
    """In the order in which they are to go: no stage before those that were trained from it."""
    bytes_before: int
    bytes_after: int
    budget_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the budget is kept afterwards; otherwise all that is left must stay."""
        return self.bytes_after <= self.budget_bytes


def ancestry(stage_ids: Iterable[str], summaries: Mapping[str, StageSummary]) -> set[str]:
    """The stages and all that they were trained from, as far as the store has them."""
    found: set[str] = set()
    for stage_id in stage_ids:
        next_id: str | None = stage_id
        while next_id is not None and next_id in summaries and next_id not in found:
            found.add(next_id)
            next_id = summaries[next_id].parent_id
    return found


def plan_garbage(
    summaries: Mapping[str, StageSummary],
    uses: Mapping[str, int],
    keep: Iterable[str],
    *,
    budget_bytes: int,
    unfinished: Mapping[str, int] | None = None,
    other_bytes: int = 0,
    now: datetime | None = None,
) -> GarbagePlan:
    """What to remove so that the store fits its budget.

    `uses`: how many trials have had a stage in their chain. `keep`: stages that must stay, as do all that they were trained from;
    imported ones stay too, because nothing could make them again. `unfinished`: bytes of epoch checkpoints by stage; they go first,
    those of stages to keep apart. `other_bytes`: in the store beside all that. Costs n log n.
    """
    now, unfinished, kept = now or datetime.now(UTC), unfinished or {}, set(keep)
    protected = ancestry([*kept, *(stage_id for stage_id, item in summaries.items() if item.code == IMPORTED)], summaries)
    total = before = sum(item.num_bytes for item in summaries.values()) + sum(unfinished.values()) + other_bytes
    abandoned: dict[str, int] = {}
    for stage_id in sorted(unfinished.keys() - kept, key=lambda stage_id: -unfinished[stage_id]):
        if total > budget_bytes:
            abandoned[stage_id] = unfinished[stage_id]
            total -= unfinished[stage_id]
    children = Counter(item.parent_id for item in summaries.values() if item.parent_id is not None)
    heap: list[tuple[float, str, str]] = []

    def offer(stage_id: str) -> None:
        if stage_id not in protected and not children[stage_id]:
            item = summaries[stage_id]
            heapq.heappush(heap, (worth(item, uses.get(stage_id, 0), now), item.finished_at, stage_id))

    for stage_id in summaries:
        offer(stage_id)
    removals: list[Removal] = []
    while total > budget_bytes and heap:
        value, _, stage_id = heapq.heappop(heap)
        item = summaries[stage_id]
        total -= item.num_bytes
        removals.append(Removal(summary=item, worth=value, uses=uses.get(stage_id, 0)))
        if item.parent_id is not None and item.parent_id in summaries:
            children[item.parent_id] -= 1
            offer(item.parent_id)
    return GarbagePlan(
        abandoned=abandoned, removals=tuple(removals), bytes_before=before, bytes_after=total, budget_bytes=budget_bytes
    )


def collect(store: StageStore, plan: GarbagePlan) -> None:
    """Carries a plan out. Whenever it is cut off, no stage that is left lacks one that it was trained from."""
    for removal in plan.removals:
        store.unpublish(removal.summary.stage_id)
    with ThreadPoolExecutor(DELETING_THREADS) as pool:
        list(pool.map(store.remove, [removal.summary.stage_id for removal in plan.removals]))
        list(pool.map(store.drop_progress, plan.abandoned))


def worth(item: StageSummary, uses: int, now: datetime) -> float:
    """Device seconds that keeping a stage is expected to save, by mebibyte: reuse so far, halved with each 30 days of age."""
    age_days = max(0.0, (now - _time(item.finished_at, now)).total_seconds() / 86_400)
    expected_uses = (max(0, uses - 1) + UNSEEN_USES) * 0.5 ** (age_days / HALF_LIFE_DAYS)
    return expected_uses * item.cost_s / max(item.num_bytes / 2**20, 1e-6)


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return time if time.tzinfo else time.replace(tzinfo=UTC)
