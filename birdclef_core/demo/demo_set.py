"""Makes the demo set: a data folder of synthetic recordings in the layout of BirdCLEF.

It is made in seconds, so that everything can be tried and tested on a machine without recordings. A model that is trained on it does
not detect real birds.
"""

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.demo.ogg import write_ogg
from birdclef_core.demo.recordings import (
    Recording,
    background_noise,
    draw_recordings,
    draw_soundscape,
    recording_noise,
    soundscape_noise,
)
from birdclef_core.demo.scenes import render_noise, render_scene
from birdclef_core.demo.songs import SPECIES
from birdclef_core.errors import InputError
from birdclef_core.output_place import writing_to

VERSION = 2
"""Increased with every change of the files that are made, so that a set of an older version is replaced."""
MARKER = "DEMO_VERSION"

SOUNDSCAPE_NAME = "SYN_soundscape_0001"
WINDOW_S = 5
NUM_UNLABELLED = 6
"""Number of soundscapes without labels, each as long as the one with labels."""
NOISE_S = 10.0
BACKGROUND_NOISES: dict[str, tuple[tuple[tuple[str, float], ...], ...]] = {
    "nocall": ((("wind", 1.0),), (("wind", 1.0), ("insects", 0.4)), (("stream", 1.0), ("wind", 0.6))),
    "field": ((("insects", 1.0), ("wind", 0.5)), (("insects", 1.0),), (("wind", 1.0), ("rain", 0.3))),
    "ambient": ((("rain", 1.0),), (("rain", 1.0), ("wind", 0.7)), (("stream", 1.0),), (("stream", 1.0), ("insects", 0.3))),
}
"""By noise group, the files of background noise; each is a mixture of kinds of noise, given with their share of the amplitude."""

README = """SYNTHETIC recordings: every sound in this folder was computed. None of it is a bird, a place or a person.

A BirdCLEF-shaped set to try and test software with: {num_species} made-up species, {num_targets} of them targets
(target_species.txt), their songs drawn from rules. Species codes have an underscore, which no eBird code has,
and coordinates lie in the open ocean. Nothing that is learnt here says anything about real birds.

train.csv, train_audio/        recordings with their metadata; an author met one individual of each species
background_noise/              wind, rain, stream and insects without a bird
test_soundscapes/              birds that come and go, individuals that are not in train_audio/
test_soundscapes_labels.csv    the species in every window of {window_s} s, exact by construction
unlabelled_soundscapes/        more of the same without labels, for a teacher
"""


def make_demo(root: Path, *, seed: int = 0) -> Path:
    """Write the synthetic set into `root` and return `root`; do nothing if it has this version of the set with this seed.

    The folder appears complete or not at all, and a set of another version or seed is replaced. The same seed gives the same bytes on
    the same machine. Raises InputError for a negative seed, when `root` contains something other than a demo set, or when it
    cannot be written.
    """
    if seed < 0:
        raise InputError(f"seed >= 0 must hold for the demo set, but got seed={seed}.")
    version = f"birdclef-demo {VERSION} seed {seed}\n"
    if _version_of(root) == version:
        return root
    with writing_to(root, way_out="make the demo set elsewhere: birdclef data demo --out DIR"):
        _make(root, seed, version)
    return root


def _make(root: Path, seed: int, version: str) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        made = scratch / "made"
        _write_set(made, seed)
        (made / MARKER).write_text(version)
        _move_into_place(made, root, version, scratch / "replaced")
    finally:
        shutil.rmtree(scratch)


def _version_of(root: Path) -> str | None:
    """Return the text of the folder's marker, or None if the folder is empty or missing. Raises InputError if it has other files."""
    marker = root / MARKER
    if marker.is_file():
        return marker.read_text()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(
            f"The demo set needs a new or empty folder, but {root} contains other files. Name another folder, or remove this one."
        )
    return None


def _move_into_place(made: Path, root: Path, version: str, replaced: Path) -> None:
    found = _version_of(root)
    if found == version:
        return  # another process has made the same set meanwhile
    if found is not None:
        root.rename(replaced)
    try:
        made.rename(root)
    except OSError:
        if _version_of(root) != version:
            raise


def _write_set(root: Path, seed: int) -> None:
    _write_recordings(root, draw_recordings(seed), seed)
    _write_noise(root / "background_noise", seed)
    _write_soundscape(root, seed)
    _write_unlabelled(root / "unlabelled_soundscapes", seed)
    targets = sorted(species.code for species in SPECIES if species.target)
    (root / "target_species.txt").write_text("".join(f"{code}\n" for code in targets))
    (root / "README.txt").write_text(README.format(num_species=len(SPECIES), num_targets=len(targets), window_s=WINDOW_S))


def _write_recordings(root: Path, recordings: list[Recording], seed: int) -> None:
    for species in SPECIES:
        (root / "train_audio" / species.code).mkdir(parents=True)

    def write(index: int) -> None:
        wave_T = render_scene(recordings[index].scene, recording_noise(seed, index))
        write_ogg(root / "train_audio" / recordings[index].filename, wave_T)

    with ThreadPoolExecutor() as pool:  # half of the time is spent in the encoder, which releases the interpreter's lock
        list(pool.map(write, range(len(recordings))))
    _write_csv(root / "train.csv", [metadata_row(recording) for recording in recordings])


def metadata_row(recording: Recording) -> dict[str, object]:
    """Return the row of train.csv that describes a recording, with BirdCLEF's columns."""
    return {
        "primary_label": recording.species.code,
        "secondary_labels": str(list(recording.secondary)),
        "type": "['song']",
        "filename": recording.filename,
        "collection": "synthetic",
        "rating": recording.rating,
        "url": "",
        "latitude": recording.latitude,
        "longitude": recording.longitude,
        "scientific_name": recording.species.scientific_name,
        "common_name": recording.species.common_name,
        "author": recording.author,
        "license": "MIT (synthetic)",
        "duration": recording.scene.duration_s,
    }


def _write_noise(folder: Path, seed: int) -> None:
    index = 0
    for group, files in BACKGROUND_NOISES.items():
        (folder / group).mkdir(parents=True)
        for noises in files:
            noise_T = render_noise(noises, round(NOISE_S * SAMPLE_RATE_HZ), background_noise(seed, index))
            index += 1
            kinds = "_".join(kind for kind, _ in noises)
            write_ogg(folder / group / f"SYN_{kinds}_{index:02d}.ogg", 0.5 * noise_T / np.abs(noise_T).max())


def _write_soundscape(root: Path, seed: int) -> None:
    scene = draw_soundscape(seed)
    folder = root / "test_soundscapes"
    folder.mkdir()
    write_ogg(folder / f"{SOUNDSCAPE_NAME}.ogg", render_scene(scene, soundscape_noise(seed)))
    ends_s = range(WINDOW_S, int(scene.duration_s) + 1, WINDOW_S)
    rows = [
        {"row_id": f"{SOUNDSCAPE_NAME}_{end_s}", "labels": " ".join(scene.species_between(end_s - WINDOW_S, end_s))}
        for end_s in ends_s
    ]
    _write_csv(root / "test_soundscapes_labels.csv", rows)


def _write_unlabelled(folder: Path, seed: int) -> None:
    folder.mkdir()

    def write(number: int) -> None:
        wave_T = render_scene(draw_soundscape(seed, number), soundscape_noise(seed, number))
        write_ogg(folder / f"SYN_soundscape_{number + 1:04d}.ogg", wave_T)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(1, NUM_UNLABELLED + 1)))


def _write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
