"""Finds what a store holds and nothing will read again: attempts that were cut off or set aside, unneeded epoch checkpoints."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from birdclef_core.store.stage_store import PUBLISHED, StageStore
from birdclef_core.store.storage import StoredFile

ATTEMPT_DAYS = 1.0
"""An attempt that is younger may still be being written."""
UNFINISHED_DAYS = 14.0
"""Epoch checkpoints that no trial needs are kept so long: a later sweep may want the stage."""
_DAY_S = 86_400.0


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A folder or file of the store that can be removed."""

    kind: Literal["attempt", "epochs"]
    """`attempt`: an attempt at a stage that is not the valid one; `epochs`: the epoch checkpoints of a stage."""
    place: str
    """Path from the store's root."""
    num_bytes: int


def find_leftovers(store: StageStore, keep: Collection[str], now_s: float) -> list[Leftover]:
    """Return all leftovers of a store, for which every file of it is listed.

    `keep`: ids of the stages that are being trained or that a trial still needs. `now_s`: Unix time.
    """
    published: set[str] = set()
    attempts: defaultdict[tuple[str, str], list[StoredFile]] = defaultdict(list)
    for file in store.storage.at("stages").files():
        stage_id, _, rest = file.name.partition("/")
        name = rest.partition("/")[0]
        if name == PUBLISHED:
            published.add(stage_id)
        elif name:  # a file between the folders of stages is none of ours
            attempts[stage_id, name].append(file)
    found = _attempts(store, attempts, published, now_s)
    epochs: defaultdict[str, list[StoredFile]] = defaultdict(list)
    for file in store.storage.at("unfinished").files():
        epochs[file.name.partition("/")[0]].append(file)
    for stage_id, files in epochs.items():
        if stage_id in published or (stage_id not in keep and _days(files, now_s) > UNFINISHED_DAYS):
            found.append(Leftover(kind="epochs", place=f"unfinished/{stage_id}", num_bytes=_bytes(files)))
    return found


def _attempts(
    store: StageStore, attempts: dict[tuple[str, str], list[StoredFile]], published: Collection[str], now_s: float
) -> list[Leftover]:
    """Return the old attempts that are not valid. The only attempt of a published stage is: its pointer need not be read."""
    number = Counter(stage_id for stage_id, _ in attempts)
    counts = {stage_id: store.published_attempt(stage_id) for stage_id in published if number[stage_id] > 1}
    return [
        Leftover(kind="attempt", place=f"stages/{stage_id}/{name}", num_bytes=_bytes(files))
        for (stage_id, name), files in attempts.items()
        if _days(files, now_s) > ATTEMPT_DAYS
        and (stage_id not in published or (number[stage_id] > 1 and name != counts[stage_id]))
    ]


def _bytes(files: Iterable[StoredFile]) -> int:
    return sum(file.num_bytes for file in files)


def _days(files: Iterable[StoredFile], now_s: float) -> float:
    """Return the days since the newest of the files was written."""
    return (now_s - max(file.written_at_s for file in files)) / _DAY_S
