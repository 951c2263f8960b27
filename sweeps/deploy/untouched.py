"""Labelled soundscapes that no sweep has seen: an ensemble is scored on them once, when it has been chosen."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.ensemble.calibration.labelled import hear_rows, soundscape_rows
from birdclef_core.ensemble.selection import Rows
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING
from birdclef_core.inference.run.job import run_of
from birdclef_core.inference.run.labels import read_labels
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.store.leakage import RecordingsReader
from birdclef_core.store.recordings_table import content_hashes
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.lineage import trace
from sweeps.checkpoints.references import store_of
from sweeps.checkpoints.replay import recording_finder
from sweeps.wording import counted

SHOWN = 3
"""Files that an error names."""
FOLDER = "untouched"
"""Within the cache folder: what was heard of such soundscapes."""


@dataclass(frozen=True)
class Seen:
    """What stages were trained or may have been chosen by."""

    soundscapes: list[Soundscapes]
    recordings: list[pd.DataFrame]
    """Tables of recordings."""


def data_of_stages(storage: Storage, stage_ids: Sequence[str], cache_dir: str, note: Callable[[str], None]) -> Seen:
    """Return the data of stages and of all that they were trained from. `note` gets a line where a data folder is not there."""
    store = store_of(storage)
    reader, finder = RecordingsReader(store.storage), recording_finder(storage, None, cache_dir)
    ancestors = [ancestor.record for stage_id in stage_ids for ancestor in trace(stage_id, store.record)]
    seen = Seen([], [])
    trained = [record for record in ancestors if record is not None and not record.is_predictions]
    for data, record in {record.identity.get("data"): record for record in trained}.items():
        try:
            dataset = finder.find(record).dataset
        except InputError as error:
            note(f"Whether {record.stage} {record.stage_id[:12]} was chosen by the untouched soundscapes is not known: {error}")
        else:
            seen.soundscapes.extend(item for item in (dataset.soundscapes, dataset.training_soundscapes) if item is not None)
        with suppress(StoreError):  # then the soundscapes alone are compared
            seen.recordings.append(reader.recordings(str(data)))
    return seen


def read_untouched(labels: Path, seen: Seen) -> Soundscapes:
    """Return the labelled soundscapes of a data folder, or a table in one, none of which has been seen.

    Raises InputError where a file has, by its content or by its name and length, and as `read_labels` does.
    """
    found = read_labels(labels)
    contents = {content for item in seen.soundscapes for content in content_hashes(_paths(item))}
    contents |= {content for table in seen.recordings for content in table["content"]}
    names = {name for item in seen.soundscapes for name in _names(item)}
    hashes = content_hashes(_paths(found))
    same = [
        path
        for path, content, name in zip(found.files["path"], hashes, _names(found), strict=True)
        if (content and content in contents) or name in names
    ]
    if same:
        shown = ", ".join(same[:SHOWN]) + (", ..." if len(same) > SHOWN else "")
        raise InputError(
            f"--untouched must have soundscapes by which nothing was trained or chosen, but {len(same)} of the {len(hashes)} of {labels} "
            f"are also in the data of the sweeps ({shown}). Untouched are only files that were kept out of the data folder before the sweep."
        )
    return found


def untouched_rows(soundscapes: Soundscapes, detectors: Sequence[DeployedDetector], cache: Path) -> tuple[Rows, str]:
    """Return the labelled windows with the logits of each detector, and what they are, for people. What is heard is kept in `cache`.

    Raises InputError when no window can be heard, or has a species of the detectors.
    """
    rows = soundscape_rows(soundscapes, detectors[0].species)
    parts = []
    for detector in detectors:
        predictor = Predictor(detector)
        parts.append(hear_rows(rows, predictor, cache / FOLDER / fingerprint(run_of(predictor))[:32]))
    heard = parts[0]
    logits_KRC = np.stack([part.logits(NO_POSTPROCESSING).astype(np.float32) for part in parts])
    what = f"{counted(len(heard.truth_RC), 'labelled window')} of {counted(len(heard.files), 'file')} in {soundscapes.root}"
    left_out = f"; {counted(heard.num_left_out, 'window')} could not be heard" if heard.num_left_out else ""
    return Rows(source="soundscapes", truth_RC=heard.truth_RC, logits_KRC=logits_KRC, group_R=heard.group_R), what + left_out


def _paths(soundscapes: Soundscapes) -> list[Path]:
    return [soundscapes.root / path for path in soundscapes.files["path"]]


def _names(soundscapes: Soundscapes) -> list[tuple[str, float]]:
    """Return the name and the length of each file, which stay when it is encoded again."""
    files = soundscapes.files[["path", "duration_s"]].itertuples(index=False)
    return [(Path(path).stem, round(float(duration_s), 1)) for path, duration_s in files]
