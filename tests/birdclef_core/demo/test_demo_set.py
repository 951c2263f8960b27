"""The demo set is BirdCLEF-shaped, deterministic, appears whole or not at all, and can be learnt."""

import ast
import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.demo import demo_set
from birdclef_core.demo.demo_set import MARKER, make_demo, metadata_row
from birdclef_core.demo.recordings import Recording, draw_recordings, draw_soundscape, recording_noise
from birdclef_core.demo.scenes import Scene, render_scene
from birdclef_core.demo.songs import SPECIES
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint

CODES = sorted(species.code for species in SPECIES)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second's work in place of the whole set."""
    monkeypatch.setattr(demo_set, "draw_recordings", lambda seed: draw_recordings(seed)[::25])
    monkeypatch.setattr(demo_set, "draw_soundscape", first_20_seconds)
    monkeypatch.setattr(demo_set, "NOISE_S", 1.0)


def first_20_seconds(seed: int, number: int = 0) -> Scene:
    scene = draw_soundscape(seed, number)
    return replace(scene, duration_s=20.0, songs=tuple(song for song in scene.songs if song.start_s < 20))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tree(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return draw_recordings(0)


def test_every_species_has_recordings_by_many_authors(recordings: list[Recording]) -> None:
    for code in CODES:
        own = [item for item in recordings if item.species.code == code]
        assert 16 <= len(own) <= 20
        assert len({item.author for item in own}) >= 6
    authors = {item.author for item in recordings}
    assert all(len({item.species.code for item in recordings if item.author == author}) >= 2 for author in authors)


def test_metadata_is_plausible(recordings: list[Recording]) -> None:
    assert all(3 <= item.scene.duration_s <= 20 for item in recordings)
    ratings = {item.rating for item in recordings}
    assert ratings <= set(np.arange(1, 5.5, 0.5)) and len(ratings) >= 7
    assert 0.15 < np.mean([bool(item.secondary) for item in recordings]) < 0.27
    assert all(item.species.code not in item.secondary for item in recordings)


def test_a_song_comes_every_few_seconds(recordings: list[Recording]) -> None:
    for item in recordings:
        own = [song for song in item.scene.songs if song.bird.species == item.species]
        edges_s = [0.0, *(edge_s for song in own for edge_s in (song.start_s, song.end_s))]
        silences_s = [start_s - end_s for end_s, start_s in zip(edges_s[::2], edges_s[1::2], strict=False)]
        assert max(silences_s) <= 1.5
        assert item.scene.duration_s - edges_s[-1] <= 1.5


def test_songs_are_mostly_5_to_25_db_above_the_background(recordings: list[Recording]) -> None:
    snr_db = np.array([item.scene.songs[0].bird.snr_db for item in recordings])
    assert np.mean((snr_db >= 5) & (snr_db <= 25)) > 0.85
    assert snr_db.min() >= 3


def test_splits_by_author_can_score_every_species(recordings: list[Recording]) -> None:
    labels = [item.species.code for item in recordings]
    for _, held_out in StratifiedGroupKFold(5).split(labels, labels, [item.author for item in recordings]):
        assert {labels[index] for index in held_out} == set(CODES)


def test_what_is_drawn_is_pinned(recordings: list[Recording]) -> None:
    """Fails when the set changes: then raise `VERSION`, so that a set made earlier is replaced, and pin the new value."""
    drawn = [metadata_row(item) for item in recordings]
    assert demo_set.VERSION == 2
    assert fingerprint(drawn)[:16] == "203b5ea9318779fb"


@pytest.mark.usefixtures("small")
def test_the_folder_is_birdclef_shaped(tmp_path: Path) -> None:
    root = make_demo(tmp_path / "demo")
    rows = read_csv(root / "train.csv")
    assert len(rows) == len(draw_recordings(0)[::25])
    for row in rows:
        wave_T, rate_hz = soundfile.read(root / "train_audio" / row["filename"], dtype="float32")
        assert rate_hz == SAMPLE_RATE_HZ and wave_T.ndim == 1
        assert len(wave_T) == round(float(row["duration"]) * SAMPLE_RATE_HZ)
        assert 0.05 < np.abs(wave_T).max() < 1.0
        assert row["filename"].split("/")[0] == row["primary_label"]
        assert set(ast.literal_eval(row["secondary_labels"])) <= set(CODES)
    targets = (root / "target_species.txt").read_text().split()
    assert len(targets) == 8 and targets == sorted(targets) and set(targets) <= set(CODES)
    noise = list((root / "background_noise").rglob("*.ogg"))
    assert {path.parent.name for path in noise} == {"nocall", "field", "ambient"} and len(noise) == 10
    unlabelled = list((root / "unlabelled_soundscapes").glob("*.ogg"))
    assert len(unlabelled) == demo_set.NUM_UNLABELLED and len({path.read_bytes() for path in unlabelled}) == len(unlabelled)
    assert "SYNTHETIC" in (root / "README.txt").read_text()


@pytest.mark.usefixtures("small")
def test_the_soundscape_is_labelled_window_by_window(tmp_path: Path) -> None:
    root = make_demo(tmp_path / "demo")
    (soundscape,) = (root / "test_soundscapes").glob("*.ogg")
    assert soundfile.info(soundscape).duration == 20.0
    rows = read_csv(root / "test_soundscapes_labels.csv")
    assert [row["row_id"] for row in rows] == [f"{soundscape.stem}_{end_s}" for end_s in (5, 10, 15, 20)]


def test_the_whole_soundscape_has_every_species_and_silence() -> None:
    scene = draw_soundscape(0)
    windows = [scene.species_between(start_s, start_s + 5) for start_s in range(0, int(scene.duration_s), 5)]
    assert scene.duration_s >= 120 and scene.duration_s % 5 == 0
    assert {code for codes in windows for code in codes} == set(CODES)
    assert windows.count([]) >= 3


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second, other = (make_demo(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert tree(first) == tree(second)
    assert tree(first)["train.csv"] != tree(other)["train.csv"]


@pytest.mark.usefixtures("small")
def test_a_set_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_demo(tmp_path / "demo")
    monkeypatch.setattr(demo_set, "_write_set", lambda root, seed: pytest.fail("made again"))
    assert make_demo(root) == root


@pytest.mark.usefixtures("small")
@pytest.mark.slow
def test_a_set_of_another_version_or_seed_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_demo(tmp_path / "demo")
    (root / "old.txt").write_text("of an older version")
    monkeypatch.setattr(demo_set, "VERSION", demo_set.VERSION + 1)
    make_demo(root)
    assert not (root / "old.txt").exists()
    before = tree(root)
    make_demo(root, seed=3)
    assert tree(root)["train.csv"] != before["train.csv"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.usefixtures("small")
def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, wave_T: np.ndarray) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(demo_set, "write_ogg", full_disk)
    with pytest.raises(InputError, match=r"no space left.*make the demo set elsewhere"):
        make_demo(tmp_path / "demo")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_two_processes_at_once_end_with_one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_set = demo_set._write_set

    def overtaken(root: Path, seed: int) -> None:
        write_set(root, seed)
        monkeypatch.setattr(demo_set, "_write_set", write_set)
        make_demo(tmp_path / "demo")

    monkeypatch.setattr(demo_set, "_write_set", overtaken)
    assert make_demo(tmp_path / "demo") == tmp_path / "demo"
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match=r"contains other files\. Name another folder"):
        make_demo(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    with pytest.raises(InputError, match="seed >= 0 must hold"):
        make_demo(tmp_path / "demo", seed=-1)


@pytest.mark.usefixtures("small")
def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    assert (make_demo(tmp_path / "demo") / MARKER).is_file()


@pytest.mark.slow
def test_a_linear_model_learns_it_but_not_wholly(recordings: list[Recording]) -> None:
    """Learnable, not trivial: a linear model on the mean and maximum of a coarse spectrum, on birds it has not heard.

    On every second recording, as it is before it becomes a file."""
    heard = dict(list(enumerate(recordings))[::2])
    features = np.array([spectrum_summary(render_scene(item.scene, recording_noise(0, index))) for index, item in heard.items()])
    truth = np.array([[code in (item.species.code, *item.secondary) for code in CODES] for item in heard.values()])
    primary, authors = [item.species.code for item in heard.values()], [item.author for item in heard.values()]
    train, held_out = next(StratifiedGroupKFold(5).split(primary, primary, authors))
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.1, max_iter=300)))
    scores = model.fit(features[train], truth[train]).predict_proba(features[held_out])
    cmap = average_precision_score(truth[held_out], scores, average="macro")
    chance = truth[held_out].mean()
    assert 4 * chance < cmap < 0.98


def spectrum_summary(wave_T: np.ndarray) -> np.ndarray:
    frames_NL = np.lib.stride_tricks.sliding_window_view(wave_T, 1024)[::512] * np.hanning(1024)
    power_NF = np.square(np.abs(np.fft.rfft(frames_NL, axis=1)))[:, 1:481].reshape(len(frames_NL), 48, 10).mean(axis=2)
    level_NF = np.log(power_NF + 1e-6)
    return np.r_[level_NF.mean(axis=0), level_NF.max(axis=0), level_NF.std(axis=0)]
