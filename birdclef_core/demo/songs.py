"""Defines the demo set's birds and draws and renders their songs. Everything here is synthetic.

Each of the fourteen made-up species is a documented rule of syllables, rhythm and pitch, from which its songs are drawn.
Shapes: S samples of a tone or a song.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ

Samples = NDArray[np.float32]

HIGHEST_HZ = 15_000.0
HARMONIC_DROP_DB = 4.0


@dataclass(frozen=True, kw_only=True)
class Syllable:
    """A tone whose pitch glides from start to end in equal ratios, and the silence after it."""

    start_hz: float
    end_hz: float
    duration_s: float
    gap_s: float = 0.03
    arch: float = 0.0
    """How far the pitch deviates from the glide in the middle: 0.3 is 30 % higher, -0.3 is 30 % lower."""
    harmonics: int = 1
    """Number of tones at 1, 2, ... times the pitch, each weaker than the one before; more make a harsh or nasal call."""
    second_voice: float = 0.0
    """Pitch ratio of a second voice that glides in the other direction, as the two sides of a syrinx can; 0: none."""
    pulse_hz: float = 0.0
    """Pulses per second into which the tone is divided, for a buzz or a churr; 0: none."""

    @property
    def span_s(self) -> float:
        return self.duration_s + self.gap_s


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """Syllables that are sung in order and repeated."""

    syllables: tuple[Syllable, ...]
    repeats: tuple[int, int] = (1, 1)
    """Smallest and largest number of repeats."""
    pitch_step: float = 1.0
    """Ratio of the pitch of a repeat to that of the one before."""
    pace_step: float = 1.0
    """Ratio of the duration of a repeat to that of the one before; below 1 the phrase gets faster."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """A made-up species and the rule of its song."""

    word: str
    """The kind of bird whose voice it loosely resembles."""
    target: bool
    """Whether it is a target species; the other species are used for pretraining only."""
    song: tuple[Phrase, ...]

    @property
    def code(self) -> str:
        """The species code. It has an underscore, which no eBird code has, so that nobody mistakes it for a real species."""
        return f"syn_{self.word[:5]}1"

    @property
    def common_name(self) -> str:
        return f"Synthetic {self.word} 1"

    @property
    def scientific_name(self) -> str:
        return f"Avis synthetica {self.word}"


@dataclass(frozen=True, kw_only=True)
class Individual:
    """How one bird deviates from the rule of its species."""

    pitch: float
    pace: float
    extra_repeats: int
    brightness: float
    """Divides the drop in level from one harmonic to the next."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Individual":
        return cls(
            pitch=float(np.exp(rng.uniform(-0.08, 0.08))),
            pace=float(np.exp(rng.uniform(-0.15, 0.15))),
            extra_repeats=int(rng.integers(0, 2)),
            brightness=float(rng.uniform(0.7, 1.4)),
        )


def _tone(start_hz: float, end_hz: float, duration_s: float, gap_s: float = 0.03) -> Syllable:
    return Syllable(start_hz=start_hz, end_hz=end_hz, duration_s=duration_s, gap_s=gap_s)


def _phrase(*syllables: Syllable, repeats: tuple[int, int] = (1, 1), pitch_step: float = 1.0, pace_step: float = 1.0) -> Phrase:
    return Phrase(syllables=syllables, repeats=repeats, pitch_step=pitch_step, pace_step=pace_step)


_RISING_BUZZ = replace(_tone(3300, 4600, 0.65), pulse_hz=85)
_CROW_CALL = replace(_tone(760, 640, 0.30, 0.16), arch=0.12, harmonics=7)
_DOVE_COO = replace(_tone(560, 540, 0.42, 0.14), arch=0.22, harmonics=2)
_CHURR = replace(_tone(1750, 1700, 1.7), pulse_hz=24, harmonics=2)
_CHIRP = replace(_tone(3100, 3700, 0.12, 0.13), second_voice=1.43)
_NASAL_CHIRP = replace(_tone(3900, 3200, 0.09, 0.16), second_voice=1.27)

