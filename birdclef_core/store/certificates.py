"""Certificates: that two versions of the code trained the same weights, to the bit, from one stage's record.

Layout under the storage's root:
    certificates/<hash>.json      a Certificate, named by its own hash
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from birdclef_core.errors import FileContentError, StoreError
from birdclef_core.identity import fingerprint
from birdclef_core.store.storage import Storage

FOLDER = "certificates"
_FILE = ".json"


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """What decides which code trains a stage; a certificate holds for stages of one kind."""

    head: str
    loss: str
    label_space: str
    precision: str
    freeze_encoder: bool
    frozen_blocks: int = 0
    thaw_every: int = 0
    optimizer: str = "adam"
    on_embeddings: bool = False

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> "StageKind":
        """Return the kind of a stage with this identity. Raises StoreError for one that does not say it."""
        try:
            model, stage = identity["model"], identity["stage"]
            return cls(
                head=model["head"],
                loss=stage["loss"],
                label_space=stage["label_space"],
                precision=stage["precision"],
                freeze_encoder=stage["freeze_encoder"],
                frozen_blocks=stage.get("frozen_blocks", 0),
                thaw_every=stage.get("thaw_every", 0),
                optimizer=stage.get("optimizer", "adam"),
                on_embeddings=bool(stage.get("embeddings")),
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"The identity of a stage must say head, loss, label space and precision, but: {error}.") from None

    def __str__(self) -> str:
        parts = {
            f"with {self.optimizer}": self.optimizer != "adam",
            "on embeddings": self.on_embeddings,
            "encoder frozen": self.freeze_encoder,
            f"{self.frozen_blocks} blocks frozen": self.frozen_blocks,
            f"thawing every {self.thaw_every} epochs": self.thaw_every,
        }
        return ", ".join([f"{self.head.upper()} {self.loss} {self.label_space} {self.precision}", *filter(parts.get, parts)])


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """That a stage which old code had trained came out the same when new code trained it again from its record."""

    old_code: str
    new_code: str
    kind: StageKind
    stage_id: str
    """The stage that was trained again."""
    recorded_sha256: str
    """sha256 of its weights file as the old code wrote it."""
    replayed_sha256: str
    """sha256 of the weights file that the new code wrote."""
    environment: dict[str, str]
    """Versions, device and threads of the second training."""
    made_at: str
    """ISO 8601."""

    @property
    def hash(self) -> str:
        """Hash of all that the certificate says: the name of its file."""
        return fingerprint(self)

    def proves(self, old_code: str, new_code: str, kind: StageKind) -> bool:
        """Whether it shows that both versions of the code train stages of this kind to the same weights."""
        same = bool(self.recorded_sha256) and self.recorded_sha256 == self.replayed_sha256
        return same and (self.old_code, self.new_code, self.kind) == (old_code, new_code, kind)


def write_certificate(storage: Storage, certificate: Certificate) -> None:
    """Keep a certificate in the storage of a stage store."""
    storage.write_json(f"{FOLDER}/{certificate.hash}{_FILE}", certificate, indent=1)


def read_certificate(storage: Storage, certificate_hash: str) -> Certificate:
    """Return a certificate. Raises StoreError when it is not there, cannot be read, or its content does not have this hash."""
    name = f"{FOLDER}/{certificate_hash}{_FILE}"
    try:
        certificate = storage.read_json(Certificate, name)
    except FileContentError as error:
        raise StoreError(str(error)) from None
    if certificate is None:
        raise StoreError(f"{storage.path(name)} is missing.")
    if certificate.hash != certificate_hash:
        raise StoreError(
            f"{storage.path(name)} was changed after it was written: its content has the hash {certificate.hash[:16]}."
        )
    return certificate


def read_certificates(storage: Storage, on_damage: Callable[[str], None]) -> list[Certificate]:
    """Return every certificate of a storage. `on_damage` is called with one line on each that cannot be trusted."""
    found = []
    for name in storage.at(FOLDER).names():
        if not name.endswith(_FILE):
            continue
        try:
            found.append(read_certificate(storage, name.removesuffix(_FILE)))
        except StoreError as error:
            on_damage(f"A certificate is damaged and proves nothing: {error}")
    return found
