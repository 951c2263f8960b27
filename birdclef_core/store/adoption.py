"""Publishes stages of an older code version a second time, under the ids that the current code gives them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import BirdclefError
from birdclef_core.identity import canonical, fingerprint, restore
from birdclef_core.store.certificates import Certificate, StageKind
from birdclef_core.store.stage_store import StageRecord, StageStore

THREADS = 16


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What became of the stages of an older code version."""

    adopted: tuple[StageRecord, ...]
    """Records of the stages that were published under a new id now."""
    already_there: int
    """Number of stages that had been published under their new ids before."""
    copied: int
    """Number of adopted stages whose files take room of their own; those of the others are hard links."""
    left_out: Mapping[str, int]
    """Number of stages that are not reused, by reason."""


class _LeftOutError(BirdclefError):
    """A stage is not reused; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a stage is found under the current code."""

    stage_id: str
    is_new: bool
    """Whether it was published just now."""
    is_copied: bool = False


def adopt_stages(
    store: StageStore, records: Sequence[StageRecord], proofs: Mapping[StageKind, Certificate], code: str
) -> Adoption:
    """Publish the proven stages of one older code version under the ids that the code version `code` gives them.

    `records`: all stages of the older version. A stage is proven when its kind is in `proofs` and what it was trained from is: first
    weights, a proven stage, or a stage of another version (an imported one, or one that a sweep was told to start from), which keeps
    its id. A stage that is published under its new id already is left alone. If this is cut off, what is published is complete.
    """
    return _Adopter(store, records, proofs, code).run()


class _Adopter:
    def __init__(
        self, store: StageStore, records: Sequence[StageRecord], proofs: Mapping[StageKind, Certificate], code: str
    ) -> None:
        self._store, self._proofs, self._code = store, proofs, code
        self._records = {record.stage_id: record for record in records}
        self._places: dict[str, _Place] = {}
        """Of the stages that are reused, by their old ids."""
        self._left_out: Counter[str] = Counter()

    def run(self) -> Adoption:
        for level in self._levels():
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(self._place_or_reason, level))
            for record, place in zip(level, found, strict=True):
                if isinstance(place, str):
                    self._left_out[place] += 1
                else:
                    self._places[record.stage_id] = place
        new = [stage_id for stage_id, place in self._places.items() if place.is_new]
        return Adoption(
            adopted=tuple(self._records[stage_id] for stage_id in new),
            already_there=len(self._places) - len(new),
            copied=sum(self._places[stage_id].is_copied for stage_id in new),
            left_out=self._left_out,
        )

    def _levels(self) -> list[list[StageRecord]]:
        """The stages, those without a parent among them first, each after its parent."""
        children: defaultdict[str, list[StageRecord]] = defaultdict(list)
        for record in self._records.values():
            children[record.parent_id if record.parent_id in self._records else ""].append(record)
        levels = [children[""]]
        while levels[-1]:
            levels.append([child for record in levels[-1] for child in children[record.stage_id]])
        return levels

    def _place_or_reason(self, record: StageRecord) -> _Place | str:
        try:
            return self._place(record)
        except BirdclefError as error:
            return str(error)

    def _place(self, record: StageRecord) -> _Place:
        proof = self._proofs.get(StageKind.of(record.identity))
        if proof is None:
            raise _LeftOutError("of a kind that is not proven")
        if fingerprint(record.identity) != record.stage_id:
            raise _LeftOutError("whose record was changed: its id is not the hash of its identity")
        if record.needs != ((record.parent_id,) if record.parent_id else ()):
            raise _LeftOutError("that learned from a teacher or on embeddings, of which a certificate says nothing")
        parent_id = self._parent_id(record)
        identity = {
            "model": canonical(restore(ModelConfig, record.identity["model"])),
            "stage": canonical(restore(StageConfig, record.identity["stage"])),
            "label_space": record.identity["label_space"],
            "data": record.identity["data"],
            "parent": parent_id or record.identity["parent"],
            "code": self._code,
        } | {name: record.identity[name] for name in ("sources",) if name in record.identity}
        stage_id = fingerprint(identity)
        if not self._store.is_published(stage_id):
            known = replace(
                record,
                stage_id=stage_id,
                parent_id=parent_id,
                identity=identity,
                adopted_from=record.stage_id,
                certificate=proof.hash,
            )
            return _Place(stage_id=stage_id, is_new=True, is_copied=not self._store.publish_again(record.stage_id, known))
        if self._store.weights_sha256(stage_id) != self._store.weights_sha256(record.stage_id):
            raise _LeftOutError("that this code has trained itself to other weights")
        return _Place(stage_id=stage_id, is_new=False)

    def _parent_id(self, record: StageRecord) -> str | None:
        """Id under the current code of the stage that this one was trained from."""
        if record.parent_id is None:
            return None
        if record.parent_id in self._records:
            if record.parent_id not in self._places:
                raise _LeftOutError("trained from a stage that is not reused")
            return self._places[record.parent_id].stage_id
        if not self._store.is_published(record.parent_id):
            raise _LeftOutError("trained from a stage that is no longer in the store")
        return record.parent_id
