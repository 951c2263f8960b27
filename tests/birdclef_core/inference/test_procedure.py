"""The places of windows in spectrograms and feature maps are those of the 2023 solution, and sensible for any other settings."""

import pytest

from birdclef_core.errors import InputError
from birdclef_core.inference.procedure import DEFAULT, PROCEDURES, SOLUTION_2023, Procedure, get_procedure
from birdclef_core.recipes import RECIPES

FRAMES = {"sed_v2s": 768, "sed_b3ns": 599, "sed_seresnext26t": 511}
CROPS = {"cnn_v2s": (250, 750), "cnn_b3ns": (150, 450), "cnn_resnet34d": (128, 384), "cnn_b0ns": (128, 384)}


@pytest.mark.parametrize(
    ("segments", "first", "last", "shift"),
    [(24, 6, 18, 3), (19, 4, 14, 3), (16, 4, 12, 2)],
    ids=FRAMES,
)
def test_a_sed_reads_the_segments_of_the_2023_solution(segments, first, last, shift):
    assert SOLUTION_2023.segments(segments) == (first, last)
    assert SOLUTION_2023.shift(segments) == shift


@pytest.mark.parametrize(("name", "crop"), CROPS.items())
def test_a_cnn_sees_the_frames_of_the_2023_solution(name, crop):
    hop = RECIPES[name]().model.spectrogram.hop_length
    assert SOLUTION_2023.frames(SOLUTION_2023.context // hop + 1, hop) == crop


def test_what_a_model_hears_of_the_2023_solution():
    assert (SOLUTION_2023.window, SOLUTION_2023.side, SOLUTION_2023.context, SOLUTION_2023.step) == (
        160_000,
        80_000,
        320_000,
        160_000,
    )


def test_without_context_everything_is_the_window():
    alone = Procedure(context_s=5.0)
    assert alone.frames(501, 320) == (0, 501)
    for count in (1, 2, 12, 19):
        assert alone.segments(count) == (0, count)


@pytest.mark.parametrize("context_s", [5.0, 6.0, 7.5, 10.0, 15.0, 30.0])
def test_every_window_has_frames_and_segments_within_its_context(context_s):
    procedure = Procedure(context_s=context_s)
    for hop in (320, 417, 535, 627, 1250):
        count = procedure.context // hop + 1
        first, last = procedure.frames(count, hop)
        assert 0 <= first < last <= count
        assert (last - first) * hop >= procedure.window - hop
    for count in range(1, 60):
        first, last = procedure.segments(count)
        assert 0 <= first < last <= count


@pytest.mark.parametrize(
    "changes",
    [
        {"context_s": 4.0},
        {"window_s": 0.0},
        {"step_s": 0.0},
        {"side_weight": 0.5},
        {"shift_share": 0.3},
        {"pool": "mean"},
        {"tail": "loop"},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(InputError):
        Procedure(**changes)


def test_a_procedure_is_named_by_the_user_and_identified_by_its_settings():
    assert get_procedure("2023") is SOLUTION_2023 and get_procedure("default") is DEFAULT
    assert len({procedure.fingerprint for procedure in PROCEDURES.values()}) == len(PROCEDURES)
    with pytest.raises(InputError, match="default, 2023"):
        get_procedure("2024")
