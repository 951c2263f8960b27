"""The split of a collected folder, kept beside its manifest: recordings that come later do not move those that were there.

A Parquet table with a recording_id and, for each fold, whether the recording validates in it.
"""

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from birdclef_core.data.splits import author_grouped_split
from birdclef_core.data.tables import is_there
from birdclef_core.errors import DataError

SPLIT_NAME = "split.parquet"
VALIDATION_SHARE = 0.2
SPLIT_SEED = 0

_ID = "recording_id"
_OF = {"share": str(VALIDATION_SHARE), "seed": str(SPLIT_SEED)}


def keep_split(root: Path, recordings: pd.DataFrame) -> None:
    """Write the split of all folds, with recordings of an earlier one where they were. The file appears complete or not at all.

    `recordings` has recording_id, primary_label and author.
    """
    ids = recordings[_ID].reset_index(drop=True)
    labels, authors = (recordings[name].reset_index(drop=True) for name in ("primary_label", "author"))
    columns: dict[str, pd.Series] = {_ID: ids}
    for fold in range(round(1 / VALIDATION_SHARE)):
        previous = read_split(root, ids, fold=fold)
        split = author_grouped_split(
            labels, authors, share=VALIDATION_SHARE, seed=SPLIT_SEED, recording_ids=ids, fold=fold, previous=previous
        )
        columns[str(fold)] = pd.Series(split.is_validation)
    table = pa.Table.from_pandas(pd.DataFrame(columns), preserve_index=False).replace_schema_metadata(_OF)
    aside = root / f".{SPLIT_NAME}.{os.getpid()}.tmp"
    try:
        pq.write_table(table, aside, compression="zstd", write_page_checksum=True)
        aside.replace(root / SPLIT_NAME)
    finally:
        aside.unlink(missing_ok=True)


def read_split(root: Path, recording_ids: pd.Series, *, fold: int) -> pd.Series | None:
    """Return whether each recording validates in the split that is kept, NA where it was not there yet.

    Returns None where no split of this fold, share and seed is kept. Raises DataError for a file that cannot be read.
    """
    path = root / SPLIT_NAME
    if not is_there(path):
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        kept = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if not _OF.items() <= kept.items() or str(fold) not in table.column_names:
            return None
        sides = pd.Series(table[str(fold)].to_pandas().to_numpy(), index=table[_ID].to_pandas(), dtype="boolean")
        return sides.reindex(recording_ids.to_numpy()).set_axis(recording_ids.index)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} must be a split that can be read, but: {error}. Remove it to split without it; recordings may then change sides."
        ) from error
