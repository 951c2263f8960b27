"""One place for files that outlive a process: a local folder, NFS, S3 or GS, through pyarrow's file systems.

A bundle is a folder of files that is complete once its manifest, written last, is there; the manifest holds the
sha256 of every file, so a reader knows a damaged bundle from a good one.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs as pafs

from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import file_sha256

MANIFEST = "bundle.json"
READ_BYTES = 2**22
SCRATCH_BYTES = 20 * 2**30
SCRATCH_USE_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of a storage."""

    name: str
    """From the storage's root."""
    num_bytes: int
    written_at_s: float
    """Unix time by the storage's clock."""


@dataclass(frozen=True)
class Storage:
    """A file system and a folder on it. Picklable."""

    filesystem: pafs.FileSystem
    root: str

    @classmethod
    def parse(cls, place: str) -> "Storage":
        """From a local path or a URI such as `s3://bucket/folder`. Raises InputError for anything else."""
        if "://" not in place:
            return cls(pafs.LocalFileSystem(), str(Path(place).expanduser().resolve()))
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
        """The storage of a sub-folder."""
        return Storage(self.filesystem, "/".join((self.root, *parts)))

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        return self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound

    def names(self) -> list[str]:
        """Names of the files and folders directly inside, sorted; none when the folder is not there."""
        selector = pafs.FileSelector(self.root, allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def files(self) -> list[StoredFile]:
        """Every file inside, at any depth; none when the folder is not there."""
        selector = pafs.FileSelector(self.root, allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return [
            StoredFile(name=info.path[len(self.root) + 1 :], num_bytes=info.size, written_at_s=info.mtime_ns / 1e9)
            for info in found
            if info.type == pafs.FileType.File
        ]

    def read_text(self, name: str) -> str | None:
        """The text of a file, None when it is not there."""
        try:
            with self.filesystem.open_input_stream(self.path(name)) as stream:
                return stream.read().decode()
        except FileNotFoundError:
            return None

    def write_text(self, name: str, text: str) -> None:
        """Writes a file so that a reader sees the old text or the new one, never a part."""
        path = self.path(name)
        if self.is_local:
            self.filesystem.create_dir(path.rpartition("/")[0])
        target = f"{path}.{uuid.uuid4().hex[:8]}.tmp" if self.is_local else path
        with self.filesystem.open_output_stream(target) as stream:
            stream.write(text.encode())
        if self.is_local:
            self.filesystem.move(target, path)

    def delete(self, name: str) -> None:
        """Removes a file or a folder with what is in it; nothing happens when it is not there."""
        info = self.filesystem.get_file_info(self.path(name))
        with suppress(FileNotFoundError):  # somebody else was quicker
            if info.type == pafs.FileType.Directory:
                self.filesystem.delete_dir(info.path)
            elif info.type == pafs.FileType.File:
                self.filesystem.delete_file(info.path)

    @contextmanager
    def write_bundle(self, name: str) -> Iterator[Path]:
        """Gives a local folder to fill; when the block ends without an error the bundle is complete under `name`."""
        if self.is_local:
            folder = Path(self.path(name))
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
            self._seal(name, folder)
            return
        with tempfile.TemporaryDirectory(prefix="birdclef-") as scratch:
            yield Path(scratch)
            pafs.copy_files(scratch, self.path(name), destination_filesystem=self.filesystem)
            self._seal(name, Path(scratch))

    def _seal(self, name: str, folder: Path) -> None:
        files = {path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size} for path in sorted(folder.iterdir())}
        self.write_text(f"{name}/{MANIFEST}", json.dumps({"files": files}, indent=1))

    def read_bundle(self, name: str, scratch: Path) -> Path:
        """A local folder with the bundle's files, every hash verified; remote files are brought into `scratch`.

        Raises StoreError when the bundle is incomplete or a file is not what was written.
        """
        folder = Path(self.path(name)) if self.is_local else scratch / self.path(name).replace("/", "~")
        brought = False
        for file, sha256 in self._manifest(name).items():
            if not self.is_local:
                brought |= self._bring(f"{name}/{file}", folder / file, sha256)
            if not (folder / file).is_file() or file_sha256(folder / file) != sha256:
                raise self._damage(name, file)
        if brought:
            tidy_scratch(scratch)
        return folder

    def verify_bundle(self, name: str) -> None:
        """Reads every file of the bundle where it lies, whatever copies there are. Raises StoreError as `read_bundle` does."""
        for file, sha256 in self._manifest(name).items():
            digest = hashlib.sha256()
            try:
                with self.filesystem.open_input_stream(self.path(f"{name}/{file}")) as stream:
                    while block := stream.read(READ_BYTES):
                        digest.update(block)
            except FileNotFoundError:
                raise self._damage(name, file) from None
            if digest.hexdigest() != sha256:
                raise self._damage(name, file)

    def _manifest(self, name: str) -> dict[str, str]:
        """sha256 by file."""
        text = self.read_text(f"{name}/{MANIFEST}")
        if text is None:
            raise StoreError(f"{self.path(name)} has no {MANIFEST}: it was not written to its end.")
        try:
            return {file: facts["sha256"] for file, facts in json.loads(text)["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StoreError(f"{self.path(name)}/{MANIFEST} is damaged.") from None

    def _damage(self, name: str, file: str) -> StoreError:
        return StoreError(f"{self.path(name)}/{file} is missing or is not what was written (sha256 differs).")

    def _bring(self, name: str, target: Path, sha256: str) -> bool:
        """Copies a remote file, unless an earlier call or another process of this machine has. Returns whether it did."""
        target.parent.mkdir(parents=True, exist_ok=True)
        os.utime(target.parent)
        if (target.is_file() and file_sha256(target) == sha256) or not self.exists(name):
            return False
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        pafs.copy_files(self.path(name), str(partial), source_filesystem=self.filesystem)
        partial.replace(target)
        return True


def scratch_folder() -> Path:
    """Where this machine keeps copies of remote bundles."""
    root = Path(tempfile.gettempdir()) / "birdclef-store"
    root.mkdir(parents=True, exist_ok=True)
    return root


def tidy_scratch(scratch: Path, max_bytes: int = SCRATCH_BYTES) -> None:
    """Of the copies in a scratch folder, those used last stay, up to `max_bytes`."""
    found = []
    for folder in scratch.iterdir():
        with suppress(FileNotFoundError):  # another process brings or removes something in it just now
            found.append((folder.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder))
    kept = 0
    for used_at_s, num_bytes, folder in sorted(found, reverse=True):
        kept += num_bytes
        # A younger one may just be in use by another process.
        if kept > max_bytes and time.time() - used_at_s > SCRATCH_USE_S:
            shutil.rmtree(folder, ignore_errors=True)


def free_bytes(path: Path) -> int:
    """Free space where `path` is or will be."""
    while not path.exists():
        path = path.parent
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize
