"""The recordings that a stage was trained on, found by the sweeps that used them."""

from dataclasses import dataclass, replace
from pathlib import Path

from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.demo.demo_set import make_demo
from birdclef_core.errors import InputError
from birdclef_core.stages.training import TrainingData
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import sweeps_in
from sweeps.execution.audio_cache import AudioCache
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords

DEMO_DATA = "demo-data"


@dataclass(frozen=True, kw_only=True)
class FoundData:
    """Recordings of which no audio has been decoded yet."""

    root: Path
    dataset: Dataset
    cache: AudioCache
    pretrained: str
    """Where the sweep that used them had its first weights from."""

    @property
    def fingerprint(self) -> str:
        return self.cache.data_fingerprint(self.dataset)

    def training_data(self) -> TrainingData:
        """With the audio decoded."""
        return self.cache.build(self.dataset)


def data_of_stage(storage: Storage, record: StageRecord, folder: Path | None, cache_dir: str) -> FoundData:
    """Recordings from `folder`, or from where the sweep had them that used those of the stage.

    Raises InputError when no folder is given and no sweep of the storage used them.
    """
    wanted = record.identity["data"]
    options = _options(storage, wanted, record.stage_id)
    if folder is not None:
        options = replace(options or SweepOptions(search="-"), data=str(folder))
    if options is None:
        raise InputError(
            f"The recordings of stage {record.stage_id[:16]} (data {wanted[:16]}) must be named with --data: no sweep in {storage.root} "
            "used them."
        )
    root = Path(options.data) if options.data else make_demo(Path(DEMO_DATA))
    target_species = Path(options.target_species) if options.target_species else None
    cache = AudioCache(
        folder=Path(cache_dir).expanduser().resolve(),
        max_s_per_recording=options.max_seconds_per_recording,
        max_bytes=options.max_bytes,
        max_bad_share=options.max_bad_share,
    )
    dataset = load_dataset(root, target_species=target_species, max_bad_share=options.max_bad_share, fold=options.fold)
    return FoundData(root=root, dataset=dataset, cache=cache, pretrained=options.pretrained)


def _options(storage: Storage, data_fingerprint: str, stage_id: str) -> SweepOptions | None:
    """Of a sweep that used the recordings; rather of one that had the stage, for another may have had other target species."""
    found: SweepOptions | None = None
    for name in sweeps_in(storage):
        records = SweepRecords(storage.at(name))
        try:
            description = records.load_sweep()
            if description["data_fingerprint"] != data_fingerprint:
                continue
            if any(stage_id in trial.stage_ids for trial in records.load_trials()):
                return SweepOptions.from_record(description)
        except InputError:  # of another version of the code: another sweep may know
            continue
        found = found or SweepOptions.from_record(description)
    return found
