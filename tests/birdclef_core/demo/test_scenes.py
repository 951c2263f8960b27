"""Songs follow their species' rule, and scenes render what was drawn: levels, distance, labels."""

from dataclasses import replace

import numpy as np
import pytest

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.demo.recordings import draw_recordings, recording_noise
from birdclef_core.demo.scenes import NOISES, Bird, Place, Scene, Song, render_noise, render_scene
from birdclef_core.demo.songs import SPECIES, Individual, Species, draw_song, render_song, song_length_s

PLACE = Place(noises=(("rain", 1.0),), echo_s=0.3, peak=0.5)
BY_CODE = {species.code: species for species in SPECIES}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def song(code: str, start_s: float, *, snr_db: float = 20.0, distance_m: float = 10.0) -> Song:
    individual = Individual(pitch=1.0, pace=1.0, extra_repeats=0, brightness=1.0)
    bird = Bird(species=BY_CODE[code], individual=individual, distance_m=distance_m, snr_db=snr_db)
    return Song(bird=bird, start_s=start_s, tones=draw_song(bird.species, individual, rng()))


def mean_pitch_hz(wave_T: np.ndarray) -> float:
    power_F = np.abs(np.fft.rfft(wave_T)) ** 2
    return float((power_F * np.fft.rfftfreq(len(wave_T), 1 / SAMPLE_RATE_HZ)).sum() / power_F.sum())


def test_species_are_told_apart_from_real_ones() -> None:
    codes = [species.code for species in SPECIES]
    assert len(set(codes)) == len(codes) == 14
    assert sum(species.target for species in SPECIES) == 8
    assert all("_" in code for code in codes), "eBird codes have no underscore"
    assert all(species.common_name.startswith("Synthetic ") for species in SPECIES)


@pytest.mark.parametrize("species", SPECIES, ids=lambda species: species.code)
def test_songs_keep_to_the_pitch_range_of_their_rule(species: Species) -> None:
    individual = Individual.draw(rng(1))
    tones = draw_song(species, individual, rng(2))
    song_S = render_song(tones, individual.brightness)
    assert abs(len(song_S) / SAMPLE_RATE_HZ - song_length_s(tones)) < 0.01
    assert 0.1 < np.abs(song_S).max() < 3.0
    assert 0.3 < song_length_s(tones) < 3.5
    highest = max(max(tone.harmonics, 1 + tone.second_voice) * (1 + max(tone.arch, 0)) for tone in tones)
    low_hz = 0.8 * min(min(tone.start_hz, tone.end_hz) for tone in tones)
    high_hz = 1.2 * highest * max(max(tone.start_hz, tone.end_hz) for tone in tones)
    power_F = np.abs(np.fft.rfft(song_S)) ** 2
    frequency_hz_F = np.fft.rfftfreq(len(song_S), 1 / SAMPLE_RATE_HZ)
    inside = power_F[(frequency_hz_F > low_hz) & (frequency_hz_F < high_hz)].sum() / power_F.sum()
    assert inside > 0.98


def test_individuals_differ_and_songs_of_one_individual_vary() -> None:
    species = BY_CODE["syn_thrus1"]
    low, high = Individual.draw(rng(1)), replace(Individual.draw(rng(1)), pitch=1.3)
    assert draw_song(species, low, rng(3)) != draw_song(species, low, rng(4))
    lower, higher = draw_song(species, low, rng(3)), draw_song(species, high, rng(3))
    assert higher[0].start_hz / lower[0].start_hz == pytest.approx(1.3 / low.pitch)


def test_a_song_stands_above_the_background_by_its_snr() -> None:
    scene = Scene(duration_s=6.0, place=PLACE, songs=(song("syn_wren1", 3.0, snr_db=12.0),))
    wave_T = render_scene(scene, rng())
    sung = slice(round(3.05 * SAMPLE_RATE_HZ), round((scene.songs[0].end_s - 0.05) * SAMPLE_RATE_HZ))
    ratio_db = 10 * np.log10(np.square(wave_T[sung]).mean() / np.square(wave_T[: 2 * SAMPLE_RATE_HZ]).mean())
    assert ratio_db == pytest.approx(12.0, abs=1.5)
    assert np.abs(wave_T).max() == pytest.approx(PLACE.peak)


def test_distance_is_a_low_pass() -> None:
    near, far = (
        render_scene(
            Scene(duration_s=3.0, place=PLACE, songs=(song("syn_crow1", 0.5, snr_db=60.0, distance_m=distance_m),)), rng()
        )
        for distance_m in (5.0, 60.0)
    )
    assert mean_pitch_hz(far) < 0.9 * mean_pitch_hz(near)


def test_an_echo_outlasts_the_song() -> None:
    one = song("syn_wren1", 0.2, snr_db=60.0, distance_m=60.0)
    dry, wet = (
        render_scene(Scene(duration_s=4.0, place=replace(PLACE, echo_s=echo_s), songs=(one,)), rng()) for echo_s in (0.05, 0.9)
    )
    after = slice(round((one.end_s + 0.1) * SAMPLE_RATE_HZ), round((one.end_s + 0.3) * SAMPLE_RATE_HZ))
    assert np.square(wet[after]).mean() > 10 * np.square(dry[after]).mean()


def test_songs_are_labelled_where_they_are_heard() -> None:
    first, second = song("syn_tinam1", 3.0), song("syn_crow1", 4.9)
    scene = Scene(duration_s=10.0, place=PLACE, songs=(first, second))
    assert first.end_s < 5 < second.end_s
    assert scene.species_between(0, 5) == ["syn_tinam1"], "a tenth of a second of the crow does not count"
    assert scene.species_between(5, 10) == ["syn_crow1"]
    assert scene.species_between(0, 10) == ["syn_crow1", "syn_tinam1"]
    assert scene.species_between(8, 10) == []
    assert replace(scene, duration_s=5.0).species_between(0, 10) == ["syn_tinam1"], "nothing is heard after the recording's end"


@pytest.mark.parametrize("kind", NOISES)
def test_noise_has_power_one(kind: str) -> None:
    noise_T = render_noise(((kind, 1.0),), 10 * SAMPLE_RATE_HZ, rng())
    assert noise_T.dtype == np.float32
    assert np.square(noise_T).mean() == pytest.approx(1.0, rel=1e-3)


def test_noise_has_no_seams() -> None:
    """Its blocks are joined about every four seconds: on average over many backgrounds, no moment is louder or fainter."""
    squares = [np.square(render_noise((("stream", 1.0),), 5 * SAMPLE_RATE_HZ, rng(seed))) for seed in range(30)]
    power = np.mean(squares, axis=0)[: 156 * 1024].reshape(-1, 1024).mean(axis=1)
    assert power.min() > 0.6 and power.max() < 1.5


def test_rendering_draws_nothing_but_noise() -> None:
    scene = draw_recordings(0)[5].scene
    assert np.array_equal(render_scene(scene, recording_noise(0, 5)), render_scene(scene, recording_noise(0, 5)))
    assert not np.array_equal(render_scene(scene, recording_noise(0, 5)), render_scene(scene, recording_noise(0, 6)))
