"""Finds what people call the species of a stage: in a table that the user names, or in the recordings that trained it."""

from pathlib import Path

import pandas as pd

from birdclef_core.data.metadata import metadata_path, read_metadata
from birdclef_core.errors import InputError
from birdclef_core.inventory.species_names import find_taxonomies, named_codes, read_taxonomies
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.execution.recordings import packed_data
from sweeps.options import DEMO_DATA
from sweeps.schedule.records import SweepRecords


def names_in_file(path: Path) -> dict[str, str]:
    """Return the common names in a taxonomy (of eBird or BirdCLEF), by code. Raises DataError when it is no such table."""
    return _by_code(read_taxonomies([path]))


def names_of_stage(storage: Storage, record: StageRecord) -> dict[str, str]:
    """Return the common names in the data folder of the sweep that trained a stage, by code.

    A folder that is no longer there, or cannot be read, names nothing: codes stand for themselves. Nor does a packed set that this machine
    has not fetched.
    """
    sweep = record.trained_by.partition("/")[0]
    records = SweepRecords(storage.at(sweep))
    try:
        if not sweep or not records.exists():
            return {}
        options = records.load_sweep().options
        packed = packed_data(options)
        folder = Path(options.data or DEMO_DATA)
        if packed:
            if not packed.is_here:
                return {}
            folder = packed.root
        taxonomy = _by_code(read_taxonomies(find_taxonomies([folder])) if folder.is_dir() else pd.DataFrame())
        return names_in_metadata(folder) | taxonomy
    except (InputError, OSError):
        return {}


def names_in_metadata(folder: Path) -> dict[str, str]:
    """Return the common names in the metadata of a data folder, by code. Raises DataError when there is none that can be read."""
    return _by_code(named_codes(read_metadata(metadata_path(folder)).table))


def _by_code(names: pd.DataFrame) -> dict[str, str]:
    if names.empty:
        return {}
    named = names[names["common_name"] != ""].drop_duplicates("code")
    return dict(zip(named["code"], named["common_name"], strict=True))
