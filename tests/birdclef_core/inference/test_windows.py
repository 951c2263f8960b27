"""Windows lie at exact samples, cover every sample, and are the same for sound at hand and for sound that streams past."""

import numpy as np
import pytest

from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023, Procedure
from birdclef_core.inference.windows import Tape, heard, num_windows, stream_windows, window

RATE = 32_000
SMALL = Procedure(window_s=0.5, context_s=1.0, step_s=0.5)


class Held:
    """A sound at hand."""

    def __init__(self, wave_T):
        self.wave_T = wave_T

    def read(self, start, end):
        assert 0 <= start < end <= len(self.wave_T)
        return self.wave_T[start:end]


def counting(num_samples: int) -> np.ndarray:
    """A sound whose samples are their numbers, from 1."""
    return np.arange(1, num_samples + 1, dtype=np.float32)


def blocks(wave_T, size):
    return (wave_T[place : place + size] for place in range(0, len(wave_T), size))


@pytest.mark.parametrize(
    ("seconds", "ends_s"),
    [
        (0.01, [0.01]),
        (4.0, [4.0]),
        (5.0, [5.0]),
        (5.05, [5.0]),
        (5.1, [5.0, 5.1]),
        (12.3, [5.0, 10.0, 12.3]),
        (15.0, [5.0, 10.0, 15.0]),
    ],
)
def test_every_sample_is_in_a_window_but_for_a_rest_below_a_tenth_of_a_second(seconds, ends_s):
    count = round(seconds * RATE)
    found = [window(number, count, DEFAULT) for number in range(num_windows(count, DEFAULT))]
    assert [item.end_s for item in found] == ends_s
    assert [item.start_s for item in found] == [5.0 * number for number in range(len(ends_s))]
    assert [item for item, _ in stream_windows(blocks(counting(count), 70_001), DEFAULT)] == found


def test_an_empty_stream_has_no_window():
    assert list(stream_windows([], DEFAULT)) == []


def test_the_times_of_a_file_of_15_hours_are_exact():
    count = 15 * 3600 * RATE
    last = window(num_windows(count, DEFAULT) - 1, count, DEFAULT)
    assert (last.start_s, last.end_s) == (53_995.0, 54_000.0)
    odd = Procedure(step_s=0.7)
    assert window(77_000, count, odd).start == 77_000 * 22_400


def test_a_window_is_heard_with_what_is_around_it_and_silence_outside_of_the_file():
    wave_T = counting(round(1.75 * RATE))
    first, second, third, rest = (heard(Held(wave_T), k * SMALL.step, len(wave_T), SMALL) for k in range(4))
    assert len(first) == RATE
    assert not first[:8_000].any() and np.array_equal(first[8_000:], wave_T[:24_000])
    assert np.array_equal(second, wave_T[8_000:40_000])
    assert np.array_equal(third, wave_T[24_000:56_000])
    assert np.array_equal(rest[:16_000], wave_T[40_000:]) and not rest[16_000:].any()


def test_in_the_2023_solution_silence_follows_the_last_whole_window():
    procedure = Procedure(window_s=0.5, context_s=1.0, step_s=0.5, tail="silence")
    wave_T = counting(round(1.75 * RATE))
    before, last, rest = (heard(Held(wave_T), k * SMALL.step, len(wave_T), procedure) for k in (1, 2, 3))
    assert before.all()
    assert np.array_equal(last[:24_000], wave_T[24_000:48_000]) and not last[24_000:].any()
    assert np.array_equal(rest[:16_000], wave_T[40_000:]) and not rest[16_000:].any()


def test_a_file_of_one_window_is_silent_on_both_sides():
    """The 2023 solution gave it its own beginning as what follows."""
    wave_T = counting(5 * RATE)
    ((_, only),) = stream_windows([wave_T], SOLUTION_2023)
    assert not only[:80_000].any() and not only[240_000:].any()
    assert np.array_equal(only[80_000:240_000], wave_T)


@pytest.mark.parametrize("size", [1_000, 16_000, 48_001, 10**6])
@pytest.mark.parametrize("tail", ["audio", "silence"])
@pytest.mark.parametrize("step_s", [0.2, 0.5, 1.1])
def test_a_stream_gives_the_windows_of_the_sound_at_hand(size, tail, step_s):
    procedure = Procedure(window_s=0.5, context_s=1.2, step_s=step_s, tail=tail)
    for seconds in (0.3, 0.5, 2.0, 3.33):
        wave_T = counting(round(seconds * RATE))
        expected = num_windows(len(wave_T), procedure)
        streamed = list(stream_windows(blocks(wave_T, size), procedure))
        assert len(streamed) == expected
        for number, (place, wave) in enumerate(streamed):
            assert place == window(number, len(wave_T), procedure)
            assert np.array_equal(wave, heard(Held(wave_T), number * procedure.step, len(wave_T), procedure))


def test_a_stream_can_be_continued_at_any_window():
    wave_T = counting(4 * RATE)
    whole = list(stream_windows(blocks(wave_T, 5_000), SMALL))
    for first in range(len(whole) + 1):
        rest = list(stream_windows(blocks(wave_T, 5_000), SMALL, first=first))
        assert [place for place, _ in rest] == [place for place, _ in whole[first:]]
        assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(rest, whole[first:], strict=True))


def test_a_stream_keeps_only_what_is_still_needed():
    kept = []

    def endless():
        for _ in range(200):
            kept.append(sum(len(piece) for _, piece in tape._held))
            yield np.ones(10_000, dtype=np.float32)

    tape = Tape(endless())
    for number in range(100):
        tape.forget(number * 16_000)
        tape.reach(number * 16_000 + 32_000)
    assert max(kept) <= 50_000
