"""What the driver knows of the stage store without reading it for each trial: one listing at the start, leases every few seconds."""

import time
from dataclasses import replace
from typing import Protocol

from birdclef_core.store.leases import Leases
from birdclef_core.store.stage_store import StageStore

REFRESH_S = 3.0


class StoreView(Protocol):
    """What the driver knows of the stage store. Used by the driver's main thread alone; only the queue of trials calls `mark_...`.

    A view may be a few seconds old. Nothing breaks by that: a worker reads the store itself before it trains a stage.
    """

    def is_published(self, stage_id: str) -> bool:
        """Whether the stage is in the store."""

    def is_leased(self, stage_id: str) -> bool:
        """Whether another sweep is training the stage."""

    def mark_published(self, stage_id: str) -> None:
        """From now on the stage is published."""

    def mark_missing(self, stage_id: str) -> None:
        """From now on the stage is not published: it was damaged, or removed."""

    def mark_leased(self, stage_id: str) -> None:
        """From now on another sweep is training the stage, until the leases are read again."""


class DriverStoreView:
    """The view of a real sweep's driver."""

    def __init__(self, store: StageStore, leases: Leases, *, sweep: str) -> None:
        self._store, self._leases, self._sweep = store, replace(leases, storage=leases.storage.impatient()), sweep
        self._patient = leases.storage
        self._published: set[str] = set()
        self._doubtful = set(store.known_ids())
        """Stages of which it is not known yet whether they are published, damaged or unfinished."""
        self._leased: set[str] = set()
        self._refreshed = -REFRESH_S
        self._clock_offset_s: float | None = None

    def is_published(self, stage_id: str) -> bool:
        if stage_id in self._doubtful:
            self._doubtful.remove(stage_id)
            if self._store.is_published(stage_id):
                self._published.add(stage_id)
        return stage_id in self._published

    def is_leased(self, stage_id: str) -> bool:
        if time.monotonic() - self._refreshed > REFRESH_S:
            self._refresh()
        return stage_id in self._leased

    def mark_published(self, stage_id: str) -> None:
        self._published.add(stage_id)

    def mark_missing(self, stage_id: str) -> None:
        self._published.discard(stage_id)
        self._doubtful.discard(stage_id)

    def mark_leased(self, stage_id: str) -> None:
        self._leased.add(stage_id)
        self._refreshed = time.monotonic()

    def _refresh(self) -> None:
        """Read the leases anew. While the storage is away, what was known stays: the driver does not wait for it."""
        self._patient.attempt(self._read_leases)
        self._refreshed = time.monotonic()

    def _read_leases(self) -> None:
        others = [entry for entry in self._leases.entries() if entry.holder.sweep != self._sweep]
        if others and self._clock_offset_s is None:
            self._clock_offset_s = self._leases.clock_offset_s()
        now_s = time.time() + (self._clock_offset_s or 0.0)
        leased = {entry.stage_id for entry in others if not self._leases.is_dead(entry, now_s)}
        self._doubtful |= self._leased - leased  # what other sweeps were training may be published now
        self._leased = leased
