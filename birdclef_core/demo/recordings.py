"""Draws the content of the demo set from its seed: recordings, authors, ratings and a soundscape. Nothing is rendered here."""

from dataclasses import dataclass

import numpy as np

from birdclef_core.demo.scenes import Bird, Place, Scene, Song, draw_songs
from birdclef_core.demo.songs import SPECIES, Individual, Species

INDIVIDUALS_PER_SPECIES = 7
NUM_AUTHORS = 3 * len(SPECIES)
RECORDINGS_PER_SPECIES = (16, 20)
SHARE_WITH_SECONDARY = 0.22
SOUNDSCAPE_S = 180.0
SOUNDSCAPE_VISITS = 20

_COUNTS, _RECORDING, _SOUNDSCAPE, _NOISE, _INDIVIDUAL = range(5)
_DRAWN, _RENDERED = range(2)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One row of train.csv, with the scene it describes."""

    filename: str
    """Path relative to train_audio/."""
    author: str
    species: Species
    secondary: tuple[str, ...]
    """Codes of the other species that can be heard."""
    rating: float
    latitude: float
    longitude: float
    scene: Scene


def _generator(seed: int, what: int, index: int, part: int = _DRAWN) -> np.random.Generator:
    """Return the random generator of one thing. Its seed always has four numbers: NumPy pads a shorter one with zeros, and (3,) equals (3, 0)."""
    return np.random.default_rng([seed, what, index, part])


def recording_noise(seed: int, index: int) -> np.random.Generator:
    """Return the random generator that renders the recording at place `index` of `draw_recordings`."""
    return _generator(seed, _RECORDING, index, _RENDERED)


def soundscape_noise(seed: int, number: int = 0) -> np.random.Generator:
    """Return the random generator that renders a soundscape."""
    return _generator(seed, _SOUNDSCAPE, number, _RENDERED)


def background_noise(seed: int, index: int) -> np.random.Generator:
    """Return the random generator that renders file `index` of background noise."""
    return _generator(seed, _NOISE, index, _RENDERED)


def draw_recordings(seed: int) -> list[Recording]:
    """Return the training recordings, species by species."""
    recordings: list[Recording] = []
    fewest, most = RECORDINGS_PER_SPECIES
    counts = _generator(seed, _COUNTS, 0).integers(fewest, most + 1, len(SPECIES))
    for species_index, count in enumerate(counts):
        for take in range(count):
            rng = _generator(seed, _RECORDING, len(recordings))
            # The first takes give every individual one recording; the others are of random individuals.
            number = take if take < INDIVIDUALS_PER_SPECIES else int(rng.integers(INDIVIDUALS_PER_SPECIES))
            recordings.append(_draw_recording(seed, len(recordings), species_index, number, rng))
    return recordings


def _draw_recording(seed: int, index: int, species_index: int, number: int, rng: np.random.Generator) -> Recording:
    species = SPECIES[species_index]
    duration_s = round(3 + 17 * float(rng.beta(1, 6)), 1)
    bird = Bird.draw(species, _individual(seed, species_index, number), rng)
    songs = draw_songs(bird, float(rng.uniform(0, 0.6)), duration_s, (0.3, 1.3), rng)
    if rng.uniform() < SHARE_WITH_SECONDARY:
        songs += _draw_other_songs(seed, species_index, duration_s, rng)
    scene = Scene(duration_s=duration_s, place=Place.draw(rng), songs=songs)
    return Recording(
        filename=f"{species.code}/SYN{index + 1:04d}.ogg",
        author=_author(species_index, number),
        species=species,
        secondary=tuple(code for code in scene.species_between(0, duration_s) if code != species.code),
        rating=_rating(bird.snr_db, rng),
        # In the open ocean, so that nobody mistakes them for places of real birds.
        latitude=round(float(rng.uniform(-8, 8)), 3),
        longitude=round(float(rng.uniform(-36, -20)), 3),
        scene=scene,
    )


def _draw_other_songs(seed: int, species_index: int, duration_s: float, rng: np.random.Generator) -> tuple[Song, ...]:
    """Return songs of one or two birds of other species, fainter and rarer than those of the recorded bird."""
    songs: tuple[Song, ...] = ()
    others = rng.permutation([index for index in range(len(SPECIES)) if index != species_index])
    for other in others[: rng.integers(1, 3)]:
        individual = _individual(seed, int(other), int(rng.integers(INDIVIDUALS_PER_SPECIES)))
        bird = Bird.draw(SPECIES[other], individual, rng, fainter_db=6.0)
        songs += draw_songs(bird, float(rng.uniform(0, 1.5)), duration_s, (1.0, 3.0), rng)
    return songs


def draw_soundscape(seed: int, number: int = 0) -> Scene:
    """Draw a soundscape: birds that come, sing for a while and leave, with pauses. No recording and no other soundscape has these
    individuals."""
    rng = _generator(seed, _SOUNDSCAPE, number)
    songs: tuple[Song, ...] = ()
    for visit in range(SOUNDSCAPE_VISITS):
        species_index = visit % len(SPECIES)
        individual = _individual(seed, species_index, INDIVIDUALS_PER_SPECIES + SOUNDSCAPE_VISITS * number + visit)
        bird = Bird.draw(SPECIES[species_index], individual, rng, fainter_db=2.0)
        start_s = float(rng.uniform(0, SOUNDSCAPE_S - 5))
        end_s = min(start_s + float(rng.uniform(4, 15)), SOUNDSCAPE_S)
        songs += draw_songs(bird, start_s, end_s, (0.5, 3.0), rng)
    return Scene(duration_s=SOUNDSCAPE_S, place=Place.draw(rng), songs=songs)


def _individual(seed: int, species_index: int, number: int) -> Individual:
    return Individual.draw(_generator(seed, _INDIVIDUAL, species_index, number))


def _author(species_index: int, number: int) -> str:
    """Return who recorded an individual. Every author has two or three species, so that a split by author does not split by species."""
    return f"Synthetic recordist {(6 * species_index + number) % NUM_AUTHORS + 1:02d}"


def _rating(snr_db: float, rng: np.random.Generator) -> float:
    """Return a rating from 1 to 5 in steps of 0.5: it follows the signal-to-noise ratio, with a random part for the listener's taste."""
    rating = np.interp(snr_db, [5, 22], [1.5, 5.0]) + rng.uniform(-0.7, 0.7)
    return float(np.clip(np.round(2 * rating) / 2, 1, 5))
