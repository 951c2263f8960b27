"""What candidates cost is measured, and shared where they share it."""

from dataclasses import replace

import pytest
from made_up_detector import loudness_detector

from birdclef_core.ensemble.costs import CandidateCost, Costs, measure, per_file_s
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.inference.runtime import WINDOWS_AT_ONCE


def test_candidates_with_the_same_decibels_share_them():
    costs = Costs(
        (
            CandidateCost(network_ms=10.0, spectrogram_ms=5.0, decibels="a"),
            CandidateCost(network_ms=20.0, spectrogram_ms=5.0, decibels="a"),
            CandidateCost(network_ms=40.0, spectrogram_ms=7.0, decibels="b"),
        )
    )
    assert costs([0]) == 15 and costs([1, 0]) == 35 and costs([0, 1, 2]) == 82 and costs([]) == 0
    assert costs.added([1, 2, 0]) == (25, 47, 10)
    assert sum(costs.added([1, 2, 0])) == costs([1, 2, 0])


def test_several_networks_of_one_model_share_their_decibels():
    assert Costs((CandidateCost(network_ms=10.0, spectrogram_ms=5.0, decibels="a").times(3),))([0]) == 35


def test_a_measurement_has_a_spectrogram_and_a_network():
    member = loudness_detector().members[0]
    cost = measure(member, DEFAULT)
    assert cost.spectrogram_ms > 0 and cost.network_ms >= 0
    assert member.runtime.shapes and {shape[0] for shape in member.runtime.shapes} == {WINDOWS_AT_ONCE}
    other = loudness_detector(deltas=True).members[0]
    assert measure(other, DEFAULT).decibels == cost.decibels, "deltas are made of the same decibels"
    config = replace(member.config, spectrogram=replace(member.config.spectrogram, num_mels=24))
    assert measure(replace(member, config=config), DEFAULT).decibels != cost.decibels


def test_a_file_is_ten_minutes():
    assert per_file_s(100.0, DEFAULT) == pytest.approx(12.0)
    assert per_file_s(100.0, Procedure(step_s=2.5)) == pytest.approx(24.0)
