"""Settings of augmentation, mixing and noise refuse what cannot be, and say the rule and the values."""

import pytest

from birdclef_core.augment_config import AugmentConfig, MixingConfig, NoiseGroup
from birdclef_core.errors import InputError


@pytest.mark.parametrize(
    ("kind", "values", "rule"),
    [
        (MixingConfig, {"wave_prob": 1.5}, r"0 <= wave_prob <= 1 must hold, but got wave_prob=1\.5"),
        (MixingConfig, {"spectrogram_beta": 0.0}, "spectrogram_beta > 0"),
        (NoiseGroup, {"prob": -0.1}, "0 <= prob <= 1"),
        (NoiseGroup, {"snr_db_min": 5.0, "snr_db_max": 4.0}, "snr_db_min <= snr_db_max"),
        (AugmentConfig, {"coloured_noise": "brown"}, "coloured_noise must be one of sed, cnn, but got 'brown'"),
        (AugmentConfig, {"gain_prob": 0.6, "gain_transition_prob": 0.5}, r"gain_prob \+ gain_transition_prob <= 1"),
        (AugmentConfig, {"gain_transition_s_min": 7.0}, "0 < gain_transition_s_min <= gain_transition_s_max"),
        (AugmentConfig, {"gain_transition_s_min": 0.0}, "0 < gain_transition_s_min <= gain_transition_s_max"),
        (AugmentConfig, {"gain_db": -1.0}, "gain_db >= 0"),
        (AugmentConfig, {"time_mask_frames": -1}, "time_mask_frames >= 0"),
        (AugmentConfig, {"frequency_mask_prob": 2.0}, "0 <= frequency_mask_prob <= 1"),
        (AugmentConfig, {"mask_fill": "noise"}, "mask_fill must be one of zero, mean, but got 'noise'"),
        (AugmentConfig, {"tilt_depth": 1.2}, "0 <= tilt_depth <= 1"),
    ],
)
def test_errors_name_the_rule_and_the_values(kind, values, rule):
    with pytest.raises(InputError, match=rule):
        kind(**values)
