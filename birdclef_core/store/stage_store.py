"""The stage store: every trained stage is kept once, under its stage id, and shared by all trials and sweeps that need it.

Layout under the storage's root:
    stages/<stage_id>/published.json      the pointer: which attempt is valid, and the stage's summary; written last
    stages/<stage_id>/<attempt>/          a bundle: weights.safetensors, stage.json, predictions, tables, pictures
    unfinished/<stage_id>/e0004/          a bundle: an epoch checkpoint, from which an interrupted stage goes on
    logits/<stage_id>/<key>/              a bundle: logits of the stage as it is deployed, for some data and procedure
"""

import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from birdclef_core.errors import FileContentError, InputError, StoreError
from birdclef_core.identity import fingerprint
from birdclef_core.json_files import from_json, from_values, to_json
from birdclef_core.store.storage import MANIFEST, Storage, scratch_folder
from birdclef_core.store.summary import Spread, StageSummary, work_of, work_of_embeddings

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PUBLISHED = "published.json"
WEIGHTS = "weights.safetensors"
RECORD = "stage.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """The record of a trained stage, `stage.json`: where it came from, what it cost and how it scored."""

    stage_id: str
    parent_id: str | None
    recipe: str
    stage: str
    identity: dict[str, Any]
    """Everything that the id is the hash of, by another version of the code perhaps: model, stage, label_space, data, parent, code."""
    species: list[str]
    """Species codes in the order of the head's classes."""
    metrics: dict[str, float]
    """Scores of the published weights by name, in the stage's own label space."""
    history: list[dict[str, Any]]
    """The fields of EpochMetrics for each epoch, as the version of the code wrote them that trained the stage."""
    cost_s: float
    """Device seconds of training and evaluation, earlier attempts that this one went on from included."""
    surgery: str
    """One line on where the first weights came from and what was done to the head."""
    environment: dict[str, str]
    """Versions, device, host and threads."""
    finished_at: str
    """Time of publication, ISO 8601."""
    trained_by: str = ""
    """The trial that trained it, as `sweep/trial`; empty if none did."""
    adopted_from: str = ""
    """The stage of an older code version whose weights these are; empty if it was trained under this id."""
    certificate: str = ""
    """Hash of the certificate that both code versions train the same weights, for a stage that was adopted."""

    def __post_init__(self) -> None:
        rules = {"model": dict, "stage": dict, "label_space": str, "data": str, "parent": str, "code": str}
        for name, kind in rules.items():
            if not isinstance(self.identity.get(name, kind()), kind):
                must_be = "an object" if kind is dict else "text"
                raise InputError(f"identity.{name} must be {must_be}, but is {self.identity[name]!r}.")

    @property
    def is_predictions(self) -> bool:
        """Whether it is predictions of other stages, and was not trained."""
        return self.identity.get("model") == {}

    @property
    def is_head(self) -> bool:
        """Whether it is a head on embeddings, which hears with the encoder that is kept with these."""
        return bool(self.identity.get("embeddings"))

    def require_weights(self) -> None:
        """Raise InputError for predictions, which have no weights."""
        if self.is_predictions:
            if self.identity.get("stage", {}).get("embeds"):
                raise InputError(f"A stage with weights is needed, but {self.stage} {self.stage_id[:16]} keeps embeddings.")
            raise InputError(
                f"A stage with weights is needed, but {self.stage} {self.stage_id[:16]} is predictions of "
                f"{', '.join(stage_id[:16] for stage_id in self.needs)}: name that, or a stage that learned from it."
            )

    def require_encoder(self) -> None:
        """Raise InputError for a head on embeddings, which has no encoder to start from; and as `require_weights` does."""
        self.require_weights()
        if self.is_head:
            raise InputError(
                f"A stage with an encoder of its own is needed, but {self.stage} {self.stage_id[:16]} is a head on embeddings. It can teach (predicts) "
                "and, in one recipe, start another head (starts_from): see docs/embeddings.md."
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the stages that it was made from: of its parent, of the predictions that it learned from, of the teachers that it
        hears with."""
        several = (
            self.identity.get("parent", "")
            if not self.parent_id and self.is_predictions and not self.identity["stage"].get("embeds")
            else ""
        )
        teachers = [part.partition("*")[0] for part in several.split("+")]
        return tuple(
            dict.fromkeys(
                stage_id
                for stage_id in (self.parent_id, self.identity.get("teacher"), self.identity.get("embeddings"), *teachers)
                if stage_id
            )
        )

    def summary(self, num_bytes: int) -> StageSummary:
        """Return the stage's summary. `num_bytes`: size of its files. Raises ValueError where the identity has a NaN."""
        config, model = self.identity.get("stage", {}), self.identity.get("model", {})
        return StageSummary(
            stage_id=self.stage_id,
            parent_id=self.parent_id,
            recipe=self.recipe,
            stage=self.stage,
            metrics=self.metrics,
            epochs=len(self.history),
            cost_s=self.cost_s,
            num_bytes=num_bytes,
            device=self.environment.get("device", ""),
            device_type=self.environment.get("device_type", ""),
            finished_at=self.finished_at,
            work=work_of_embeddings(self.identity) if "embeds" in config else work_of(model, config),
            clip_s=config.get("clip_s", 0.0),
            config=fingerprint([model, config])[:16],
            label_space=self.identity.get("label_space", ""),
            label_space_name=config.get("label_space", ""),
            data=self.identity.get("data", ""),
            code=self.identity.get("code", ""),
            sources=self.identity.get("sources", ""),
            start="" if self.parent_id else self.identity.get("parent", ""),
            clips_per_s=Spread.of(self._by_epoch("clips_per_s")),
            evaluate_s=Spread.of(self._by_epoch("evaluate_s")),
            adopted_from=self.adopted_from,
            is_predictions=self.is_predictions,
            learned_from=[stage_id for stage_id in self.needs if stage_id != self.parent_id],
        )

    def _by_epoch(self, name: str) -> list[float]:
        return [epoch[name] for epoch in self.history if isinstance(epoch.get(name), (int, float))]


@dataclass(frozen=True, kw_only=True)
class Pointer:
    """What `published.json` holds."""

    attempt: str
    """Name of the folder that is valid."""
    summary: Any
    """The fields of a StageSummary, as the version of the code wrote them that published the stage."""


@dataclass(frozen=True)
class StageEntry:
    """A published stage whose files have been verified."""

    record: StageRecord
    folder: Path

    def weights(self) -> "dict[str, Tensor]":
        """Return the model's state by name, on the CPU."""
        from safetensors.torch import load_file  # imports torch, which takes a second: who lists stages needs none

        return load_file(self.folder / WEIGHTS)


@dataclass(frozen=True)
class StageStore:
    """Maps stage ids to trained stages. Safe for several writers: each attempt has a folder of its own, and one is published."""

    storage: Storage
    on_damage: Callable[[str], None] = field(default=_log.warning)
    """Called with one line on every damaged entry: it is set aside, so that the stage is trained again."""

    def record(self, stage_id: str) -> StageRecord | None:
        """Return the record of a published stage without verifying its weights; None when there is none.

        An entry whose record is damaged is set aside.
        """
        attempt = self.published_attempt(stage_id)
        if attempt is None:
            return None
        try:
            return self.storage.read_json(StageRecord, f"stages/{stage_id}/{attempt}/{RECORD}", defaults=True)
        except FileContentError as error:
            self._set_aside(stage_id, str(error))
            return None

    def open(self, stage_id: str) -> StageEntry | None:
        """Return a published stage, every file verified; None when there is none. A damaged entry is set aside."""
        attempt = self.published_attempt(stage_id)
        if attempt is None:
            return None
        try:
            folder = self.storage.read_bundle(f"stages/{stage_id}/{attempt}", scratch_folder())
            record = from_json(StageRecord, _bytes(folder / RECORD), file=str(folder / RECORD), defaults=True)
        except (StoreError, FileContentError) as error:
            self._set_aside(stage_id, str(error))
            return None
        return StageEntry(record, folder)

    def check(self, stage_id: str) -> str:
        """Return what is wrong with a published stage's files, or an empty text. Files that differ are not set aside."""
        attempt = self.published_attempt(stage_id)
        if attempt is None:
            return "it is not published"
        try:
            self.storage.verify_bundle(f"stages/{stage_id}/{attempt}")
        except StoreError as error:
            return str(error)
        return ""

    def location(self, stage_id: str) -> str:
        """Return the path or URI of a published stage's weights, for the user."""
        return self.storage.path(f"stages/{stage_id}/{self.published_attempt(stage_id)}/{WEIGHTS}")

    def copy_reports(self, stage_id: str, folder: Path) -> None:
        """Copy the pictures and tables of a published stage, without networks and predictions, into a local folder."""
        attempt = self.published_attempt(stage_id)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = self.storage.at("stages", stage_id, str(attempt))
        for name in bundle.names():
            if name != MANIFEST and not name.endswith((".safetensors", ".onnx")):
                bundle.fetch(name, folder / name)

    def known_ids(self) -> list[str]:
        """Return the id of every stage that the store has files of, published or not."""
        return self.storage.at("stages").names()

    def summaries(self, stage_ids: Iterable[str] | None = None) -> dict[str, StageSummary]:
        """Return the summaries of all published stages, or of those among `stage_ids`, by stage id."""
        with ThreadPoolExecutor(16) as pool:
            found = pool.map(self.summary, self.known_ids() if stage_ids is None else stage_ids)
            return {summary.stage_id: summary for summary in found if summary is not None}

    def summary(self, stage_id: str) -> StageSummary | None:
        """Return the summary of a published stage; None when there is none.

        A summary that is not of this version of the code is computed from the record. If that cannot be read either, the entry is
        damaged and set aside.
        """
        pointer = self._pointer(stage_id)
        if pointer is None:
            return None
        file = self.storage.path(f"stages/{stage_id}/{PUBLISHED}")
        try:
            return from_values(StageSummary, pointer.summary, file=file, defaults=True)
        except FileContentError:
            record = self.record(stage_id)
        if record is None:
            return None
        files = self.storage.at("stages", stage_id, pointer.attempt).files()
        try:
            summary = record.summary(sum(file.num_bytes for file in files))
            return from_values(StageSummary, summary, file=f"The summary of {RECORD}")
        except (FileContentError, ValueError) as error:
            self._set_aside(stage_id, str(error))
            return None

    def unpublish(self, stage_id: str) -> None:
        """Remove a stage's pointer, so that nobody finds the stage; `remove` removes its files too."""
        self.storage.delete(f"stages/{stage_id}/{PUBLISHED}")

    def remove(self, stage_id: str) -> None:
        """Remove a stage and its logits from the store: first its pointer, so that nobody finds it while its files go."""
        self.unpublish(stage_id)
        self.storage.delete(f"stages/{stage_id}")
        self.storage.delete(f"logits/{stage_id}")

    def unfinished(self) -> dict[str, int]:
        """Return the bytes of all epoch checkpoints, by the id of the stage that goes on from them."""
        sizes: dict[str, int] = {}
        for file in self.storage.at("unfinished").files():
            stage_id = file.name.partition("/")[0]
            sizes[stage_id] = sizes.get(stage_id, 0) + file.num_bytes
        return sizes

    def published_attempt(self, stage_id: str) -> str | None:
        """Return the name of the valid attempt's folder; None when the stage is not published."""
        pointer = self._pointer(stage_id)
        return pointer.attempt if pointer else None

    def is_published(self, stage_id: str) -> bool:
        return self.published_attempt(stage_id) is not None

    @contextmanager
    def publish(self, record: Callable[[], StageRecord], stage_id: str) -> Iterator[Path]:
        """Yield a local folder to fill with weights and reports, and publish it under the id when the block ends.

        `record` is called at the end of the block.
        """
        attempt = uuid.uuid4().hex[:12]
        with self.storage.write_bundle(f"stages/{stage_id}/{attempt}") as folder:
            yield folder
            known = record()
            (folder / RECORD).write_text(to_json(known, indent=1), encoding="utf-8")
            summary = known.summary(sum(path.stat().st_size for path in folder.iterdir()))
        self._point(stage_id, attempt, summary)

    def _point(self, stage_id: str, attempt: str, summary: StageSummary) -> None:
        self.storage.write_json(f"stages/{stage_id}/{PUBLISHED}", Pointer(attempt=attempt, summary=summary))
        self.drop_epoch_checkpoints(stage_id)

    def publish_again(self, stage_id: str, record: StageRecord) -> bool:
        """Publish the files of a stage under the id of `record` too, with that record. Return whether they take no more space.

        Raises StoreError when the stage is not complete.
        """
        attempt = uuid.uuid4().hex[:12]
        source, target = (
            f"stages/{place}" for place in (f"{stage_id}/{self.published_attempt(stage_id)}", f"{record.stage_id}/{attempt}")
        )
        copy = self.storage.copy_bundle(source, target, {RECORD: to_json(record, indent=1)})
        self._point(record.stage_id, attempt, replace(record.summary(copy.num_bytes), is_linked=copy.is_linked))
        return copy.is_linked

    def weights_sha256(self, stage_id: str) -> str:
        """Return the sha256 of a published stage's weights as its manifest has it. Raises StoreError when there is none."""
        return self.storage.manifest(f"stages/{stage_id}/{self.published_attempt(stage_id)}")[WEIGHTS].sha256

    def publish_copy(self, entry: StageEntry) -> None:
        """Publish a copy of a stage of another store."""
        with self.publish(lambda: entry.record, entry.record.stage_id) as folder:
            for path in entry.folder.iterdir():
                if path.name not in (MANIFEST, RECORD):
                    shutil.copyfile(path, folder / path.name)

    @contextmanager
    def save_epoch_checkpoint(self, stage_id: str, number: int) -> Iterator[Path]:
        """Yield a local folder to fill with what the stage goes on from, and keep it and the one before when the block ends.

        `number` counts the stage's epoch checkpoints.
        """
        unfinished = self.storage.at("unfinished", stage_id)
        with unfinished.write_bundle(f"e{number:04d}") as folder:
            yield folder
        for name in unfinished.names():
            if name < f"e{number - 1:04d}":
                unfinished.delete(name)

    def latest_epoch_checkpoint(self, stage_id: str, read: Callable[[Path], T]) -> T | None:
        """Return what `read` makes of the newest epoch checkpoint's folder, whose files have been verified; None when there is none.

        One that is damaged, or for which `read` raises FileContentError, is removed, and the one before it is tried.
        """
        unfinished = self.storage.at("unfinished", stage_id)
        for name in reversed(unfinished.names()):
            try:
                return read(unfinished.read_bundle(name, scratch_folder()))
            except (StoreError, FileContentError) as error:
                self.on_damage(f"An epoch checkpoint of stage {stage_id[:12]} is damaged and was removed: {error}")
                unfinished.delete(name)
        return None

    def drop_epoch_checkpoints(self, stage_id: str) -> None:
        self.storage.delete(f"unfinished/{stage_id}")

    def _pointer(self, stage_id: str) -> Pointer | None:
        try:
            return self.storage.read_json(Pointer, f"stages/{stage_id}/{PUBLISHED}")
        except FileContentError as error:
            self._set_aside(stage_id, str(error))
            return None

    def _set_aside(self, stage_id: str, reason: str) -> None:
        place = f"stages/{stage_id}"
        self.storage.write_text(f"{place}/set-aside-{uuid.uuid4().hex[:8]}.txt", reason)
        self.storage.delete(f"{place}/{PUBLISHED}")
        self.on_damage(f"Store entry {stage_id[:12]} is damaged and will be trained again: {reason}")


def _bytes(path: Path) -> bytes:
    """Return a file's content; raises StoreError when it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path} is missing.") from None
