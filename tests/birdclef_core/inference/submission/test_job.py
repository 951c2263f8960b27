"""A submission has every row whatever happens: no audio, a file that cannot be read, too little time, a run that was cut off."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_detector import SPECIES, Loudness, loudness_detector, made_up_calibration, write_sound
from scipy.special import logit

from birdclef_core.errors import DataError, InputError
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.results.postprocess import PostProcessing
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.inference.submission import job
from birdclef_core.inference.submission.job import Submission, SubmissionTask, make_submission
from birdclef_core.inference.submission.members import ScoredBy
from birdclef_core.inference.submission.table import read_submission
from birdclef_core.json_files import from_json


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow:
    """A network that takes a second for each call, or five after many calls, and counts them."""

    def __init__(self, runtime, clock: Clock, slow_after: int = 10**9) -> None:
        self.runtime, self.clock, self.slow_after, self.calls = runtime, clock, slow_after, 0

    def __call__(self, mel_BKFN):
        self.calls += 1
        self.clock.now += 1.0 if self.calls <= self.slow_after else 5.0
        return self.runtime(mel_BKFN)


class Place:
    """A folder with soundscapes, and a detector of three networks whose time is that of a clock."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock, self.said = root, Clock(), []
        (member,) = loudness_detector().members
        self.networks = [Slow(member.runtime, self.clock) for _ in range(3)]
        members = tuple(
            replace(member, model_id=name * 64, runtime=network) for name, network in zip("abc", self.networks, strict=True)
        )
        weights = ((1.0,), (0.6, 0.4), (0.5, 0.3, 0.2))
        self.detector = DeployedDetector(members, weights_of_first=weights)
        (root / "in").mkdir()

    def sound(self, name: str, duration_s: float) -> Path:
        return write_sound(self.root / "in" / name, duration_s, seed=len(name))

    def sample(self, *row_ids: str, columns=("gamma", "alpha", "other")) -> Path:
        path = self.root / "sample.csv"
        path.write_text("\n".join([",".join(("row_id", *columns)), *(row_id + ",0" * len(columns) for row_id in row_ids)]) + "\n")
        return path

    def make(self, **values) -> Submission:
        known = {
            "predictor": Predictor(self.detector, batch_size=2),
            "soundscapes": self.root / "in",
            "sample": None,
            "out": self.out,
            "clock": self.clock,
            "started": self.clock.now,
            "say": self.said.append,
        }
        return make_submission(SubmissionTask(**{**known, **values}))

    @property
    def out(self) -> Path:
        return self.root / "out" / "submission.csv"

    @property
    def calls(self) -> list[int]:
        return [network.calls for network in self.networks]

    def table(self) -> pd.DataFrame:
        table = read_submission(self.out)
        assert table.index.is_unique and ((table >= 0) & (table <= 1)).all(axis=None)
        return table


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def test_without_a_sample_every_whole_window_is_a_row_and_columns_are_sorted(place):
    place.sound("b.wav", 12.0)
    place.sound("deep/a.wav", 5.0)
    made = place.make()
    table = place.table()
    assert table.index.tolist() == ["b_5", "b_10", "a_5"] and list(table) == sorted(SPECIES)
    assert (made.num_rows, made.num_files, made.unheard, made.unreadable) == (3, 2, (), ())
    rows = Predictor(place.detector).predict(place.root / "in" / "b.wav", threshold=0.0)
    expected = rows.pivot(index="end_s", columns="species", values="score").to_numpy()[:2]
    np.testing.assert_allclose(table.iloc[:2].to_numpy(), expected, rtol=1e-5)


