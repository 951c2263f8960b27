"""Teacher and student: predictions are the teacher's, go on after an interruption, and become the targets that the settings say."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
import torch
from made_up_store import store as stored

from birdclef_core.data.cache import build_soundscape_cache, build_unlabelled_cache
from birdclef_core.data.soundscapes import load_soundscapes
from birdclef_core.data.targets import training_table
from birdclef_core.data.unlabelled import load_unlabelled
from birdclef_core.errors import DataError, StoreError
from birdclef_core.identity import canonical
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import predictions
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.stages.task import StageTask, parse_teachers, teachers_text
from birdclef_core.stages.teachers import predicting
from birdclef_core.stages.teachers.predictions import Predictions
from birdclef_core.stages.teachers.student import predicted_windows
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import StageEntry, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.teacher_config import TeacherConfig

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tone_data, tmp_path_factory):
    """The tones with two soundscapes without labels: of a low tone, a top tone and silence, 5.5 s each."""
    root = tmp_path_factory.mktemp("unlabelled")
    (root / "unlabelled_soundscapes").mkdir()
    time_T = np.arange(2 * 32_000) / 32_000
    low_T, top_T = (0.3 * np.sin(2 * np.pi * pitch * time_T) for pitch in (1000, 9000))
    for name, parts in (("a", (low_T, top_T)), ("b", (top_T, top_T))):
        wave_T = np.concatenate([*parts, np.zeros(48_000)]).astype(np.float32)
        soundfile.write(root / "unlabelled_soundscapes" / f"{name}.wav", wave_T, 32_000)
    unlabelled = load_unlabelled(root, set())
    dataset = replace(tone_data.dataset)
    vars(dataset)["unlabelled"] = unlabelled  # as if its folder had them
    make = partial(build_unlabelled_cache, cache_dir=tmp_path_factory.mktemp("cache"))
    return replace(tone_data, dataset=dataset, make_unlabelled_cache=make)


def train_task(recipe, stage_id: str, **changes) -> StageTask:
    config = replace(recipe.stages[1], epochs=1)
    config = replace(config, **{name: value for name, value in changes.items() if hasattr(config, name)})
    return StageTask(
        stage_id=stage_id,
        parent_id=None,
        recipe="tiny",
        model=recipe.model,
        config=config,
        pretrained=RANDOM,
        identity={"model": canonical(recipe.model), "stage": canonical(config)},
        predictions_id=changes.get("predictions_id"),
    )


def predict_task(recipe, *teachers, on="unlabelled", stage_id="labels", window_s=1.0) -> StageTask:
    config = predictions("labels", of="teacher", on=on, window_s=window_s)
    identity = {"model": {}, "stage": {"predicts_on": on}, "parent": "teacher"}
    return StageTask(
        stage_id=stage_id,
        parent_id="teacher",
        recipe="tiny",
        model=recipe.model,
        config=config,
        pretrained=RANDOM,
        identity=identity,
        teachers=teachers or (("teacher", 1.0),),
    )


@pytest.fixture(scope="module")
def taught(tiny_recipe, data, heads, tmp_path_factory):
    """A store with a teacher and its predictions of both kinds of sound, and a head on embeddings with its predictions."""
    store = StageStore(Storage.parse(str(tmp_path_factory.mktemp("store"))))
    list(train_stage(train_task(tiny_recipe, "teacher"), data, store, CPU))
    for on in ("unlabelled", "recordings"):
        list(train_stage(predict_task(tiny_recipe, on=on, stage_id=on), data, store, CPU))
    storage, chain = heads["onnx"]
    for task in chain:
        store.publish_copy(stored(storage).open(task.stage_id))
    list(train_stage(predict_task(tiny_recipe, (chain[1].stage_id, 1.0), stage_id="of_head"), data, store, CPU))
    return store


def own_logits(tiny_recipe, store, wave_BT, stage_id="teacher") -> np.ndarray:
    model = Detector(tiny_recipe.model, 2)
    model.load_state_dict(store.open(stage_id).weights())
    with torch.inference_mode():
        return model.eval()(model.spectrograms(torch.from_numpy(wave_BT / 32768).float())).logits_BC.numpy()


def test_predictions_are_the_logits_of_the_teacher_for_each_window(tiny_recipe, data, taught):
    entry = taught.open("unlabelled")
    made = Predictions.load(entry.folder)
    assert entry.record.species == ["low", "top"] and entry.record.is_predictions
    assert made.row_W.tolist() == [0] * 5 + [1] * 5 and made.start_W.tolist() == [32_000 * second for second in range(5)] * 2
    cache = data.unlabelled_cache
    wave_BT = np.stack([cache.read(row, start, 32_000) for row, start in zip(made.row_W, made.start_W, strict=True)])
    assert made.logits_WC == pytest.approx(own_logits(tiny_recipe, taught, wave_BT), abs=2e-3)
    assert entry.record.metrics == taught.record("teacher").metrics, "the score of who predicts"


def test_a_teacher_that_compares_species_gives_the_probabilities_of_its_softmax(tiny_recipe, data, taught):
    """By cross-entropy a logit means something only beside the others: 3 and 3 is a half of each."""
    list(train_stage(train_task(tiny_recipe, "by_ce", loss="ce", seed=5), data, taught, CPU))
    list(train_stage(predict_task(tiny_recipe, ("by_ce", 1.0), stage_id="of_ce"), data, taught, CPU))
    made = Predictions.load(taught.open("of_ce").folder)
    cache = data.unlabelled_cache
    wave_BT = np.stack([cache.read(row, start, 32_000) for row, start in zip(made.row_W, made.start_W, strict=True)])
    logits = own_logits(tiny_recipe, taught, wave_BT, "by_ce")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert 1 / (1 + np.exp(-made.logits_WC.astype(float))) == pytest.approx(softmax, abs=1e-3)


def test_a_head_hears_the_tones_of_soundscapes_without_labels(taught):
    made = Predictions.load(taught.open("of_head").folder)
    assert taught.record("of_head").species == ["low", "top"]
    assert made.logits_WC.argmax(axis=1)[[0, 1, 2, 3, 5, 6, 7, 8]].tolist() == [0, 0, 1, 1, 1, 1, 1, 1]


def test_recordings_that_validate_are_not_predicted(data, taught):
    made = Predictions.load(taught.open("recordings").folder)
    validates = data.dataset.recordings["is_validation"].to_numpy()
    assert set(made.row_W) == set(np.flatnonzero(~validates))


@pytest.mark.parametrize("made", ["unlabelled", "of_head"])
def test_predictions_go_on_after_an_interruption_to_the_same_numbers(tiny_recipe, data, taught, heads, monkeypatch, made):
    monkeypatch.setattr(predicting, "AT_ONCE", 4)
    teacher = "teacher" if made == "unlabelled" else heads["onnx"][1][1].stage_id
    task = predict_task(tiny_recipe, (teacher, 1.0), stage_id="again")
    taught.remove("again")
    calls = iter(["", "now"])
    with pytest.raises(StageInterrupted):
        list(train_stage(task, data, taught, CPU, stop=lambda: next(calls)))
    assert set(taught.unfinished()) == {"again"} and not taught.is_published("again")
    heard = []
    scorer = predicting.Scorer
    monkeypatch.setattr(
        predicting, "Scorer", lambda model, windows, *rest: heard.append(len(windows.truth_RC)) or scorer(model, windows, *rest)
    )
    (epoch,) = train_stage(task, data, taught, CPU)
    assert heard == [4, 2], "the first four windows were done" and epoch.is_last
    first, second = (Predictions.load(taught.open(name).folder).logits_WC for name in (made, "again"))
    assert np.array_equal(first, second) and taught.unfinished() == {}


def test_predictions_are_kept_between_two_interruptions_and_a_kill(tiny_recipe, data, taught, monkeypatch):
    monkeypatch.setattr(predicting, "AT_ONCE", 4)
    task = predict_task(tiny_recipe, stage_id="often")

    def kept() -> tuple[int, int, float]:
        logits_WC, number, seconds = taught.latest_epoch_checkpoint("often", predicting._read)
        return len(logits_WC), number, seconds

    calls = iter(["", "now"])
    with pytest.raises(StageInterrupted):
        list(train_stage(task, data, taught, CPU, stop=lambda: next(calls)))
    done, number, seconds = kept()
    assert (done, number) == (4, 1) and seconds > 0
    with pytest.raises(StageInterrupted):
        list(train_stage(task, data, taught, CPU, stop=lambda: "now"))
    assert kept()[:2] == (4, 2) and kept()[2] > seconds, "the time of all attempts"
    taught.drop_epoch_checkpoints("often")
    scorer, calls = predicting.Scorer, iter([True, False])
    monkeypatch.setattr(predicting, "Scorer", lambda *given: scorer(*given) if next(calls) else 1 / 0)
    busy = replace(task, config=replace(task.config, checkpoint_every_s=0.0))
    with pytest.raises(ZeroDivisionError):
        list(train_stage(busy, data, taught, CPU))
    assert kept()[:2] == (4, 1), "without a word of warning"
    taught.drop_epoch_checkpoints("often")


def test_several_teachers_are_averaged_by_their_weights(tiny_recipe, data, taught):
    list(train_stage(train_task(tiny_recipe, "second", seed=9), data, taught, CPU))
    list(train_stage(predict_task(tiny_recipe, ("second", 1.0), stage_id="of_second"), data, taught, CPU))
    list(train_stage(predict_task(tiny_recipe, ("teacher", 1.0), ("second", 3.0), stage_id="both"), data, taught, CPU))
    one, other, both = (Predictions.load(taught.open(name).folder).logits_WC for name in ("unlabelled", "of_second", "both"))
    assert both == pytest.approx(0.25 * one.astype(float) + 0.75 * other, abs=2e-3)
    assert set(taught.record("both").metrics) >= {"cmap", "auroc"} and taught.record("both").needs == ("teacher",)
    assert taught.record("both").metrics["cmap"] != taught.record("teacher").metrics["cmap"], "the score of both together"


def test_teachers_of_other_species_are_matched_by_name(tiny_recipe, data, taught):
    list(train_stage(train_task(tiny_recipe, "of_all", label_space="all", seed=7), data, taught, CPU))
    list(train_stage(predict_task(tiny_recipe, ("of_all", 1.0), stage_id="three"), data, taught, CPU))
    list(train_stage(predict_task(tiny_recipe, ("teacher", 1.0), ("of_all", 1.0), stage_id="two"), data, taught, CPU))
    assert taught.record("three").species == ["low", "mid", "top"] and taught.record("two").species == ["low", "top"]
    one, three, two = (Predictions.load(taught.open(name).folder).logits_WC for name in ("unlabelled", "three", "two"))
    assert two == pytest.approx(0.5 * one.astype(float) + 0.5 * three[:, [0, 2]], abs=2e-3)


def test_several_teachers_have_no_score_where_all_recordings_train(tiny_recipe, data, taught):
    list(train_stage(train_task(tiny_recipe, "third", seed=8), data, taught, CPU))
    whole = replace(data, dataset=data.dataset.all_training())
    both = predict_task(tiny_recipe, ("teacher", 1.0), ("third", 1.0), on="recordings", stage_id="of_all")
    list(train_stage(both, whole, taught, CPU))
    entry = taught.open("of_all")
    assert entry.record.metrics == {}
    assert set(Predictions.load(entry.folder).row_W) == set(range(len(data.dataset.recordings)))


def entry_of(logits, rows, on="unlabelled", species=("low", "top"), *, folder, starts=None) -> StageEntry:
    starts = np.zeros(len(rows), np.int64) if starts is None else np.array(starts)
    made = Predictions(row_W=np.array(rows), start_W=starts, window_samples=32_000, logits_WC=np.array(logits, dtype=np.float16))
    made.save(folder)
    record = type("Record", (), {"species": list(species), "identity": {"stage": {"predicts_on": on}}})
    return StageEntry(record, folder)


LOGITS = [[4.0, -4.0], [0.0, -1.0], [-6.0, -6.0]]
PROBABILITIES = 1 / (1 + np.exp(-np.array(LOGITS)))


def windows(tiny_recipe, data, entry, **settings):
    config = replace(tiny_recipe.stages[1], teacher=TeacherConfig(predictions="labels", **settings))
    return predicted_windows(config, data, data.dataset.target_species, entry)


def test_pseudo_labels_are_the_sure_ones_alone(tiny_recipe, data, tmp_path):
    last = entry_of(LOGITS[::-1], [0, 1, 1], folder=tmp_path, starts=[64_000, 0, 32_000])
    assert windows(tiny_recipe, data, last, threshold=0.4).start_W.tolist() == [0, 32_000]
    entry = entry_of(LOGITS, [0, 0, 1], folder=tmp_path)
    made = windows(tiny_recipe, data, entry, threshold=0.4, power=2.0, weight=0.5, resampling="confidence")
    assert made.row_W.tolist() == [0, 0], "the third window has nothing of at least .4"
    expected = np.where(PROBABILITIES >= 0.4, PROBABILITIES**2, 0)[:2]
    assert made.target_WC == pytest.approx(expected, abs=1e-3)
    assert made.weight_W.tolist() == [0.5, 0.5]
    assert made.sampling_weight_W == pytest.approx(PROBABILITIES.max(axis=1)[:2], abs=1e-3)
    assert windows(tiny_recipe, data, entry, threshold=0.5).row_W.tolist() == [0, 0], "a probability of .5 is at least .5"
    with pytest.raises(DataError, match=r"no species with a probability of 0\.999 anywhere \(its largest is 0\.98"):
        windows(tiny_recipe, data, entry, threshold=0.999)


def test_distillation_mixes_labels_of_recordings_with_predictions(tiny_recipe, data, tmp_path):
    table = training_table(data.dataset, data.dataset.target_species)
    rows = table.rows_R[[0, 0, 5]]
    entry = entry_of(LOGITS, rows, on="recordings", folder=tmp_path, starts=[0, 32_000, 0])
    made = windows(tiny_recipe, data, entry, mode="distillation", label_share=0.25, threshold=0.4)
    labels = table.target_RC.toarray()[[0, 0, 5]]
    assert made.target_WC == pytest.approx(0.25 * labels + 0.75 * PROBABILITIES, abs=1e-3)
    weight = table.sampling_weight_R
    assert made.sampling_weight_W == pytest.approx([weight[0] / 2, weight[0] / 2, weight[5]])


def test_distillation_without_labels_draws_every_window_with_its_sharpened_predictions(tiny_recipe, data, tmp_path):
    entry = entry_of(LOGITS, [0, 0, 1], folder=tmp_path, starts=[0, 32_000, 0])
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, clip_s=2.0) for stage in tiny_recipe.stages))
    made = windows(recipe, data, entry, mode="distillation", power=2.0, threshold=0.4, share=0.3)
    assert made.window_samples == 32_000 and made.names_R.tolist() == [
        "unlabelled_soundscapes/a.wav",
        "unlabelled_soundscapes/b.wav",
    ]
    assert made.row_W.tolist() == [0, 0, 1] and made.start_W.tolist() == [0, 32_000, 0]
    assert made.target_WC == pytest.approx(PROBABILITIES**2, abs=1e-3), "a threshold is of pseudo-labels alone"
    assert made.sampling_weight_W.tolist() == [1, 1, 1] and made.share == 0.3


def test_windows_of_recordings_have_the_weights_and_labels_of_these_and_those_without_a_species_are_left_out(
    tiny_recipe, data, tmp_path
):
    recordings = data.dataset.recordings
    first, second, other, *_ = np.flatnonzero((recordings["primary_label"] == "low") & ~recordings["is_validation"])
    changed = recordings.assign(rating=4.0)
    changed.loc[[first, second, other], "rating"] = [1.0, 2.0, 4.0]
    changed.at[second, "secondary_labels"] = ("top",)
    changed.loc[other, "primary_label"] = "heron"
    known = replace(data, dataset=replace(data.dataset, recordings=changed))
    entry = entry_of(LOGITS, [first, second, other], on="recordings", folder=tmp_path)
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, secondary_target=0.4) for stage in tiny_recipe.stages))
    made = windows(recipe, known, entry, mode="distillation", weight=2.0, label_share=1.0)
    assert made.row_W.tolist() == [first, second] and made.weight_W.tolist() == [0.5, 1.0]
    assert made.target_WC == pytest.approx(np.array([[1, 0], [1, 0.4]]), abs=1e-3)


def test_windows_of_recordings_have_the_shares_of_their_sources(tiny_recipe, data, tmp_path):
    table = training_table(data.dataset, data.dataset.target_species)
    rows = table.rows_R[[0, 0, 3, 5]]
    source = np.full(len(data.dataset.recordings), "z", dtype=object)
    source[rows[[0, 2, 3]]] = ["x", "y", "z"]
    named = replace(data, dataset=replace(data.dataset, recordings=data.dataset.recordings.assign(source=source)))
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, sources=(("x", 1.0), ("y", 3.0))) for stage in tiny_recipe.stages))
    entry = entry_of([*LOGITS, LOGITS[0]], rows, on="recordings", folder=tmp_path, starts=[0, 32_000, 0, 0])
    made = windows(recipe, named, entry, mode="distillation")
    assert made.sampling_weight_W == pytest.approx([0.125, 0.125, 0.75, 0])
    with pytest.raises(DataError, match="but y has none"):
        windows(recipe, named, entry, threshold=0.4)


def test_species_are_matched_by_name_and_strangers_are_refused(tiny_recipe, data, tmp_path):
    entry = entry_of([[9.0, 4.0, -4.0]], [0], species=("heron", "top", "zebra"), folder=tmp_path)
    made = windows(tiny_recipe, data, entry, threshold=0.1)
    assert made.target_WC.tolist() == [[0.0, pytest.approx(PROBABILITIES[0, 0], abs=1e-3)]]
    with pytest.raises(StoreError, match="species in common"):
        windows(tiny_recipe, data, entry_of(LOGITS, [0, 0, 1], species=("heron", "zebra"), folder=tmp_path))


def test_a_student_learns_from_its_teacher_and_says_what_it_lacks(tiny_recipe, data, taught):
    teacher = TeacherConfig(predictions="labels", share=0.5, threshold=0.01)
    task = train_task(tiny_recipe, "student", teacher=teacher, predictions_id="unlabelled")
    list(train_stage(task, data, taught, CPU))
    list(train_stage(train_task(tiny_recipe, "alone"), data, taught, CPU))
    student, alone, again = (taught.open(name).weights() for name in ("student", "alone", "teacher"))
    assert any(not torch.equal(student[name], alone[name]) for name in student)
    assert all(torch.equal(alone[name], again[name]) for name in alone), "without a teacher nothing changes"
    with pytest.raises(StoreError, match="learns from gone, which is not in the store"):
        list(train_stage(train_task(tiny_recipe, "other", teacher=teacher, predictions_id="gone"), data, taught, CPU))


def test_a_student_goes_on_after_an_interruption_to_the_same_weights(tiny_recipe, data, taught):
    teacher = TeacherConfig(predictions="labels", share=0.5, threshold=0.01, resampling="confidence")
    settings = {"epochs": 2, "optimizer": "radam", "schedule": "one_cycle", "thaw_every": 1, "ema_decay": 0.5, "teacher": teacher}
    whole, broken = (train_task(tiny_recipe, name, predictions_id="unlabelled", **settings) for name in ("whole", "broken"))
    epochs = [epoch.train_loss for epoch in train_stage(whole, data, taught, CPU)]
    calls = iter(["", "", "now"])
    with pytest.raises(StageInterrupted):
        list(train_stage(broken, data, taught, CPU, stop=lambda: next(calls)))
    assert [epoch.train_loss for epoch in train_stage(broken, data, taught, CPU)] == epochs
    one, other = (taught.open(name).weights() for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_labelled_soundscapes_train_where_some_are_for_it(tiny_recipe, tone_data, store, tmp_path):
    with pytest.raises(DataError, match=r"name some in soundscapes_for_training\.txt"):
        list(train_stage(train_task(tiny_recipe, "x", soundscape_share=0.5), tone_data, store, CPU))
    (tmp_path / "test_soundscapes").mkdir()
    soundfile.write(tmp_path / "test_soundscapes" / "S.wav", np.random.default_rng(0).normal(0, 0.1, 320_000), 32_000)
    (tmp_path / "test_soundscapes_labels.csv").write_text("row_id,labels\nS_5,low\nS_10,top\n")
    soundscapes = load_soundscapes(tmp_path)
    data = replace(
        tone_data,
        dataset=replace(tone_data.dataset, training_soundscapes=soundscapes),
        training_soundscape_cache=build_soundscape_cache(soundscapes, tmp_path / "cache"),
    )
    list(train_stage(train_task(tiny_recipe, "with", soundscape_share=0.5), data, store, CPU))
    assert not any(name.startswith("soundscapes/") for name in store.record("with").metrics), "they score nothing"


def test_teachers_as_a_text_come_back():
    several = (("0" * 64, 0.25), ("1" * 64, 0.75))
    assert parse_teachers(teachers_text(several)) == several
    assert parse_teachers(teachers_text(several[:1])) == (("0" * 64, 1.0),)