SPECIES: tuple[Species, ...] = (
    # A buzz that rises for over half a second, after two short notes.
    Species(word="bunting", target=True, song=(_phrase(_tone(4300, 4300, 0.07, 0.06), repeats=(2, 2)), _phrase(_RISING_BUZZ))),
    # Nasal calls in twos and threes: seven harmonics over a low, arched pitch.
    Species(word="crow", target=True, song=(_phrase(_CROW_CALL, repeats=(2, 3), pitch_step=0.97),)),
    # A trill that falls in pitch and gets faster, closed by one broad upward sweep.
    Species(
        word="finch",
        target=True,
        song=(
            _phrase(_tone(5600, 4300, 0.085, 0.055), repeats=(7, 10), pitch_step=0.955, pace_step=0.94),
            _phrase(_tone(2300, 4900, 0.17)),
        ),
    ),
    # Hoots on one low pitch: one, a pause, then two or three quick ones.
    Species(
        word="owl",
        target=True,
        song=(_phrase(_tone(860, 820, 0.34, 0.26)), _phrase(_tone(870, 830, 0.15, 0.10), repeats=(2, 3))),
    ),
    # Slow flute-like whistles, each on another step.
    Species(
        word="thrush",
        target=True,
        song=(
            _phrase(_tone(2250, 2250, 0.24, 0.06), _tone(2900, 2820, 0.20, 0.06), _tone(1900, 2080, 0.28, 0.08), repeats=(1, 2)),
        ),
    ),
    # High and low in turn, like a see-saw.
    Species(
        word="titmouse",
        target=True,
        song=(_phrase(_tone(5000, 5150, 0.11, 0.05), _tone(3600, 3500, 0.15, 0.06), repeats=(3, 5)),),
    ),
    # A hurried warble: sweeps up, down and arched, on a rising line.
    Species(
        word="warbler",
        target=True,
        song=(
            _phrase(
                _tone(2700, 4200, 0.08, 0.02),
                _tone(4600, 3000, 0.10, 0.02),
                replace(_tone(3200, 3300, 0.11, 0.02), arch=0.35),
                repeats=(3, 4),
                pitch_step=1.07,
            ),
        ),
    ),
    # A long even trill of short falling sweeps, about sixteen a second.
    Species(word="wren", target=True, song=(_phrase(_tone(5300, 3900, 0.04, 0.022), repeats=(20, 28)),)),
    # A churr: one low tone chopped into pulses for nearly two seconds.
    Species(word="nightjar", target=False, song=(_phrase(_CHURR),)),
    # A thin, very high series that descends.
    Species(word="creeper", target=False, song=(_phrase(_tone(7600, 6800, 0.16, 0.07), repeats=(4, 6), pitch_step=0.94),)),
    # Low, arched coos in threes.
    Species(word="dove", target=False, song=(_phrase(_DOVE_COO, repeats=(3, 3)),)),
    # Even falling sweeps, four or five a second, each over nearly an octave.
    Species(word="pipit", target=False, song=(_phrase(_tone(5400, 2900, 0.13, 0.09), repeats=(5, 8)),)),
    # Chirps of two voices that cross.
    Species(word="sparrow", target=False, song=(_phrase(_CHIRP, _NASAL_CHIRP, repeats=(2, 4)),)),
    # One long whistle that rises, and a shorter one above it.
    Species(word="tinamou", target=False, song=(_phrase(_tone(1700, 2500, 0.80, 0.10)), _phrase(_tone(2500, 2650, 0.35)))),
)


def draw_song(species: Species, individual: Individual, rng: np.random.Generator) -> tuple[Syllable, ...]:
    """Return the tones of one song: the rule of the species, the individual's deviations, and a small variation of every tone."""
    tones = []
    for phrase in species.song:
        fewest, most = phrase.repeats
        repeats = int(rng.integers(fewest, most + 1)) + (individual.extra_repeats if most > fewest else 0)
        for repeat in range(repeats):
            for syllable in phrase.syllables:
                pitch = individual.pitch * phrase.pitch_step**repeat * rng.uniform(0.985, 1.015)
                pace = individual.pace * phrase.pace_step**repeat * rng.uniform(0.95, 1.05)
                tones.append(_vary(syllable, pitch, pace))
    return tuple(tones)


def _vary(syllable: Syllable, pitch: float, pace: float) -> Syllable:
    return replace(
        syllable,
        start_hz=syllable.start_hz * pitch,
        end_hz=syllable.end_hz * pitch,
        duration_s=syllable.duration_s * pace,
        gap_s=syllable.gap_s * pace,
    )


def song_length_s(tones: tuple[Syllable, ...]) -> float:
    """Return the time from the start of the first tone to the end of the last, in seconds."""
    return sum(tone.span_s for tone in tones) - tones[-1].gap_s


def render_song(tones: tuple[Syllable, ...], brightness: float) -> Samples:
    """Return a song (S,) without echo, of `song_length_s` at 32 kHz; its loudest tone peaks near 1."""
    song_S = np.zeros(round(song_length_s(tones) * SAMPLE_RATE_HZ) + len(tones), dtype=np.float32)
    start_s = 0.0
    for tone in tones:
        tone_S = _render_tone(tone, brightness)
        start = round(start_s * SAMPLE_RATE_HZ)
        song_S[start : start + len(tone_S)] += tone_S
        start_s += tone.span_s
    return song_S


def _render_tone(tone: Syllable, brightness: float) -> Samples:
    num_samples = max(round(tone.duration_s * SAMPLE_RATE_HZ), 2)
    progress_S = np.linspace(0.0, 1.0, num_samples)
    pitch_S = tone.start_hz * np.exp(progress_S * np.log(tone.end_hz / tone.start_hz))
    if tone.arch:
        pitch_S *= 1 + tone.arch * np.sin(np.pi * progress_S)
    phase_S = np.cumsum(pitch_S) * (2 * np.pi / SAMPLE_RATE_HZ)
    wave_S = np.sin(phase_S)
    for harmonic in range(2, tone.harmonics + 1):
        if harmonic * pitch_S.max() < HIGHEST_HZ:
            level = 10 ** (-HARMONIC_DROP_DB * (harmonic - 1) / (20 * brightness))
            wave_S += level * np.sin(harmonic * phase_S)
    if tone.second_voice:
        wave_S += 0.8 * np.sin(tone.second_voice * (phase_S[-1] - phase_S[::-1]))
    wave_S *= np.minimum(1.0, np.minimum(progress_S / 0.12, (1 - progress_S) / 0.3))
    if tone.pulse_hz:
        wave_S *= 0.5 - 0.5 * np.cos(2 * np.pi * tone.pulse_hz * tone.duration_s * progress_S)
    return wave_S.astype(np.float32)
