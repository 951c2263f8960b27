"""The settings of how training clips are varied: mixed with each other, with noise, and augmented one by one.

docs/deviations.md says where they differ from the 2023 solution.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from birdclef_core.config_rules import require, require_choice, require_probabilities, require_types

ColouredNoiseName = Literal["sed", "cnn"]
MaskFill = Literal["zero", "mean"]
MAX_DB = 200
"""Largest gain and ratio in decibels: factors of many more would be no numbers."""


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Settings of mixing the clips of a batch with each other."""

    wave_prob: float = 0.0
    """Probability that a batch is mixed as waveforms, with labels joined by OR."""
    wave_double_prob: float = 1.0
    """Probability that two clips are mixed and not three, if a batch is mixed as waveforms."""
    spectrogram_prob: float = 0.0
    """Probability that a batch is mixed as spectrograms, with a coefficient per clip for spectrograms and labels."""
    spectrogram_beta: float = 2.0
    """The b of Beta(b, b), from which the coefficient is drawn."""

    def __post_init__(self) -> None:
        require_types(self)
        require_probabilities(self)
        require(self.spectrogram_beta > 0, "spectrogram_beta > 0", spectrogram_beta=self.spectrogram_beta)


@dataclass(frozen=True, kw_only=True)
class NoiseGroup:
    """Settings of one kind of background noise, added at a signal-to-noise ratio that is drawn for each clip."""

    source: str = "*"
    """Sub-folder of `background_noise/`; `*`, or a sub-folder that does not exist, stands for all noise files."""
    prob: float = 0.5
    """Probability that a clip gets noise of this kind."""
    snr_db_min: float = 3.0
    """Lowest signal-to-noise ratio in decibels: the loudest noise."""
    snr_db_max: float = 30.0
    """Highest signal-to-noise ratio in decibels: the faintest noise."""

    def __post_init__(self) -> None:
        require_types(self)
        require_probabilities(self)
        require(
            -MAX_DB <= self.snr_db_min <= self.snr_db_max <= MAX_DB,
            f"-{MAX_DB} <= snr_db_min <= snr_db_max <= {MAX_DB}",
            snr_db_min=self.snr_db_min,
            snr_db_max=self.snr_db_max,
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of the augmentation of single clips.

    Before mixing: coloured noise, then background noise (`NoiseGroup`), then gain. After it: time shift, then the spectrogram is shifted in
    pitch, masked and tilted. A CNN gets time shift and everything on spectrograms in each of its pieces of five seconds by itself.
    """

    coloured_noise_prob: float = 0.24
    """Probability that a clip gets white or pink noise."""
    coloured_noise: ColouredNoiseName = "sed"
    """The kinds of that noise, and their levels, as in the SED or the CNN recipes of the 2023 solution (`audio/coloured_noise.py`)."""
    gain_prob: float = 0.2
    """Probability of one gain for the whole clip."""
    gain_db: float = 12.0
    """Largest gain in decibels: it is drawn from -gain_db to +gain_db."""
    gain_transition_prob: float = 0.0
    """Probability of a change from one gain to another within the clip, instead of one gain. Both are of the range of `gain_db`."""
    gain_transition_s_min: float = 0.2
    """Shortest time, in seconds, that a change of gain takes. It may begin before the clip and end after it."""
    gain_transition_s_max: float = 6.0
    """Longest time that it takes."""
    time_shift_prob: float = 0.4
    """Probability that a clip is rolled by a random share of its length, after mixing."""
    pitch_shift_prob: float = 0.4
    """Probability that the mel spectrogram is shifted in pitch."""
    pitch_shift_semitones: float = 4.0
    """Largest shift in semitones, up or down."""
    time_masks: int = 1
    """Number of time masks of each spectrogram."""
    time_mask_frames: int = 60
    """A time mask has fewer frames than this, and at most half of all frames."""
    frequency_mask_prob: float = 0.5
    """Probability that a spectrogram gets frequency masks."""
    frequency_masks: int = 1
    """Number of frequency masks of a spectrogram that gets any."""
    frequency_mask_bins: int = 24
    """A frequency mask has fewer mel bins than this, and at most half of all bins."""
    mask_fill: MaskFill = "zero"
    """What a masked place of the scaled spectrogram becomes: 0, or the mean of the spectrogram."""
    tilt_prob: float = 0.5
    """Probability that the scaled spectrogram is multiplied by a factor that falls with frequency."""
    tilt_depth: float = 0.5
    """Largest share that the highest bins lose: the factor falls from 1 at the lowest bin to 1 - depth, which it reaches at a random place
    in the upper half of the bins."""
    draw_per_batch: bool = False
    """Whether frequency masks and tilt are drawn for a batch as a whole, and not for each spectrogram: whether there are masks, and one
    tilt for all."""

    def __post_init__(self) -> None:
        require_types(self)
        require_probabilities(self)
        require_choice("coloured_noise", self.coloured_noise, get_args(ColouredNoiseName))
        require_choice("mask_fill", self.mask_fill, get_args(MaskFill))
        for name in (
            "gain_db",
            "pitch_shift_semitones",
            "time_masks",
            "time_mask_frames",
            "frequency_masks",
            "frequency_mask_bins",
        ):
            require(getattr(self, name) >= 0, f"{name} >= 0", **{name: getattr(self, name)})
        require(self.gain_db <= MAX_DB, f"gain_db <= {MAX_DB}", gain_db=self.gain_db)
        require(0 <= self.tilt_depth <= 1, "0 <= tilt_depth <= 1", tilt_depth=self.tilt_depth)
        require(
            self.gain_prob + self.gain_transition_prob <= 1,
            "gain_prob + gain_transition_prob <= 1",
            gain_prob=self.gain_prob,
            gain_transition_prob=self.gain_transition_prob,
        )
        require(
            0 < self.gain_transition_s_min <= self.gain_transition_s_max,
            "0 < gain_transition_s_min <= gain_transition_s_max",
            gain_transition_s_min=self.gain_transition_s_min,
            gain_transition_s_max=self.gain_transition_s_max,
        )
