"""The stage store: what a stage id stands for, kept once and shared by every trial and sweep that needs it.

Layout under the storage's root:
    stages/<stage_id>/published.json      which attempt is valid, and the stage's summary; written last
    stages/<stage_id>/<attempt>/          a bundle: weights.safetensors, stage.json, predictions, tables, pictures
    unfinished/<stage_id>/e0004/          a bundle: where an interrupted stage goes on
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import fs as pafs
from safetensors.torch import load_file
from torch import Tensor

from birdclef_core.errors import StoreError
from birdclef_core.store.storage import MANIFEST, Storage, scratch_folder
from birdclef_core.store.summary import StageSummary, summarise_record

PUBLISHED = "published.json"
WEIGHTS = "weights.safetensors"
RECORD = "stage.json"


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """What is known of a trained stage: where it came from, what it cost and how it scored."""

    stage_id: str
    parent_id: str | None
    recipe: str
    stage: str
    identity: dict[str, Any]
    """Everything that the id was computed from."""
    species: list[str]
    metrics: dict[str, float]
    history: list[dict[str, Any]]
    """One entry per epoch."""
    cost_s: float
    """Device seconds of training and evaluation, also those of earlier attempts that this one went on from."""
    surgery: str
    environment: dict[str, str]
    finished_at: str
    trained_by: str = ""
    """`sweep/trial`, if it was trained by one."""


@dataclass(frozen=True)
class StageEntry:
    """A published stage whose files have been verified."""

    record: StageRecord
    folder: Path

    def weights(self) -> dict[str, Tensor]:
        """State entries by name, on the CPU."""
        return load_file(self.folder / WEIGHTS)


def _ignore(message: str) -> None:
    return None


@dataclass(frozen=True)
class StageStore:
    """Maps stage ids to trained stages. Safe for several writers: each attempt has its own folder, one is published."""

    storage: Storage
    on_damage: Callable[[str], None] = field(default=_ignore)
    """Told of every damaged entry that was set aside."""

    def record(self, stage_id: str) -> StageRecord | None:
        """The record of a published stage without verifying its weights; None when there is none that can be read."""
        attempt = self.published_attempt(stage_id)
        text = attempt and self.storage.read_text(f"stages/{stage_id}/{attempt}/{RECORD}")
        try:
            return StageRecord(**json.loads(text)) if text else None
        except (ValueError, TypeError):
            return None

    def open(self, stage_id: str) -> StageEntry | None:
        """The published stage with every file verified, or None. A damaged entry is set aside and None is returned."""
        attempt = self.published_attempt(stage_id)
        if attempt is None:
            return None
        try:
            folder = self.storage.read_bundle(f"stages/{stage_id}/{attempt}", scratch_folder())
            record = StageRecord(**json.loads((folder / RECORD).read_text()))
        except (StoreError, ValueError, TypeError) as error:
            self._set_aside(stage_id, str(error))
            return None
        return StageEntry(record, folder)

    def check(self, stage_id: str) -> str:
        """What is wrong with a published stage's files; empty when they are what was written. Nothing is set aside."""
        attempt = self.published_attempt(stage_id)
        if attempt is None:
            return "it is not published"
        try:
            self.storage.verify_bundle(f"stages/{stage_id}/{attempt}")
        except StoreError as error:
            return str(error)
        return ""

    def location(self, stage_id: str) -> str:
        """Where the weights of a published stage are, for the user."""
        return self.storage.path(f"stages/{stage_id}/{self.published_attempt(stage_id)}/{WEIGHTS}")

    def copy_reports(self, stage_id: str, folder: Path) -> None:
        """Copies all of a published stage but its weights into a local folder."""
        attempt = self.published_attempt(stage_id)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = self.storage.at("stages", stage_id, str(attempt))
        for name in bundle.names():
            if name not in (WEIGHTS, MANIFEST):
                pafs.copy_files(bundle.path(name), str(folder / name), source_filesystem=bundle.filesystem)

    def known_ids(self) -> list[str]:
        """Every stage id that something has been written for, published or not."""
        return self.storage.at("stages").names()

    def summaries(self, stage_ids: Iterable[str] | None = None) -> dict[str, StageSummary]:
        """Every published stage, by id; or those of `stage_ids` that are."""
        with ThreadPoolExecutor(16) as pool:
            found = pool.map(self.summary, self.known_ids() if stage_ids is None else stage_ids)
            return {summary.stage_id: summary for summary in found if summary is not None}

    def summary(self, stage_id: str) -> StageSummary | None:
        """A published stage at a glance; None when there is none, or no record of it can be read."""
        pointer = self._pointer(stage_id)
        if pointer is None:
            return None
        try:
            return StageSummary.from_json(pointer["summary"])
        except (KeyError, TypeError):  # written by another version of the code
            record = self.record(stage_id)
            if record is None:
                return None
            files = self.storage.at("stages", stage_id, pointer["attempt"]).files()
            return summarise_record(record, sum(file.num_bytes for file in files))

    def unpublish(self, stage_id: str) -> None:
        """Takes a stage's pointer away, so that nobody finds the stage; `remove` takes its files."""
        self.storage.delete(f"stages/{stage_id}/{PUBLISHED}")

    def remove(self, stage_id: str) -> None:
        """Takes a stage out of the store: first the pointer, so that nobody finds a half of it."""
        self.unpublish(stage_id)
        self.storage.delete(f"stages/{stage_id}")

    def unfinished(self) -> dict[str, int]:
        """Bytes of epoch checkpoints, by the stage that goes on from them."""
        sizes: dict[str, int] = {}
        for file in self.storage.at("unfinished").files():
            stage_id = file.name.partition("/")[0]
            sizes[stage_id] = sizes.get(stage_id, 0) + file.num_bytes
        return sizes

    def published_attempt(self, stage_id: str) -> str | None:
        """Name of the folder that counts, None when the stage is not published."""
        pointer = self._pointer(stage_id)
        return pointer["attempt"] if pointer else None

    def is_published(self, stage_id: str) -> bool:
        return self.published_attempt(stage_id) is not None

    @contextmanager
    def publish(self, record: Callable[[], StageRecord], stage_id: str) -> Iterator[Path]:
        """Gives a local folder to fill with weights and reports; publishes it under the id when the block ends."""
        attempt = uuid.uuid4().hex[:12]
        with self.storage.write_bundle(f"stages/{stage_id}/{attempt}") as folder:
            yield folder
            known = record()
            (folder / RECORD).write_text(json.dumps(asdict(known), indent=1))
            summary = summarise_record(known, sum(path.stat().st_size for path in folder.iterdir()))
        pointer = {"attempt": attempt, "summary": asdict(summary)}
        self.storage.write_text(f"stages/{stage_id}/{PUBLISHED}", json.dumps(pointer))
        self.drop_progress(stage_id)

    def adopt(self, entry: StageEntry) -> None:
        """Publishes a copy of a stage of another store."""
        with self.publish(lambda: entry.record, entry.record.stage_id) as folder:
            for path in entry.folder.iterdir():
                if path.name not in (MANIFEST, RECORD):
                    shutil.copyfile(path, folder / path.name)

    @contextmanager
    def save_progress(self, stage_id: str, epoch: int) -> Iterator[Path]:
        """Gives a local folder to fill with what is needed to go on after `epoch`; older epochs are removed afterwards."""
        progress = self.storage.at("unfinished", stage_id)
        with progress.write_bundle(f"e{epoch:04d}") as folder:
            yield folder
        for name in progress.names():
            if name < f"e{epoch - 1:04d}":
                progress.delete(name)

    def latest_progress(self, stage_id: str) -> Path | None:
        """The verified folder of the newest epoch from which the stage can go on; damaged ones are removed, aloud."""
        progress = self.storage.at("unfinished", stage_id)
        for name in reversed(progress.names()):
            try:
                return progress.read_bundle(name, scratch_folder())
            except StoreError as error:
                self.on_damage(f"Epoch checkpoint left out: {error}")
                progress.delete(name)
        return None

    def drop_progress(self, stage_id: str) -> None:
        self.storage.delete(f"unfinished/{stage_id}")

    def _pointer(self, stage_id: str) -> dict[str, Any] | None:
        """What `published.json` says."""
        text = self.storage.read_text(f"stages/{stage_id}/{PUBLISHED}")
        if text is None:
            return None
        try:
            pointer = json.loads(text)
            return {"attempt": str(pointer["attempt"]), "summary": pointer["summary"]}
        except (ValueError, KeyError, TypeError):
            self._set_aside(stage_id, f"{PUBLISHED} is damaged")
            return None

    def _set_aside(self, stage_id: str, reason: str) -> None:
        place = f"stages/{stage_id}"
        self.storage.write_text(f"{place}/set-aside-{uuid.uuid4().hex[:8]}.txt", reason)
        self.storage.delete(f"{place}/{PUBLISHED}")
        self.on_damage(f"Store entry {stage_id[:12]} is damaged and will be trained again: {reason}")
