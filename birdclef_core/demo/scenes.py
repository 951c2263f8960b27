"""Draws and renders the demo set's sound scenes: who sings when, how far away, with which echo and background noise.

A scene is drawn first and rendered afterwards, so that its labels are exact by construction.
Shapes: T samples of a scene, S samples of a song, K blocks of noise, L samples of a block, F frequencies of a spectrum.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.demo.songs import Individual, Samples, Species, Syllable, draw_song, render_song, song_length_s

ABSORPTION_DB_PER_M_KHZ = 0.025
"""Loss of high frequencies by leaves and air, in addition to the loss of level: dB per metre and kHz."""
ECHO_TAIL_S = 0.5
SHORTEST_AUDIBLE_S = 0.15
"""A song of which less than this lies within a recording or window does not count as heard."""
_BLOCK = 1 << 17
_FADE = 1 << 12
_FFT_STEP = 1 << 13
"""Lengths of Fourier transforms are multiples of this, which keeps them fast."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """A kind of background: Gaussian noise within a band, with a slope, whose level rises and falls at a rate."""

    low_hz: float
    high_hz: float
    slope_db_per_octave: float
    swell_hz: float
    swell_db: float


NOISES = {
    "wind": Noise(low_hz=30, high_hz=500, slope_db_per_octave=-5, swell_hz=1.2, swell_db=5),
    "rain": Noise(low_hz=700, high_hz=9000, slope_db_per_octave=-3, swell_hz=120, swell_db=5),
    "stream": Noise(low_hz=200, high_hz=3000, slope_db_per_octave=-4, swell_hz=9, swell_db=2),
    "insects": Noise(low_hz=6300, high_hz=7400, slope_db_per_octave=0, swell_hz=30, swell_db=7),
}
PINK_FLOOR = 0.06


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place where a scene is recorded."""

    noises: tuple[tuple[str, float], ...]
    """Kinds of background noise, each with its share of the amplitude."""
    echo_s: float
    """Time in which the echo falls by 60 dB."""
    peak: float
    """Largest absolute value of a sample of the recording."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Place":
        kinds = rng.permutation(sorted(NOISES))[: rng.integers(1, 3)]
        return cls(
            noises=tuple((str(kind), float(rng.uniform(0.3, 1.0))) for kind in kinds),
            echo_s=float(rng.uniform(0.15, 0.9)),
            peak=float(rng.uniform(0.15, 0.9)),
        )


@dataclass(frozen=True, kw_only=True)
class Bird:
    """One individual in a scene."""

    species: Species
    individual: Individual
    distance_m: float
    snr_db: float
    """Ratio of the power of its songs to that of the background, in dB."""

    @classmethod
    def draw(cls, species: Species, individual: Individual, rng: np.random.Generator, fainter_db: float = 0.0) -> "Bird":
        """Draw a bird 5 to 60 m away. Its level falls by 5 dB with each doubling of the distance, plus or minus 3 dB, to at least 3 dB."""
        distance_m = 5 * 12 ** rng.uniform()
        snr_db = 25 - 5 * np.log2(distance_m / 5) + rng.uniform(-3, 3) - fainter_db
        return cls(species=species, individual=individual, distance_m=float(distance_m), snr_db=float(max(snr_db, 3.0)))


@dataclass(frozen=True, kw_only=True)
class Song:
    """One song in a scene."""

    bird: Bird
    start_s: float
    tones: tuple[Syllable, ...]

    @property
    def end_s(self) -> float:
        return self.start_s + song_length_s(self.tones)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything that can be heard in a recording."""

    duration_s: float
    place: Place
    songs: tuple[Song, ...]

    def species_between(self, start_s: float, end_s: float) -> list[str]:
        """Return the sorted codes of the species that can be heard between two times."""
        return sorted(
            {
                song.bird.species.code
                for song in self.songs
                if min(song.end_s, end_s, self.duration_s) - max(song.start_s, start_s) >= SHORTEST_AUDIBLE_S
            }
        )


def draw_songs(
    bird: Bird, start_s: float, end_s: float, pause_s: tuple[float, float], rng: np.random.Generator
) -> tuple[Song, ...]:
    """Return a bird's songs, one after the other with pauses; the last may continue beyond the end."""
    songs = []
    while start_s < end_s - SHORTEST_AUDIBLE_S:
        song = Song(bird=bird, start_s=start_s, tones=draw_song(bird.species, bird.individual, rng))
        songs.append(song)
        start_s = song.end_s + float(rng.uniform(*pause_s))
    return tuple(songs)


def render_scene(scene: Scene, rng: np.random.Generator) -> Samples:
    """Return the recording (T,) in -1..1 at 32 kHz. `rng` draws only the noise and the echoes."""
    num_samples = round(scene.duration_s * SAMPLE_RATE_HZ)
    scene_T = render_noise(scene.place.noises, num_samples, rng)
    for song in scene.songs:
        start = round(song.start_s * SAMPLE_RATE_HZ)
        song_S = _as_heard(song, scene.place.echo_s, rng)[: num_samples - start]
        scene_T[start : start + len(song_S)] += song_S
    return scene_T * np.float32(scene.place.peak / np.abs(scene_T).max())


