"""The cache of decoded audio, with the same settings on the driver and on every worker."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from birdclef_core.data.cache import (
    build_cache,
    build_soundscape_cache,
    build_unlabelled_cache,
    estimate_cache,
    estimate_soundscape_cache,
)
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.packed.fetching import PackedData
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.identity import fingerprint
from birdclef_core.stages.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class AudioCache:
    """Where each machine keeps decoded audio, and how much of it."""

    folder: Path
    max_s_per_recording: float | None = None
    """How many seconds of each recording are used; None: all."""
    max_bytes: int | None = None
    """How many bytes the recordings may take, and the soundscapes; what has no room is decoded whenever it is read."""
    max_bad_share: float = 0.05
    """The share of recordings that may be unusable."""
    packed: PackedData | None = None
    """The packed set that the recordings come from, if any: its files lie in the folder too, and count as its bytes."""

    def data_fingerprint(self, dataset: Dataset) -> str:
        """Fingerprint of the dataset and of the seconds used of each recording: both change what is trained on."""
        if self.max_s_per_recording is None:
            return dataset.fingerprint
        return fingerprint([dataset.fingerprint, self.max_s_per_recording])

    def build(self, dataset: Dataset) -> TrainingData:
        """Return a dataset with its cache on this machine, where a packed set is fetched first. Raises as `build_cache` and `fetch` do."""
        if self.packed is not None:
            self.packed.fetch(max_bytes=self.max_bytes)
        return self._build(dataset, None)

    def build_and_say(self, dataset: Dataset, console: Console) -> None:
        """Build the cache; print an estimate first, a progress bar on a terminal, and the findings afterwards."""
        estimate = estimate_cache(dataset, self.folder, max_s_per_recording=self.max_s_per_recording, max_bytes=self._room)
        console.print(f"Cache in {self.folder}: {estimate.describe()}.", markup=False, highlight=False, soft_wrap=True)
        if dataset.soundscapes is not None:
            scored = estimate_soundscape_cache(dataset.soundscapes, self.folder, max_bytes=self._room)
            console.print(f"  Labelled soundscapes: {scored.describe()}.", highlight=False, soft_wrap=True)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Decoding", total=None)
            data = self._build(dataset, lambda done, total: bar.update(task, completed=done, total=total))
        of_soundscapes = data.soundscape_cache.findings if data.soundscape_cache else ()
        for finding in data.cache.findings + of_soundscapes:
            console.print(f"  {finding.describe()}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    @property
    def _room(self) -> int | None:
        """How many bytes decoded audio may take beside the files of a packed set."""
        if self.max_bytes is None or self.packed is None:
            return self.max_bytes
        return self.max_bytes - self.packed.index.file_bytes

    def _build(self, dataset: Dataset, progress: Callable[[float, float], None] | None) -> TrainingData:
        cache = build_cache(
            dataset,
            self.folder,
            max_s_per_recording=self.max_s_per_recording,
            max_bytes=self._room,
            max_bad_share=self.max_bad_share,
            progress=progress,
        )

        def of(soundscapes: Soundscapes | None) -> WaveCache | None:
            if soundscapes is None:
                return None
            return build_soundscape_cache(soundscapes, self.folder, max_bytes=self._room, progress=progress)

        return TrainingData(
            dataset=dataset,
            cache=cache,
            soundscape_cache=of(dataset.soundscapes),
            training_soundscape_cache=of(dataset.training_soundscapes),
            make_unlabelled_cache=partial(build_unlabelled_cache, cache_dir=self.folder, max_bytes=self._room),
        )
