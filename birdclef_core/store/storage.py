"""A place for files that outlive a process: a local folder, NFS, S3 or GS, through pyarrow's file systems.

A bundle is a folder of files with a manifest that holds the sha256 of each. The manifest is written last, so a bundle without one
is incomplete, and a reader finds every damaged file.
"""

import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pyarrow import fs as pafs

from birdclef_core.errors import FileContentError, InputError, StoreError
from birdclef_core.identity import file_sha256
from birdclef_core.json_files import from_json, to_json
from birdclef_core.store.patience import Patience

T = TypeVar("T")

_KEY_NAMES = ("key", "secret", "token", "password")
"""Words in the names of a URI's settings that are no public ones."""

MANIFEST = "bundle.json"
READ_BYTES = 2**22
"""Bytes read at once to hash a remote file."""
SCRATCH_BYTES = 20 * 2**30
"""Copies of remote bundles take at most this many bytes, apart from those used less than SCRATCH_USE_S ago."""
SCRATCH_USE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of a storage."""

    name: str
    """Path from the storage's root."""
    num_bytes: int
    written_at_s: float
    """Unix time of the last write, by the storage's clock."""


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What a bundle's manifest says of one file."""

    sha256: str
    bytes: int
    """Size of the file."""


@dataclass(frozen=True, kw_only=True)
class BundleManifest:
    """The manifest of a bundle, `bundle.json`."""

    files: dict[str, FileFacts]
    """The files of the bundle by name."""


@dataclass(frozen=True, kw_only=True)
class BundleCopy:
    """A copy of a bundle on the same storage."""

    num_bytes: int
    """Size of its files."""
    is_linked: bool
    """Whether the files are hard links, which take no space of their own."""