def _as_heard(song: Song, echo_s: float, rng: np.random.Generator) -> Samples:
    """Return a song (S,) as it is heard: filtered by the distance, with its echo, at its level above a background of power 1."""
    dry_S = render_song(song.tones, song.bird.individual.brightness)
    num_samples = len(dry_S) + round(ECHO_TAIL_S * SAMPLE_RATE_HZ)
    fft_size = -(-num_samples // _FFT_STEP) * _FFT_STEP
    bin_khz = SAMPLE_RATE_HZ / fft_size / 1000
    loss_db_per_bin = ABSORPTION_DB_PER_M_KHZ * song.bird.distance_m * bin_khz
    low_pass_F = np.exp(np.arange(fft_size // 2 + 1, dtype=np.float32) * np.float32(-loss_db_per_bin * np.log(10) / 20))
    room_F = np.fft.rfft(_room(song.bird.distance_m, echo_s, rng), fft_size)
    wet_S = np.fft.irfft(np.fft.rfft(dry_S, fft_size) * room_F * low_pass_F, fft_size)[:num_samples].astype(
        np.float32, copy=False
    )
    power = np.square(wet_S[: len(dry_S)]).mean()
    return wet_S * np.float32(10 ** (song.bird.snr_db / 20) / np.sqrt(power))


def _room(distance_m: float, echo_s: float, rng: np.random.Generator) -> Samples:
    """Return the impulse response of the place: the direct sound, then decaying noise, whose share grows with the distance."""
    num_samples = round(ECHO_TAIL_S * SAMPLE_RATE_HZ)
    decay = np.exp(np.arange(num_samples, dtype=np.float32) * np.float32(-np.log(1000) / (echo_s * SAMPLE_RATE_HZ)))
    echo = rng.standard_normal(num_samples, dtype=np.float32) * decay
    echo *= np.float32(np.sqrt(distance_m / 60) * 0.6 / np.linalg.norm(echo))
    echo[0] = 1.0
    return echo


def render_noise(noises: tuple[tuple[str, float], ...], num_samples: int, rng: np.random.Generator) -> Samples:
    """Return a background (T,) of mean power 1: a mixture of kinds of noise in their shares."""
    total_T = np.zeros(num_samples, dtype=np.float32)
    for kind, share in noises:
        noise_T = _coloured_noise(kind, num_samples, rng) * _swell(NOISES[kind], num_samples, rng)
        total_T += np.float32(share / np.sqrt(np.square(noise_T).mean())) * noise_T
    return total_T / np.sqrt(np.square(total_T).mean())


def _coloured_noise(kind: str, num_samples: int, rng: np.random.Generator) -> Samples:
    """Return coloured Gaussian noise (T,). Blocks are cross-faded, so that one filter is enough for every length."""
    step = _BLOCK - _FADE
    num_blocks = -(-(num_samples + _FADE) // step)  # the first fade-in is cut off: a recording does not begin in silence
    # A sum over many frequencies is Gaussian whatever the distribution of each; uniform numbers are the cheapest.
    spectrum_KF = (rng.random((num_blocks, _BLOCK // 2 + 1, 2), dtype=np.float32) - np.float32(0.5)).view(np.complex64)[..., 0]
    block_KL = np.fft.irfft(spectrum_KF * _colour(kind), _BLOCK).astype(np.float32, copy=False)
    fade = np.sin(np.linspace(0, np.pi / 2, _FADE, dtype=np.float32))
    block_KL[:, :_FADE] *= fade
    block_KL[:, -_FADE:] *= fade[::-1]
    noise_T = np.zeros(num_blocks * step + _FADE, dtype=np.float32)
    for index, block_L in enumerate(block_KL):
        noise_T[index * step : index * step + _BLOCK] += block_L
    return noise_T[_FADE : _FADE + num_samples]


@cache
def _colour(kind: str) -> Samples:
    """Return the amplitude over frequency (F,) of one kind of noise: its band with steep edges, plus pink noise."""
    noise = NOISES[kind]
    frequency_hz_F = np.fft.rfftfreq(_BLOCK, 1 / SAMPLE_RATE_HZ) + 1.0
    skirts_F = 1 / np.sqrt((1 + (noise.low_hz / frequency_hz_F) ** 16) * (1 + (frequency_hz_F / noise.high_hz) ** 16))
    slope_F = (frequency_hz_F / noise.low_hz) ** (noise.slope_db_per_octave / 6.02)
    band_F = skirts_F * slope_F / (skirts_F * slope_F).max()
    floor_F = PINK_FLOOR * np.minimum(1.0, (100 / frequency_hz_F) ** 0.5)
    return (band_F + floor_F).astype(np.float32)


def _swell(noise: Noise, num_samples: int, rng: np.random.Generator) -> Samples:
    """Return the gain over time (T,): random values at the rate of the noise, joined by straight lines."""
    num_points = int(num_samples / SAMPLE_RATE_HZ * noise.swell_hz) + 2
    gain = 10 ** (noise.swell_db * rng.standard_normal(num_points) / 20)
    return np.interp(np.linspace(0, num_points - 1, num_samples), np.arange(num_points), gain).astype(np.float32)
