"""Looks at many files in parallel and keeps what it saw as it comes, so that an interrupted run goes on where it was and a later
one looks only at what changed.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

Look = Callable[[str, bool], Mapping[str, Any]]
"""What to see in a file: (path, deep) -> values by name, always the same names. Faults of the file are values, not exceptions."""

Progress = Callable[[int, int], None]
"""Gets (files done, files in all)."""

OUT_OF_REACH = "cannot be read"
"""An error that begins so is about the disk or a permission, not about the file: the file is looked at again next time."""

_CHUNK = 8  # Files a thread takes at once.
_SAVE_S = 5.0
_WHOLE = "seen.parquet"
_KEY = ["path", "size_bytes", "mtime_ns"]
_KINDS = {"path": str, "size_bytes": "int64", "mtime_ns": "int64", "deep": bool}
_log = logging.getLogger(__name__)


def look_at_files(
    files: pd.DataFrame,
    look: Look,
    *,
    sees: Sequence[str],
    store: Path | None,
    threads: int,
    progress: Progress | None = None,
) -> tuple[pd.DataFrame, int]:
    """Return what `look` sees in each file, one row a row of `files` (path, size_bytes, mtime_ns, deep), and how many were new.

    `sees` names the values that `look` gives; one is `error`, why the file cannot be used. `store` is a folder for what was seen; a file is looked at again when its size or
    time of change is another, or when it is now wanted `deep` and was not before. After a kill, at most the last `_SAVE_S` seconds
    are lost. What is kept and cannot be read is looked at again; where nothing can be kept, looking goes on without. `look` should
    release the interpreter, as decoding and hashing do. The caller makes sure that only one process uses a store.
    """
    kept = _Kept(store, sees)
    known = kept.read()
    position = _known_positions(files, known)
    missing = np.flatnonzero(position < 0)
    found: list[pd.DataFrame] = []
    done = len(files) - len(missing)
    unsaved: list[dict[str, Any]] = []
    saved_at = time.monotonic()
    try:
        for seen in _look_in_threads(files.iloc[missing], look, threads):
            unsaved += seen
            done += len(seen)
            if progress:
                progress(done, len(files))
            if time.monotonic() - saved_at > _SAVE_S:
                found.append(kept.save(unsaved))
                unsaved, saved_at = [], time.monotonic()
    finally:
        if unsaved:
            found.append(kept.save(unsaved))
    table = _merged([known.iloc[position[position >= 0]], *found])
    if found:
        kept.replace(_merged([known, *found]))
    return table.set_index("path").reindex(files["path"]).reset_index()[["path", *sees]], len(missing)


def _known_positions(files: pd.DataFrame, known: pd.DataFrame) -> NDArray[np.int64]:
    """Return the row of `known` for each file whose look still holds, else -1."""
    places = known[[*_KEY, "deep"]].assign(position=np.arange(len(known)))
    joined = files[[*_KEY, "deep"]].merge(places, on=_KEY, how="left", suffixes=("_wanted", "_known"))
    enough = joined["position"].notna() & (~joined["deep_wanted"].astype(bool) | joined["deep_known"].eq(True))
    return joined["position"].where(enough, -1).to_numpy(dtype=np.int64)


def _look_in_threads(files: pd.DataFrame, look: Look, threads: int) -> Iterator[list[dict[str, Any]]]:
    rows = list(files[[*_KEY, "deep"]].itertuples(index=False, name=None))

    def look_at(first: int) -> list[dict[str, Any]]:
        return [
            {"path": path, "size_bytes": size, "mtime_ns": mtime, "deep": bool(deep), **look(path, bool(deep))}
            for path, size, mtime, deep in rows[first : first + _CHUNK]
        ]

    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(look_at, first) for first in range(0, len(rows), _CHUNK)]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _merged(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).drop_duplicates("path", keep="last", ignore_index=True)


class _Kept:
    """What was seen, in a folder of Parquet files, as long as that can be written."""

    def __init__(self, store: Path | None, sees: Sequence[str]) -> None:
        self._store = store
        self._nothing = pd.DataFrame(columns=[*_KINDS, *sees]).astype(_KINDS)

    def read(self) -> pd.DataFrame:
        """Return what is kept; files that are damaged or of another kind count nothing."""
        if self._store is None:
            return self._nothing
        paths = [self._store / _WHOLE, *sorted(self._store.glob("part-*.parquet"))]
        parts = [part for path in paths if (part := self._read(path)) is not None]
        return _merged(parts) if parts else self._nothing

    def save(self, rows: list[dict[str, Any]]) -> pd.DataFrame:
        """Keep rows in a file of their own and return them as a table."""
        part = pd.DataFrame(rows)
        self._write(part, f"part-{time.time_ns()}.parquet")
        return part

    def replace(self, table: pd.DataFrame) -> None:
        """Keep `table` in one file in place of all others."""
        parts = sorted(self._store.glob("part-*.parquet")) if self._store else []
        if self._write(table, _WHOLE):
            for path in parts:
                path.unlink(missing_ok=True)

    def _read(self, path: Path) -> pd.DataFrame | None:
        if not path.is_file():
            return None
        try:
            table = pd.read_parquet(path, columns=list(self._nothing)).astype(_KINDS)
            return table[~table["error"].str.startswith(OUT_OF_REACH)]
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            _log.warning("%s cannot be read (%s): its files are looked at again.", path, error)
            return None

    def _write(self, table: pd.DataFrame, name: str) -> bool:
        """Return whether the table was written."""
        if self._store is None:
            return False
        aside = self._store / f".{name}.{os.getpid()}.tmp"
        try:
            self._store.mkdir(parents=True, exist_ok=True)
            table.to_parquet(aside, index=False, compression="zstd")
            aside.replace(self._store / name)
        except (OSError, pa.ArrowException, UnicodeError) as error:
            _log.warning("What is seen cannot be kept in %s (%s): a later run looks at all files again.", self._store, error)
            self._store = None
            return False
        finally:
            with suppress(OSError):
                aside.unlink()
        return True