def test_with_a_sample_rows_and_columns_are_the_samples_and_the_rest_of_a_file_can_be_a_row(place):
    place.sound("a.wav", 12.0)
    place.sound("more.wav", 5.0)
    made = place.make(sample=place.sample("a_15", "a_5"))
    table = place.table()
    assert table.index.tolist() == ["a_15", "a_5"] and list(table) == ["gamma", "alpha", "other"]
    assert made.unknown_species == ("other",) and table["other"].to_numpy() == pytest.approx(1 / 3) and made.constant == 1 / 3
    assert made.unheard == () and made.ignored == (f"{place.root}/in/more.wav",)
    place.make(sample=place.sample("a_15", "a_5"), rows_of_audio=True)
    assert place.table().index.tolist() == ["a_5", "a_10", "more_5"] and list(place.table()) == list(table)


def test_an_empty_folder_gives_a_file_of_the_samples_shape(place):
    (place.root / "in" / "readme.txt").write_text("filled when you submit")
    made = place.make(sample=place.sample("x_5", "x_10"), rows_of_audio=True)
    assert place.table().to_numpy() == pytest.approx(np.full((2, 3), 1 / 3))
    assert made.unheard == ("x_5", "x_10") and made.unheard_score == 1 / 3
    with pytest.raises(InputError, match="There must be audio in"):
        place.make()


def test_a_file_that_cannot_be_read_is_listed_and_its_rows_are_written(place):
    place.sound("a.wav", 10.0)
    (place.root / "in" / "broken.wav").write_bytes(b"no audio")
    (place.root / "in" / "other.wma").write_bytes(b"wma")
    made = place.make(sample=place.sample("broken_5", "a_5", "a_10", "other_5"))
    table = place.table()
    assert [item.label.rsplit("/", 1)[-1] for item in made.unreadable] == ["other.wma", "broken.wav"]
    assert made.unheard == ("broken_5", "other_5") and made.unheard_score is None
    np.testing.assert_allclose(table.loc["broken_5"], table.loc[["a_5", "a_10"]].mean(), rtol=1e-8)


def test_rows_of_a_file_that_was_heard_are_those_that_it_has_whatever_its_structure_says(place, monkeypatch):
    place.sound("a.wav", 10.0)
    original = job.read_durations
    monkeypatch.setattr(job, "read_durations", lambda files: [replace(item, duration_s=30.0) for item in original(files)])
    assert place.make().unheard == () and place.table().index.tolist() == ["a_5", "a_10"]


def test_rows_beyond_the_end_of_a_file_are_not_heard(place):
    place.sound("a.wav", 10.0)
    assert place.make(sample=place.sample("a_10", "a_15")).unheard == ("a_15",)


def test_networks_are_dropped_with_their_weights_when_the_time_is_short(place):
    """100 batches take 300 s with three networks, 200 with two."""
    for number in range(10):
        place.sound(f"f{number}.wav", 100.0)
    made = place.make(limit_s=230.0)
    assert made.scored.counts == {3: 1, 2: 9} and not made.is_out_of_time
    assert [scale.num_windows for scale in made.scored.scales] == [0], "two windows that were heard in both ways are too few"
    assert made.unheard == () and place.clock.now < 230
    assert len(place.said) == 1 and "first 2 of 3 models" in place.said[0]
    assert place.calls[2] < place.calls[1] == place.calls[0] < 130
    two = Predictor(place.detector.first(2)).predict(place.root / "in" / "f9.wav", threshold=0.0)
    np.testing.assert_allclose(place.table().loc["f9_100"], two[two["end_s"] == 100]["score"].to_numpy(), rtol=1e-5)


