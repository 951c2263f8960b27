"""A bundle that differs from what it was made of is refused, by the rule of its precision."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_bundles import examples
from made_up_detector import loudness_detector

from birdclef_core.inference.bundle.examples import no_examples
from birdclef_core.inference.bundle.parity import compare
from birdclef_core.inference.procedure import SOLUTION_2023


class Shifted:
    """A network whose logits are those of another plus something that differs from window to window."""

    def __init__(self, runtime, by: float) -> None:
        self._runtime, self._by = runtime, by

    def __call__(self, mel_BKFN):
        outputs = self._runtime(mel_BKFN)
        return outputs._replace(segments_BSC=outputs.segments_BSC + self._by * mel_BKFN.mean(dim=(1, 2, 3))[:, None, None].sin())


def pair(by: float):
    original = loudness_detector(procedure=SOLUTION_2023)
    (member,) = original.members
    return original, replace(original, members=(replace(member, runtime=Shifted(member.runtime, by)),))


def parity_of(by: float, precision: str, made=None):
    return compare(*pair(by), ["networks/1.xml"], made or examples(), precision, "a CPU")


def ranked(num_windows: int = 64):
    """Examples of which one species is in the louder half of the windows, so that its cmAP is 1."""
    made = examples(num_windows)
    level_R = np.abs(made.wave_RT).mean(axis=1)
    truth_RC = np.zeros_like(made.truth_RC)
    truth_RC[level_R > np.median(level_R), 0] = 1
    return replace(made, truth_RC=truth_RC)


def test_the_same_network_breaks_no_rule():
    parity = parity_of(0.0, "float32")
    assert parity.largest_probability_difference == 0 == parity.networks[0].largest_logit_difference == parity.cmap_difference
    assert (parity.num_windows, parity.num_species, parity.broken_rules) == (64, 3, ())


def test_float32_must_give_the_same_probabilities_and_cmap():
    assert parity_of(1e-4, "float32").broken_rules == ()
    (rule,) = parity_of(1e-3, "float32").broken_rules
    assert "no probability may differ by more than 0.0001, but one does by" in rule
    worse = parity_of(1e4, "float32", ranked())
    assert worse.cmap_difference < 0 and any(
        "the cmAP must be the same, but it differs by -0." in rule for rule in worse.broken_rules
    )


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_precisions_may_differ_as_long_as_the_cmap_does_not(precision):
    near = parity_of(1e-2, precision, ranked())
    assert near.largest_probability_difference > 1e-4 and near.broken_rules == ()
    (rule,) = parity_of(1e4, precision, ranked()).broken_rules
    assert f"in {precision} the cmAP may" in rule and "differs by -0." in rule


def test_a_better_cmap_is_no_fault_of_int8_but_of_bfloat16():
    """What was made of a bad network is better here."""
    good, bad = pair(1e4)
    scores = {name: compare(bad, good, ["n"], ranked(), name, "a CPU") for name in ("int8", "bfloat16")}
    assert scores["int8"].cmap_difference > 0.005
    assert scores["int8"].broken_rules == () and len(scores["bfloat16"].broken_rules) == 1


def test_too_little_sound_is_a_broken_rule():
    (rule,) = parity_of(0.0, "float32", examples(63)).broken_rules
    assert rule == "there must be 64 windows of labelled sound, but there are 63"
    unlabelled = replace(examples(), truth_RC=np.zeros_like(examples().truth_RC))
    (rule,) = parity_of(0.0, "float32", unlabelled).broken_rules
    assert "some window must have a species" in rule


def test_without_any_sound_nothing_is_compared_and_it_says_why():
    parity = parity_of(0.0, "float32", no_examples(SOLUTION_2023, "The recordings are gone."))
    assert (parity.num_windows, parity.largest_probability_difference, parity.cmap, parity.networks) == (0, None, None, ())
    assert parity.broken_rules == ("there must be 64 windows of labelled sound, but there are none (The recordings are gone)",)