@dataclass(frozen=True)
class Storage:
    """A folder on a file system. Picklable."""

    filesystem: pafs.FileSystem
    root: str
    patience: Patience = field(default_factory=Patience, compare=False)
    """How long each operation waits for a remote storage that is away: by default not at all."""

    @classmethod
    def parse(cls, place: str) -> "Storage":
        """Return the storage at a local path or a URI such as `s3://bucket/folder`. Raises InputError for anything else.

        A URI with a key is refused too.
        """
        if "://" not in place:
            return cls(pafs.LocalFileSystem(), str(Path(place).expanduser().resolve()))
        if _has_keys(place):
            raise InputError(
                "A storage's URI must have no keys, because it is written into records and shown, but this one has. Put them where the "
                "tools of AWS or Google look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or ~/.aws/credentials."
            )
        try:
            filesystem, root = pafs.FileSystem.from_uri(place)
        except (ValueError, OSError) as error:
            raise InputError(
                f"Storage must be a folder or a URI that pyarrow knows (s3://, gs://), but got {place!r}: {error}"
            ) from None
        return cls(filesystem, root.rstrip("/"))

    @property
    def is_local(self) -> bool:
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def at(self, *parts: str) -> "Storage":
        """Return the storage of a sub-folder."""
        return replace(self, root="/".join((self.root, *parts)))

    def impatient(self) -> "Storage":
        """Return the same storage for what must not wait for it."""
        return replace(self, patience=Patience())

    def wait_for(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; while a remote storage is away, try again. Raises StorageAway as its patience does."""
        return work() if self.is_local else self.patience.wait_for(self.root, work, self._explain)

    def attempt(self, work: Callable[[], None]) -> bool:
        """Do `work` and return True; return False while a remote storage is away. Raises StorageAway as its patience does."""
        if self.is_local:
            work()
            return True
        return self.patience.attempt(self.root, work, self._explain)

    def _explain(self) -> None:
        """Ask for something that a storage answers with its reason if it refuses it: a listing."""
        self.filesystem.get_file_info(pafs.FileSelector(self.path("explain"), allow_not_found=True))

    def path(self, name: str) -> str:
        """Return the whole path of a file or folder, for pyarrow and for the user."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return self.wait_for(lambda: self.filesystem.get_file_info(self.path(name))).type != pafs.FileType.NotFound

    def num_bytes(self, name: str) -> int | None:
        """Return the size of a file; None when there is no such file."""
        info = self.wait_for(lambda: self.filesystem.get_file_info(self.path(name)))
        return info.size if info.type == pafs.FileType.File else None

    def names(self) -> list[str]:
        """Return the sorted names of the files and folders directly inside; none when the folder does not exist."""
        selector = pafs.FileSelector(self.root, allow_not_found=True)
        return sorted(info.base_name for info in self._listed(selector))

    def files(self) -> list[StoredFile]:
        """Return every file inside, at any depth; none when the folder does not exist."""
        selector = pafs.FileSelector(self.root, allow_not_found=True, recursive=True)
        return [
            StoredFile(name=info.path[len(self.root) + 1 :], num_bytes=info.size, written_at_s=info.mtime_ns / 1e9)
            for info in self._listed(selector)
            if info.type == pafs.FileType.File
        ]

    def _listed(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        found = self.wait_for(lambda: self.filesystem.get_file_info(selector))
        try:
            for info in found:
                _ = info.path  # decoded when it is asked for
        except UnicodeDecodeError as error:
            raise StoreError(
                f"{self.root} must have only names in UTF-8, but one has {error.object!r} in it. Rename or remove that file or folder."
            ) from None
        return found

    def read_json(self, kind: type[T], name: str, *, defaults: bool = False) -> T | None:
        """Return what a JSON file holds; None when the file does not exist.

        With `defaults`, a field that is missing takes its default. Raises FileContentError as `from_json` does.
        """
        content = self.read_bytes(name)
        return None if content is None else from_json(kind, content, file=self.path(name), defaults=defaults)

    def read_bytes(self, name: str) -> bytes | None:
        """Return the content of a file; None when the file does not exist."""

        def read() -> bytes:
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                return bytes(stream.read())

        try:
            return self.wait_for(read)
        except FileNotFoundError:
            return None

    def write_json(self, name: str, value: Any, *, indent: int | None = None) -> None:
        """Write a value as a JSON file; raises as `to_json`, and replaces the file as `write_text` does."""
        self.write_text(name, to_json(value, indent=indent))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file in UTF-8, as `write_bytes` does."""
        self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the old content or the new one, never a part of one."""
        path = self.path(name)
        if self.is_local:
            self.filesystem.create_dir(path.rpartition("/")[0])
        target = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if self.is_local else path

        def write() -> None:
            with self.filesystem.open_output_stream(target) as stream:
                stream.write(content)

        self.wait_for(write)
        if self.is_local:
            self.filesystem.move(target, path)

    def delete(self, name: str) -> None:
        """Remove a file, or a folder with all it holds; does nothing when there is none."""

        def remove() -> None:
            info = self.filesystem.get_file_info(self.path(name))
            with suppress(FileNotFoundError):  # another process has just removed it
                if info.type == pafs.FileType.Directory:
                    self.filesystem.delete_dir(info.path)
                elif info.type == pafs.FileType.File:
                    self.filesystem.delete_file(info.path)

        self.wait_for(remove)

    @contextmanager
    def write_bundle(self, name: str) -> Iterator[Path]:
        """Yield a local folder to fill. The bundle is complete under `name` when the block ends without an error."""
        if self.is_local:
            folder = Path(self.path(name))
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            self._seal(name, folder)
            return
        with tempfile.TemporaryDirectory(prefix="birdclef-") as scratch:
            yield Path(scratch)
            self.wait_for(lambda: pafs.copy_files(scratch, self.path(name), destination_filesystem=self.filesystem))
            self._seal(name, Path(scratch))

    def _seal(self, name: str, folder: Path) -> None:
        files = {path.name: FileFacts(sha256=file_sha256(path), bytes=path.stat().st_size) for path in sorted(folder.iterdir())}
        self.write_json(f"{name}/{MANIFEST}", BundleManifest(files=files), indent=1)

    def read_bundle(self, name: str, scratch: Path) -> Path:
        """Return a local folder with the bundle's files, every hash verified. Remote files are copied into `scratch`.

        Raises StoreError when the bundle is incomplete or a file is not what was written.
        """
        folder = Path(self.path(name)) if self.is_local else scratch / self.path(name).replace("/", "~")
        copied = False
        for file, facts in self.manifest(name).items():
            if not self.is_local:
                copied |= self._copy(f"{name}/{file}", folder / file, facts.sha256)
            if not (folder / file).is_file() or file_sha256(folder / file) != facts.sha256:
                raise self._damage(name, file)
        if copied:
            tidy_scratch(scratch)
        return folder

    def copy_bundle(self, source: str, target: str, replaced: Mapping[str, str]) -> "BundleCopy":
        """Write the bundle `target` with the files of `source`, apart from those in `replaced`, which get the text given there.

        A local storage links the files, a remote one copies them by itself: their content is not read. The manifest of the copy has
        the hashes of the source's, so a file that was damaged before is found damaged in the copy too. Raises StoreError when the
        source is incomplete.
        """
        files, linked = dict(self.manifest(source)), True
        # First: files that are linked keep their age, and a bundle without young files is taken for one that was cut off.
        for file, text in replaced.items():
            self.write_text(f"{target}/{file}", text)
            content = text.encode()
            files[file] = FileFacts(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for file in sorted(files.keys() - replaced.keys()):
            try:
                linked &= self._link_or_copy(self.path(f"{source}/{file}"), self.path(f"{target}/{file}"))
            except FileNotFoundError:
                raise self._damage(source, file) from None
        self.write_json(f"{target}/{MANIFEST}", BundleManifest(files=files), indent=1)
        return BundleCopy(num_bytes=sum(facts.bytes for facts in files.values()), is_linked=linked)

    def _link_or_copy(self, source: str, target: str) -> bool:
        """Give a file a second name, or copy it where that cannot be. Return whether it takes no more space."""
        if self.is_local:
            try:
                os.link(source, target)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links, or too many of one file
                shutil.copyfile(source, target)
                return False
            return True
        self.wait_for(lambda: self.filesystem.copy_file(source, target))
        return False

    def verify_bundle(self, name: str) -> None:
        """Verify every file of the bundle on the storage itself, not a local copy. Raises StoreError as `read_bundle` does."""
        for file, facts in self.manifest(name).items():
            try:
                sha256 = self.wait_for(partial(self._sha256, f"{name}/{file}"))
            except FileNotFoundError:
                raise self._damage(name, file) from None
            if sha256 != facts.sha256:
                raise self._damage(name, file)

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path(name)) as stream:
            while block := stream.read(READ_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def manifest(self, name: str) -> dict[str, FileFacts]:
        """Return what a bundle's manifest says of its files. Raises StoreError when there is none that can be read."""
        try:
            manifest = self.read_json(BundleManifest, f"{name}/{MANIFEST}")
        except FileContentError as error:
            raise StoreError(str(error)) from None
        if manifest is None:
            raise StoreError(f"{self.path(name)} has no {MANIFEST}: writing it was cut off.")
        return manifest.files

    def keep_folder(self, folder: Path, name: str) -> None:
        """Copy the files of a local folder into a folder of the storage."""
        for path in folder.iterdir():
            if path.is_file():
                self.write_bytes(f"{name}/{path.name}", path.read_bytes())

    def put(self, file: Path, name: str) -> None:
        """Copy a local file into the storage; a reader sees all of it or none."""
        path = self.path(name)
        if self.is_local:
            self.filesystem.create_dir(path.rpartition("/")[0])
        target = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if self.is_local else path
        self.wait_for(lambda: pafs.copy_files(str(file), target, destination_filesystem=self.filesystem))
        if self.is_local:
            self.filesystem.move(target, path)

    def fetch(self, name: str, target: Path) -> None:
        """Copy a file to a local path."""
        self.wait_for(lambda: pafs.copy_files(self.path(name), str(target), source_filesystem=self.filesystem))

    def _damage(self, name: str, file: str) -> StoreError:
        return StoreError(f"{self.path(name)}/{file} is missing or is not what was written (sha256 differs).")

    def _copy(self, name: str, target: Path, sha256: str) -> bool:
        """Copy a remote file, unless an earlier call or another process of this machine has. Return whether it did."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(target.parent)
        if (target.is_file() and file_sha256(target) == sha256) or not self.exists(name):
            return False
        draft = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        self.fetch(name, draft)
        draft.replace(target)
        return True


def scratch_folder() -> Path:
    """Return the folder in which this user keeps copies of remote bundles on this machine."""
    root = Path(tempfile.gettempdir()) / f"birdclef-store-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    return root


def tidy_scratch(scratch: Path, max_bytes: int = SCRATCH_BYTES) -> None:
    """Remove copies from a scratch folder until it holds at most `max_bytes`; those used last stay."""
    found = []
    for folder in scratch.iterdir():
        with suppress(FileNotFoundError):  # another process is changing it
            found.append((folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder))
    kept = 0
    for used_at_s, num_bytes, folder in sorted(found, reverse=True):
        kept += num_bytes
        # Another process may be using a younger one.
        if kept > max_bytes and time.time() - used_at_s > SCRATCH_USE_S:
            shutil.rmtree(folder, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk on which `path` is or will be."""
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def _has_keys(uri: str) -> bool:
    """Whether a URI has a password, a setting that is named like a key, or one (such as an endpoint) with a user in it."""
    place, _, query = uri.partition("://")[2].partition("?")
    settings = parse_qsl(query, keep_blank_values=True)
    is_key = any(word in name.lower() for name, _ in settings for word in _KEY_NAMES)
    return ":" in place.rpartition("@")[0] or is_key or any("@" in value for _, value in settings)
