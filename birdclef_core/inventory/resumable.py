"""Looks at many files in parallel and keeps what it saw as it comes, so that an interrupted run goes on where it was and a later
one looks only at what changed.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Look = Callable[[str, bool], Mapping[str, Any]]
"""What to see in a file: (path, deep) -> values by name, always the same names. Faults of the file are values, not exceptions."""

Progress = Callable[[int, int], None]
"""Gets (files done, files in all)."""

_CHUNK = 8  # Files a thread takes at once.
_SAVE_S = 5.0
_WHOLE = "seen.parquet"
_KEY = ["path", "size_bytes", "mtime_ns"]
_NOTHING = pd.DataFrame(columns=[*_KEY, "deep"]).astype({"path": str, "size_bytes": "int64", "mtime_ns": "int64"})


def look_at_files(
    files: pd.DataFrame, look: Look, *, store: Path | None, threads: int, progress: Progress | None = None
) -> tuple[pd.DataFrame, int]:
    """What `look` sees in each file, one row a row of `files` (path, size_bytes, mtime_ns, deep), and how many it looked at now.

    `store` is a folder for what was seen; a file is looked at again when its size or time of change is another, or when it is now
    wanted `deep` and was not before. Killed, at most the last `_SAVE_S` seconds are lost. Threads: `look` should release the
    interpreter, as decoding and hashing do. Whoever calls sees to it that only one process uses a store.
    """
    known = _read(store) if store else _NOTHING
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
                found.append(_save(unsaved, store))
                unsaved, saved_at = [], time.monotonic()
    finally:
        if unsaved:
            found.append(_save(unsaved, store))
    table = _merged([known.iloc[position[position >= 0]], *found])
    if store and found:
        _compact(store, _merged([known, *found]))
    return table.set_index("path").reindex(files["path"]).reset_index().drop(columns=["size_bytes", "mtime_ns", "deep"]), len(
        missing
    )


def _known_positions(files: pd.DataFrame, known: pd.DataFrame) -> NDArray[np.int64]:
    """Row of `known` for each file whose look still holds, else -1."""
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


def _read(store: Path) -> pd.DataFrame:
    store.mkdir(parents=True, exist_ok=True)
    parts = [path for path in [store / _WHOLE, *sorted(store.glob("part-*.parquet"))] if path.is_file()]
    return _merged([pd.read_parquet(path) for path in parts]) if parts else _NOTHING


def _merged(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)] or parts[:1]
    return pd.concat(filled, ignore_index=True).drop_duplicates("path", keep="last", ignore_index=True)


def _save(rows: list[dict[str, Any]], store: Path | None) -> pd.DataFrame:
    part = pd.DataFrame(rows)
    if store:
        _write(part, store / f"part-{time.time_ns()}.parquet")
    return part


def _compact(store: Path, table: pd.DataFrame) -> None:
    parts = sorted(store.glob("part-*.parquet"))
    _write(table, store / _WHOLE)
    for path in parts:
        path.unlink()


def _write(table: pd.DataFrame, path: Path) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        table.to_parquet(aside, index=False, compression="zstd")
        aside.replace(path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()
