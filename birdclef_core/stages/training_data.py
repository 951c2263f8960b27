"""What stages are trained on: a dataset and the caches of its decoded audio."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from birdclef_core.config import StageConfig
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.unlabelled import Unlabelled
from birdclef_core.data.wave_cache import WaveCache
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace


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
