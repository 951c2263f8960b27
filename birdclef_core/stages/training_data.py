"""What stages are trained on: a dataset and the caches of its decoded audio."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ, StageConfig
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.unlabelled import Unlabelled
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace

SHOWN_S = 30.0
"""Longest part of a recording that a report shows, in seconds."""
_SILENT_S = 5.0
"""Silence that is shown of a recording that could not be decoded, in seconds."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """Recordings, and the caches of their decoded audio."""

    dataset: Dataset
    cache: WaveCache
    soundscape_cache: WaveCache | None = None
    """Cache of the labelled soundscapes; None: the dataset has none."""
    training_soundscape_cache: WaveCache | None = None
    """Cache of the labelled soundscapes that are for training; None: the dataset has none."""
    make_unlabelled_cache: Callable[[Unlabelled], WaveCache] | None = None
    """Decodes soundscapes without labels, if that has not been done."""

    @cached_property
    def unlabelled_cache(self) -> WaveCache:
        """Cache of the soundscapes without labels, which are decoded when a stage first needs them. Raises DataError where there are none."""
        if self.make_unlabelled_cache is None or self.dataset.unlabelled is None:
            raise DataError(f"{self.dataset.root} must have soundscapes without labels, but has none.")
        return self.make_unlabelled_cache(self.dataset.unlabelled)

    def of_fold(self, fold: int | None) -> "TrainingData":
        """Return the same data with another fold as validation; None: as it is. Raises as `Dataset.of_fold` does."""
        return self if fold is None else replace(self, dataset=self.dataset.of_fold(fold))

    def label_space(self, config: StageConfig) -> LabelSpace:
        return self.dataset.all_species if config.label_space == "all" else self.dataset.target_species

    def beginning(self, row: int) -> NDArray[np.int16]:
        """Return the first 30 s (T,) of a recording, or all of a shorter one; silence for one that could not be decoded."""
        num_samples = min(self.cache.num_samples(row), round(SHOWN_S * SAMPLE_RATE_HZ))
        if not num_samples:
            return np.zeros(round(_SILENT_S * SAMPLE_RATE_HZ), np.int16)
        return np.array(self.cache.read(row, 0, num_samples))
