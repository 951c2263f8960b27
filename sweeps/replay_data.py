"""The recordings that a stage was trained on, found by the sweeps that used them."""

from dataclasses import replace
from pathlib import Path

from birdclef_core.data.dataset import load_dataset
from birdclef_core.demo.demo_set import make_demo
from birdclef_core.errors import InputError
from birdclef_core.stages.training import TrainingData
from birdclef_core.storage import Storage
from sweeps.audio_cache import AudioCache
from sweeps.options import SweepOptions
from sweeps.records import SweepRecords
from sweeps.references import store_of, sweeps_in

DEMO_DATA = "demo-data"


def data_of_stage(storage: Storage, stage_id: str, folder: Path | None, cache_dir: str) -> tuple[TrainingData, str]:
    """Recordings and their fingerprint, from `folder` or from where the sweep had them that used those of the stage.

    Raises InputError when no folder is given and no sweep of the storage used them.
    """
    record = store_of(storage).record(stage_id)
    wanted = record.identity.get("data", "") if record else ""
    options = _options(storage, wanted)
    if folder is not None:
        options = replace(options or SweepOptions(search="-"), data=str(folder))
    if options is None:
        raise InputError(
            f"The recordings of stage {stage_id[:16]} (data {wanted[:16]}) must be named with --data: no sweep in {storage.root} used them."
        )
    root = Path(options.data) if options.data else make_demo(Path(DEMO_DATA))
    target_species = Path(options.target_species) if options.target_species else None
    dataset = load_dataset(root, target_species=target_species, max_bad_share=options.max_bad_share)
    cache = AudioCache(
        folder=Path(cache_dir).expanduser().resolve(),
        max_s_per_recording=options.max_seconds_per_recording,
        max_bytes=options.max_bytes,
        max_bad_share=options.max_bad_share,
    )
    return TrainingData(dataset=dataset, cache=cache.build(dataset)), cache.data_fingerprint(dataset)


def _options(storage: Storage, data_fingerprint: str) -> SweepOptions | None:
    """Of a sweep that used the recordings."""
    for name in sweeps_in(storage):
        description = SweepRecords(storage.at(name)).load_sweep()
        if description["data_fingerprint"] == data_fingerprint:
            return SweepOptions.from_record(description)
    return None