def test_files_that_fewer_members_heard_are_brought_to_the_scale_of_the_others(place):
    """The third network hears three times as much, so without it logits are smaller. After a while it is slow."""
    for number in range(6):
        place.sound(f"f{number}.wav", 200.0)
    networks = [Loudness(is_sed=True, factors=(factor, -factor, factor)) for factor in (1.0, 1.0, 3.0)]
    slow = [Slow(network, place.clock, slow_after=after) for network, after in zip(networks, (999, 999, 30), strict=True)]
    members = tuple(replace(member, runtime=runtime) for member, runtime in zip(place.detector.members, slow, strict=True))
    place.detector = replace(place.detector, members=members)
    made = place.make(limit_s=420.0)
    assert set(made.scored.counts) == {3, 2} and sum(made.scored.counts.values()) == 6
    (scale,) = made.scored.scales
    assert scale.num_members == 2 and scale.num_windows >= 4 and 1.6 < scale.factor < 1.7
    written = from_json(ScoredBy, (place.root / "out" / "submission.members.json").read_bytes(), file="submission.members.json")
    assert written == made.scored and written.members == tuple(name * 64 for name in "abc")
    (last,) = [item for item in written.files if item.file.endswith("f5.wav")]
    assert (last.num_members, last.num_windows, last.is_whole) == (2, 40, True)
    found = logit(place.table().loc[[f"f5_{end_s}" for end_s in range(5, 201, 5)], "beta"].to_numpy())
    of_all, of_two = (
        logit(rows[rows["species"] == "beta"]["score"].to_numpy())
        for rows in (
            Predictor(detector).predict(place.root / "in" / "f5.wav", threshold=0.0)
            for detector in (place.detector, place.detector.first(2))
        )
    )
    assert np.abs(found - of_all).mean() < 0.2 * np.abs(of_two - of_all).mean()


def test_every_row_is_written_when_the_time_is_over_and_more_time_continues(place):
    for number in range(4):
        place.sound(f"f{number}.wav", 100.0)
    made = place.make(limit_s=30.0)
    assert made.is_out_of_time and place.clock.now <= 30.0 and 0 < len(made.unheard) < 80
    assert "f1_5" not in made.unheard and "f1_100" in made.unheard, "the part of a file that was heard counts"
    assert len(place.table()) == 80
    before = place.calls[0]
    again = place.make()
    assert again.unheard == () and not again.is_out_of_time and again.num_known > 0
    assert place.calls[0] - before < 40, "what was heard is not heard again"


def test_a_run_that_is_cut_off_goes_on_and_ends_with_the_same_bytes(place, monkeypatch):
    for name in ("a.wav", "b.wav"):
        place.sound(name, 40.0)
    place.make()
    whole, calls = place.out.read_bytes(), place.calls[0]
    place.make(out=place.root / "again.csv")
    assert (place.root / "again.csv").read_bytes() == whole

    class Killed(BaseException):
        pass

    def die() -> float:
        if place.calls[0] == 2 * calls + calls - 2:
            raise Killed
        return place.clock.now

    with pytest.raises(Killed):
        place.make(out=place.root / "cut.csv", clock=die)
    assert not (place.root / "cut.csv").exists()
    place.make(out=place.root / "cut.csv")
    assert (place.root / "cut.csv").read_bytes() == whole
    assert place.calls[0] <= 3 * calls + 1


def test_the_post_processing_of_the_calibration_is_used(place):
    place.sound("a.wav", 20.0)
    place.make()
    plain = place.table()
    calibration = made_up_calibration(place.detector, postprocessing=PostProcessing(peak=1.0))
    place.detector = replace(place.detector, calibration=calibration)
    place.make()
    np.testing.assert_allclose(place.table().to_numpy(), np.tile(plain.max(), (4, 1)), rtol=1e-6)


def test_what_cannot_be_done_is_refused_before_anything_is_heard(place):
    place.sound("a.wav", 10.0)
    with pytest.raises(InputError, match=r"1 of 2 are of 1 files that are not there, such as zz\."):
        place.make(sample=place.sample("a_5", "zz_5"))
    with pytest.raises(InputError, match="must be a folder"):
        place.make(soundscapes=place.root / "gone")
    with pytest.raises(InputError, match="must be a file"):
        place.make(out=place.root)
    with pytest.raises(DataError, match="once"):
        place.make(sample=place.sample("a_5", "a_5"))
    with pytest.raises(InputError, match="window_s == step_s == 5"):
        place.make(predictor=Predictor(place.detector.with_procedure(Procedure(step_s=2.5))))
    assert place.calls == [0, 0, 0] and not (place.root / "out").exists()
