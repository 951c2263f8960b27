"""Tables of the recordings that stages were trained and scored on, one for each data fingerprint that a stage's record may name.

Layout under the storage's root:
    recordings/<data fingerprint>.parquet     one row a recording: recording_id, author, group, content, is_validation,
                                              always_trains
"""

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.errors import StoreError
from birdclef_core.store.storage import Storage

FOLDER = "recordings"
SOUNDSCAPE = "soundscape "
"""How the id of a labelled soundscape that trained begins in a table: its name follows. Only stages with a `soundscape_share` learned from it."""
BLOCK_BYTES = 2**16
"""Size of each of the three parts of a file that its content hash covers."""

_VERSION = "2"
_SCHEMA = pa.schema(
    [
        pa.field("recording_id", pa.string(), nullable=False),
        pa.field("author", pa.string(), nullable=False),  # the name as it is compared; empty when unknown
        pa.field("group", pa.string(), nullable=False),  # what is on one side of a split; empty when it means nothing elsewhere
        pa.field("content", pa.string(), nullable=False),  # see `content_hashes`; empty when the file could not be read
        pa.field("is_validation", pa.bool_(), nullable=False),
        pa.field("always_trains", pa.bool_(), nullable=False),  # in every fold, also beside others of the group that validate
    ],
    metadata={"birdclef_recordings": _VERSION},
)
_FILES_A_THREAD = 64  # Files that a thread takes at once: handing them out one by one costs a third more.


def table_name(data_fingerprint: str) -> str:
    """Return the path of a table from the storage's root."""
    return f"{FOLDER}/{data_fingerprint}.parquet"


def write_recordings(storage: Storage, data_fingerprint: str, recordings: pd.DataFrame) -> None:
    """Keep the recordings of a dataset. `recordings` has the columns of the table."""
    content = io.BytesIO()
    table = pa.Table.from_pandas(recordings[_SCHEMA.names], schema=_SCHEMA, preserve_index=False)
    table = table.replace_schema_metadata(_SCHEMA.metadata)  # without what pandas notes of its index
    pq.write_table(table, content, compression="zstd", write_page_checksum=True)
    storage.write_bytes(table_name(data_fingerprint), content.getvalue())


def read_recordings(storage: Storage, data_fingerprint: str) -> pd.DataFrame | None:
    """Return the recordings of a dataset; None when the storage has no table of them.

    Raises StoreError for a table that is damaged or of another version.
    """
    name = table_name(data_fingerprint)
    content = storage.read_bytes(name)
    if content is None:
        return None
    try:
        table = pq.read_table(io.BytesIO(content), page_checksum_verification=True)
        is_known = table.schema.equals(_SCHEMA, check_metadata=True)
        recordings = table.to_pandas() if is_known else None
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{storage.path(name)} cannot be read: {error}.") from None
    if recordings is None:
        raise StoreError(f"{storage.path(name)} is not a table of recordings of version {_VERSION}.")
    return recordings


def content_hashes(paths: Sequence[Path], *, threads: int = 16) -> list[str]:
    """Return a hash of each file's content, so that a file is known again under another name; empty where it cannot be read.

    It covers the size and 64 KiB at the start, in the middle and at the end. Files that differ in none of these are taken for
    equal: the middle tells apart clips of equal length that begin and end with silence.
    """

    def hash_some(first: int) -> list[str]:
        return [_content_hash(path) for path in paths[first : first + _FILES_A_THREAD]]

    with ThreadPoolExecutor(threads) as pool:
        return [digest for some in pool.map(hash_some, range(0, len(paths), _FILES_A_THREAD)) for digest in some]


def _content_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
            if size <= 3 * BLOCK_BYTES:
                digest.update(file.read())
            else:
                for offset in (0, (size - BLOCK_BYTES) // 2, size - BLOCK_BYTES):
                    file.seek(offset)
                    digest.update(file.read(BLOCK_BYTES))
    except OSError:
        return ""
    return digest.hexdigest()
