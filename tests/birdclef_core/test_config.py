"""Configuration refuses what cannot be, and says the rule and the values."""

import pytest

from birdclef_core.config import MixingConfig, SpectrogramConfig, evolve
from birdclef_core.errors import InputError
from birdclef_core.stages.recipes import sed_v2s


def test_errors_name_the_rule_and_the_value():
    with pytest.raises(InputError, match=r"0 <= wave_prob <= 1 must hold, but got wave_prob=1\.5"):
        MixingConfig(wave_prob=1.5)
    with pytest.raises(InputError, match="f_min_hz < f_max_hz"):
        SpectrogramConfig(f_min_hz=9000.0, f_max_hz=8000.0)


def test_evolve_reaches_nested_fields_and_leaves_the_original():
    stage = sed_v2s().stages[0]
    changed = evolve(stage, {"mixing.wave_prob": 0.25, "epochs": 3})
    assert (changed.mixing.wave_prob, changed.epochs) == (0.25, 3)
    assert stage.epochs == 70


def test_evolve_takes_an_int_for_a_float_and_nothing_else():
    stage = sed_v2s().stages[0]
    assert evolve(stage, {"clip_s": 5}).clip_s == 5.0
    with pytest.raises(InputError, match="takes a float"):
        evolve(stage, {"clip_s": "long"})
    with pytest.raises(InputError, match="takes a int"):
        evolve(stage, {"epochs": 2.5})


def test_evolve_names_the_fields_there_are():
    with pytest.raises(InputError, match=r"no field 'epoch'; it has .*epochs"):
        evolve(sed_v2s().stages[0], {"epoch": 3})
