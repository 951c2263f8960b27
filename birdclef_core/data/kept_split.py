"""The folds of a collected folder's recordings, kept beside its manifest: recordings that come later do not move those that were
there.

A Parquet table of recording_id and fold.
"""

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.data.recording_folds import divide
from birdclef_core.data.splits import NUM_FOLDS, SPLIT_SEED
from birdclef_core.data.tables import is_there
from birdclef_core.errors import DataError

SPLIT_NAME = "split.parquet"

_SCHEMA = pa.schema(
    [pa.field("recording_id", pa.string(), nullable=False), pa.field("fold", pa.int8(), nullable=False)],
    metadata={"folds": str(NUM_FOLDS), "seed": str(SPLIT_SEED)},
)


def keep_split(root: Path, recordings: pd.DataFrame) -> None:
    """Write the folds of recordings, with those of an earlier split where they were. The file appears complete or not at all.

    `recordings` is the part of a manifest that can be used.
    """
    recordings = recordings.reset_index(drop=True)
    folds = divide(recordings, [""] * len(recordings), read_split(root, recordings["recording_id"]))
    table = pa.Table.from_pandas(recordings[["recording_id"]].assign(fold=folds["fold"]), _SCHEMA, preserve_index=False)
    aside = root / f".{SPLIT_NAME}.{os.getpid()}.tmp"
    try:
        pq.write_table(table.replace_schema_metadata(_SCHEMA.metadata), aside, compression="zstd", write_page_checksum=True)
        aside.replace(root / SPLIT_NAME)
    finally:
        aside.unlink(missing_ok=True)


def read_split(root: Path, recording_ids: pd.Series) -> pd.Series | None:
    """Return the fold of each recording in the split that is kept, NA where it was not there yet.

    Returns None where no split into as many folds with this seed is kept. Raises DataError for a file that cannot be read.
    """
    path = root / SPLIT_NAME
    if not is_there(path):
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        if not table.schema.equals(_SCHEMA, check_metadata=True):
            return None
        rows = table.to_pandas()
        folds = rows.set_index("recording_id")["fold"].astype("Int64")
        if not folds.index.is_unique:
            raise ValueError("a recording is in it twice")
        if not folds.between(0, NUM_FOLDS - 1).all():
            raise ValueError(f"fold {folds.max()} is none of {NUM_FOLDS}")
        return folds.reindex(recording_ids.to_numpy()).set_axis(recording_ids.index)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} must be a split that can be read, but: {error}. Remove it to split without it; recordings may then change folds."
        ) from error
