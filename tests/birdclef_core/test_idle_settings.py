"""Settings that count only with others are named as the configuration names them."""

from dataclasses import replace

from birdclef_core.config import flatten
from birdclef_core.idle_settings import DEPENDENCES, set_on_purpose
from birdclef_core.recipes import RECIPES, predictions, sed_v2s
from birdclef_core.teacher_config import TeacherConfig


def test_every_name_is_one_of_a_stage():
    names = {name for name, _ in flatten(sed_v2s().stages[0])}
    for item in DEPENDENCES:
        assert all(any(item.has(name) for name in names) for item in DEPENDENCES), item.settings
        for setting in item.settings:
            assert setting in names or any(name.startswith(setting) for name in names if setting.endswith(".")), setting


def test_what_comes_with_the_project_sets_nothing_that_does_not_count():
    stages = [stage for recipe in RECIPES.values() for stage in recipe().stages]
    stages += [
        predictions("a", of="b", on="recordings", window_s=5.0),
        predictions("a", of="encoder:timm", on="recordings", window_s=5.0),
    ]
    assert all(item.counts(stage) for stage in stages for _, _, item in set_on_purpose(stage))


def test_only_other_values_than_the_defaults_are_set_on_purpose():
    stage = sed_v2s().stages[0]
    assert list(set_on_purpose(stage)) == []
    changed = replace(stage, focal_gamma=1.5, teacher=TeacherConfig(power=2.0), label_smoothing=0.2)
    assert {(name, value) for name, value, _ in set_on_purpose(changed)} == {("focal_gamma", 1.5), ("teacher.power", 2.0)}
