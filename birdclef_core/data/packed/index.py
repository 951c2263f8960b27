"""The index of a packed data set, `pack.json`: its shards with their hashes, and what is in them. It is written last."""

import re
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.errors import DataError, FileContentError, InputError
from birdclef_core.identity import fingerprint
from birdclef_core.store.storage import Storage

INDEX_NAME = "pack.json"
PACK_VERSION = 1

_SHARD_NAME = re.compile(r"[a-z]+-[0-9a-f]{32}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A plain tar archive with some of the files."""

    name: str
    sha256: str
    num_bytes: int
    """Size of the archive."""
    num_files: int
    file_bytes: int
    """Size of the files in it."""

    def __post_init__(self) -> None:
        if not (_SHARD_NAME.fullmatch(self.name) and _SHA256.fullmatch(self.sha256)):
            raise InputError("a shard has a name such as audio-<32 digits>.tar and a sha256 of 64 hexadecimal digits")
        if min(self.num_bytes, self.num_files, self.file_bytes) < 0:
            raise InputError("sizes of a shard are 0 or more")


@dataclass(frozen=True, kw_only=True)
class PackIndex:
    """What a packed set holds."""

    version: int
    data_fingerprint: str
    """The fingerprint of the data set with fold 0, which is that of the folder that was packed."""
    num_recordings: int
    """Recordings that can be used."""
    num_noise: int
    num_soundscapes: int
    """Labelled soundscapes."""
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        if self.version != PACK_VERSION:
            raise InputError(
                f"version must be {PACK_VERSION}, but is {self.version}: pack the data again with this version of the code"
            )
        if not self.shards or len({shard.name for shard in self.shards}) < len(self.shards):
            raise InputError("there must be shards, each once")

    @property
    def pack_id(self) -> str:
        """Hash of the index, and so of every file of the set."""
        return fingerprint(self)

    @property
    def file_bytes(self) -> int:
        """Size of all files, which the set takes on a disk."""
        return sum(shard.file_bytes for shard in self.shards)

    @property
    def num_files(self) -> int:
        return sum(shard.num_files for shard in self.shards)


def is_packed(place: str) -> bool:
    """Return whether `--data` names a packed set, or what must be one: any URI, and a folder that has an index."""
    return "://" in place or (Path(place) / INDEX_NAME).is_file()


def find_index(storage: Storage) -> PackIndex | None:
    """Return the index of the packed set in a storage; None where there is none. Raises DataError when it cannot be read."""
    try:
        return storage.read_json(PackIndex, INDEX_NAME)
    except FileContentError as error:
        raise DataError(f"{error} Pack the data again: `birdclef data pack DATA {storage.root}`.") from None
    except OSError as error:
        credentials = (
            ""
            if storage.is_local
            else ", and that this machine has credentials for it (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws/credentials, or a role of "
            "the machine)"
        )
        raise DataError(f"The packed set {storage.root} cannot be read: {error}. Check the address{credentials}.") from None


def read_index(storage: Storage, place: str) -> PackIndex:
    """Return the index of the packed set at `place`, whose storage is `storage`. Raises DataError where there is none."""
    index = find_index(storage)
    if index is None:
        raise DataError(
            f"{place} must be a packed set, but has no {INDEX_NAME}. Files of a data folder are not read one by one from there: pack the folder "
            f"on a machine that has it, with `birdclef data pack FOLDER {place}`; if that was cut off, run it again."
        )
    return index
