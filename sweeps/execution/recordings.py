"""The recordings that a sweep's options name, or that a stage was trained on, and the cache of their decoded audio."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from birdclef_core.data.dataset import Dataset, load_dataset
from birdclef_core.data.packed.fetching import PackedData, Say
from birdclef_core.data.packed.index import is_packed
from birdclef_core.demo.demo_set import make_demo
from birdclef_core.errors import DataError, InputError
from birdclef_core.stages.embeddings.recorded import embeddings_data
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageRecord
from sweeps.execution.audio_cache import AudioCache
from sweeps.options import DEMO_DATA, SweepOptions
from sweeps.schedule.records import SweepRecords


def load_recordings(options: SweepOptions, *, bad_files_csv: Path | None = None, say: Say | None = None) -> Dataset:
    """Load the dataset that the options name, or make and load the demo set where they name none. A packed set is fetched first.

    Recordings that cannot be used are listed in `bad_files_csv`. Raises as `load_dataset` and `PackedData.fetch` do.
    """
    return load_dataset(
        data_folder(options, say),
        target_species=Path(options.target_species) if options.target_species else None,
        max_bad_share=options.max_bad_share,
        fold=options.fold,
        bad_files_csv=bad_files_csv,
    )


def split_into_folds(dataset: Dataset, options: SweepOptions) -> list[Dataset]:
    """Return the dataset with each fold as validation that the options name.

    Raises InputError where `--folds` asks for a fold without validation recordings.
    """
    if options.folds is None:
        return [dataset]
    try:
        return [dataset.of_fold(fold) for fold in options.validating]
    except DataError as error:
        raise InputError(f"--folds {options.folds} needs recordings in so many folds. {error}") from None


def data_folder(options: SweepOptions, say: Say | None = None) -> Path:
    """Return the data folder on this machine: the one that the options name, where they name a packed set its copy in the cache, and the
    demo set where they name none. Raises as `PackedData.open` and `fetch` do.
    """
    if packed := packed_data(options):
        return packed.fetch(max_bytes=options.max_bytes, say=say)
    return Path(options.data) if options.data else make_demo(Path(DEMO_DATA))


def packed_data(options: SweepOptions) -> PackedData | None:
    """Return the packed set that the options name; None where they name none. Raises as `PackedData.open` does."""
    if options.data is None or not is_packed(options.data):
        return None
    return PackedData.open(options.data, _cache_folder(options), outage_s=60 * options.storage_outage_minutes)


def audio_cache(options: SweepOptions) -> AudioCache:
    """Return the cache of decoded audio that the options describe. Raises as `PackedData.open` does."""
    return AudioCache(
        folder=_cache_folder(options),
        packed=packed_data(options),
        max_s_per_recording=options.max_seconds_per_recording,
        max_bytes=options.max_bytes,
        max_bad_share=options.max_bad_share,
    )


def _cache_folder(options: SweepOptions) -> Path:
    return Path(options.cache_dir).expanduser().resolve()


@dataclass(frozen=True, kw_only=True)
class FoundRecordings:
    """Recordings that a stage was trained on. No audio has been decoded yet."""

    dataset: Dataset
    cache: AudioCache
    pretrained: str
    """The `--pretrained` of the sweep that used them."""

    @property
    def fingerprint(self) -> str:
        return self.cache.data_fingerprint(self.dataset)

    def has(self, data: str) -> bool:
        """Return whether these are the recordings that the identity of a stage names, which may be of embeddings."""
        return data in (self.fingerprint, embeddings_data(self.dataset, self.fingerprint))

    def training_data(self) -> TrainingData:
        """Decode the audio that is not in the cache yet, and return it with the dataset."""
        return self.cache.build(self.dataset)


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """What a sweep was given, and which stages its trials have."""

    options: SweepOptions
    data_fingerprint: str
    stage_ids: frozenset[str]


class RecordingFinder:
    """Finds the recordings that stages were trained on, by the sweeps that used them. Loads each dataset once."""

    def __init__(self, sweeps: Iterable[SweepRecords], *, folder: str | Path | None, cache_dir: str) -> None:
        """`folder`, or a packed set, holds the recordings of every stage; None: they are where the sweeps had them."""
        self._records, self._folder, self._cache_dir = list(sweeps), folder, cache_dir
        self._loaded: dict[str, list[FoundRecordings]] = {}

    def find(self, record: StageRecord) -> FoundRecordings:
        """Return the recordings of a stage. They may have changed since: the caller compares fingerprints.

        Raises InputError when no folder was given and none of the sweeps used them, and as `load_dataset` does.
        """
        options = self._options(record.identity["data"], record.stage_id)
        if options is None and self._folder is None:
            raise InputError(
                f"The recordings of stage {record.stage_id[:16]} (data {record.identity['data'][:16]}) must be named with --data: no "
                "sweep of this storage used them."
            )
        found = self.of_sweep(options or SweepOptions(search="-"))
        return next((item for item in found if item.has(record.identity["data"])), found[0])

    def of_sweep(self, options: SweepOptions) -> list[FoundRecordings]:
        """Return the recordings of a sweep with these options, once with the split of each fold that validates; raises as `find` does."""
        folder = options.data if self._folder is None else str(self._folder)
        options = replace(options, data=folder, cache_dir=self._cache_dir)
        if (key := repr(options)) not in self._loaded:
            dataset, cache = load_recordings(options), audio_cache(options)
            self._loaded[key] = [
                FoundRecordings(dataset=of_fold, cache=cache, pretrained=options.pretrained)
                for of_fold in split_into_folds(dataset, options)
            ]
        return self._loaded[key]

    def _options(self, data_fingerprint: str, stage_id: str) -> SweepOptions | None:
        """Options of a sweep that used the recordings: of one that had the stage if any did, as target species may differ."""
        users = [sweep for sweep in self._sweeps if sweep.data_fingerprint == data_fingerprint or stage_id in sweep.stage_ids]
        first = next((sweep for sweep in users if stage_id in sweep.stage_ids), users[0] if users else None)
        return first.options if first else None

    @cached_property
    def _sweeps(self) -> list[_Sweep]:
        return list(self._read_sweeps())

    def _read_sweeps(self) -> Iterator[_Sweep]:
        for records in self._records:
            try:
                record, trials = records.load_sweep(), records.load_trials()
            except InputError:  # written by another version of the code: another sweep may know
                continue
            yield _Sweep(
                options=record.options,
                data_fingerprint=record.data_fingerprint,
                stage_ids=frozenset(stage_id for trial in trials for stage_id in trial.stage_ids),
            )
