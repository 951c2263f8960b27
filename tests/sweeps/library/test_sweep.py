"""A sweep as a Python object: its table of trials, its best trial, its stages, its study."""

import subprocess
import sys
from dataclasses import replace

import made_up_records
import made_up_store
import optuna
import pandas as pd
import pytest
from made_up_detector import publish_random

from birdclef_core.errors import InputError
from birdclef_core.reports.stage_report import PREDICTIONS
from birdclef_core.store.storage import Storage
from sweeps import load_sweep
from sweeps.cli.birdclef import birdclef
from sweeps.library.sweep import joined_search
from sweeps.sampling.draws import Outcome
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import SweepRecords, ToldDraw
from sweeps.search.space import Choice, Range

RECIPE = made_up_records.SEARCH.recipes[0].name
SPACE = {"train_ce.learning_rate": Range(1e-4, 1e-3, log=True), "train_ce.clip_s": Choice((3.0, 5.0))}
POINTS = (
    {"train_ce.learning_rate": 2e-4, "train_ce.clip_s": 3.0},
    {"train_ce.learning_rate": 5e-4, "train_ce.clip_s": 5.0},
)


def told(outcome: Outcome, params) -> list[ToldDraw]:
    return [ToldDraw(draw=0, recipe=RECIPE, params=params, outcome=outcome)]


@pytest.fixture
def place(tmp_path):
    """P -> A -> C (t0000, finished), P -> B (t0001, stopped at train_ce), and P -> A (t0002, still running)."""
    storage = made_up_store.make(str(tmp_path))
    record = made_up_records.sweep_record()
    part = replace(record.parts[0], search=replace(made_up_records.SEARCH, space=SPACE, pools={}))
    SweepRecords(storage.at("s")).save_sweep(replace(record, parts=(part,)))
    P, A, B, C = made_up_store.P, made_up_store.A, made_up_store.B, made_up_store.C
    made_up_store.save_trial(
        storage,
        "t0000",
        (P, A, C),
        score=0.5,
        recipe=RECIPE,
        params=POINTS[0],
        metrics={"val/cmap": 0.5, "val/cmap_se": 0.03},
        stage_scores={"pretrain_ce": 0.2, "train_ce": 0.4, "finetune": 0.5},
        spent_s={"train_ce": 3600.0, "finetune": 1800.0},
        reused_s={"pretrain_ce": 7200.0},
        told=told(Outcome(kind="score", value=0.5), POINTS[0]),
    )
    made_up_store.save_trial(
        storage,
        "t0001",
        (P, B, "f" * 64),
        status="pruned",
        reason="low",
        recipe=RECIPE,
        params=POINTS[1],
        stage_scores={"pretrain_ce": 0.2, "train_ce": 0.3},
        stopped=Stopped(rung=Rung("train_ce", 0, 0, "target ce"), stage_id=B, score=0.3, by="rank", reason="low"),
        told=told(Outcome(kind="pruned", value=0.3, step=6), POINTS[1]),
    )
    made_up_store.save_trial(storage, "t0002", (P, A), status="running", recipe=RECIPE, params=POINTS[0], stage_scores={})
    return tmp_path


def test_trials_are_a_table_from_the_best_to_the_worst(place):
    table = load_sweep("s", storage=str(place)).trials()
    assert table.index.tolist() == ["t0000", "t0001", "t0002"]
    first, second, third = (row for _, row in table.iterrows())
    assert (first["score"], first["score_se"], first["val/cmap"], first["train_ce.clip_s"]) == (0.5, 0.03, 0.5, 3.0)
    assert (first["device_hours"], first["saved_hours"], first["stage_id"]) == (1.5, 2.0, made_up_store.C)
    assert pd.isna(second["score"]) and (second["reason"], second["last_stage"], second["last_score"]) == ("low", "train_ce", 0.3)
    assert (third["status"], third["last_stage"], third["stage_id"]) == ("running", "", "") and pd.isna(third["last_score"])


def test_the_best_trial_and_its_stages(place):
    sweep = load_sweep("s", storage=str(place))
    best = sweep.best()
    assert (best.record.trial, best.score, best.params) == ("t0000", 0.5, POINTS[0])
    assert best.stage().id == made_up_store.C and best.stage("train_ce").id == made_up_store.A
    assert sweep.stage(made_up_store.B[:8]).scores == {"cmap": 0.5}
    assert sweep.trial("t0001").score is None
    with pytest.raises(InputError, match=r"no trial 't0009'; it has t0000 to t0002"):
        sweep.trial("t0009")


def test_without_a_finished_trial_there_is_no_best_one(tmp_path):
    storage = Storage.parse(str(tmp_path))
    made_up_store.publish(storage, made_up_store.P, "pretrain_ce")
    made_up_store.save_trial(storage, "t0000", (made_up_store.P,), status="running")
    with pytest.raises(InputError, match="s has no finished trial"):
        load_sweep("s", storage=str(tmp_path)).best()


def test_a_stage_has_its_predictions(place):
    sweep = load_sweep("s", storage=str(place))
    stage = sweep.stage(made_up_store.A[:8])
    expected = pd.DataFrame({"x": [0.25, 0.5]}, index=pd.Index(["XC1", "XC2"], name="recording_id"), dtype="float32")
    record = replace(stage.record, stage_id="e" * 64)
    with stage.store.publish(lambda: record, record.stage_id) as folder:
        expected.to_parquet(folder / PREDICTIONS)
    pd.testing.assert_frame_equal(sweep.stage("eeee").predictions(), expected)


def test_predictions_out_of_fold_are_those_of_the_models_that_did_not_learn_from_a_recording(place):
    storage = Storage.parse(str(place))
    stages = made_up_store.store(storage)
    for fold in range(2):
        predicted = pd.DataFrame({"x": [0.25 + fold / 2]}, index=pd.Index([f"XC{fold}"], name="recording_id"), dtype="float32")
        record = replace(stages.record(made_up_store.C), stage_id=f"{fold}e" * 32)
        with stages.publish(lambda record=record: record, record.stage_id) as folder:
            predicted.to_parquet(folder / PREDICTIONS)
    names = ["train_ce@fold0", "train_ce@fold1", "finetune@fold0", "finetune@fold1"]
    made_up_store.save_trial(
        storage,
        "t0003",
        (made_up_store.A, made_up_store.B, "0e" * 32, "1e" * 32),
        stages=names,
        kinds=["target ce"] * 4,
        score=0.6,
        stage_scores=dict.fromkeys(names, 0.5),
    )
    sweep = load_sweep("s", storage=str(place))
    table = sweep.trial("t0003").out_of_fold()
    assert table.to_dict("index") == {"XC0": {"x": 0.25, "fold": 0}, "XC1": {"x": 0.75, "fold": 1}}
    for name in ("t0000", "t0002"):
        with pytest.raises(InputError, match=f"of a finished trial of a sweep with --folds, but {name} is none"):
            sweep.trial(name).out_of_fold()


def test_the_model_of_a_trial_predicts(tmp_path):
    storage = Storage.parse(str(tmp_path))
    publish_random(made_up_store.store(storage), "ab" * 32)
    made_up_store.save_trial(storage, "t0000", ("ab" * 32,), score=0.5)
    assert load_sweep("s", storage=str(tmp_path)).best().model(device="cpu").detector.model_id == "ab" * 32


def test_the_study_has_all_trials_that_have_ended(place):
    study = load_sweep("s", storage=str(place)).study()
    assert isinstance(study, optuna.Study) and study.study_name == "s"
    finished, pruned = study.trials
    assert (finished.value, finished.params, finished.user_attrs["trial"]) == (0.5, {"recipe": RECIPE, **POINTS[0]}, "t0000")
    assert finished.user_attrs["stage_id"] == made_up_store.C
    assert (pruned.state, pruned.intermediate_values) == (optuna.trial.TrialState.PRUNED, {6: 0.3})
    assert study.best_trial.number == 0


def test_a_study_in_a_file_is_opened_by_optuna_and_written_again_beside_others(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    optuna.create_study(study_name="other", storage="sqlite:///study.db")
    for _ in range(2):
        assert birdclef(["sweeps", "export", "s", "--storage", str(place), "--optuna", "study.db"]) == 0
    assert "2 trials of s written: optuna-dashboard sqlite:///study.db" in capsys.readouterr().out
    assert optuna.get_all_study_names("sqlite:///study.db") == ["other", "s"]
    study = optuna.load_study(study_name="s", storage="sqlite:///study.db")
    kept = load_sweep("s", storage=str(place)).study()
    assert [(trial.state, trial.params, trial.user_attrs, trial.values) for trial in study.trials] == [
        (trial.state, trial.params, trial.user_attrs, trial.values) for trial in kept.trials
    ]
    assert study.trials[1].intermediate_values == {6: 0.3}


def test_a_study_never_overwrites_what_is_none(place, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    for name, message in (("notes.txt", "but it is something else"), ("none/study.db", "none is not")):
        assert birdclef(["sweeps", "export", "s", "--storage", str(place), "--optuna", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_study_of_an_extended_sweep_knows_the_values_of_all_parts():
    first = replace(made_up_records.SEARCH, space=SPACE, pools={})
    second = replace(first, space={"train_ce.clip_s": Choice((10.0, 5.0)), "train_ce.learning_rate": Range(5e-5, 5e-4, log=True)})
    joined = joined_search([first, second], [])
    assert joined.space == {
        "train_ce.clip_s": Choice((3.0, 5.0, 10.0)),
        "train_ce.learning_rate": Range(5e-5, 1e-3, log=True),
    }
    third = replace(first, space={"train_ce.clip_s": Range(5.0, 20.0)})
    assert joined_search([first, third], [{"train_ce.clip_s": 7.5}]).space["train_ce.clip_s"] == Choice((3.0, 5.0, 7.5))


def test_a_sweep_that_is_not_there(place):
    with pytest.raises(InputError, match=r"There is no sweep 'other' .* exist: s"):
        load_sweep("other", storage=str(place))
    with pytest.raises(InputError, match="There is no store"):
        load_sweep("s", storage=str(place / "nowhere"))


def test_importing_the_package_imports_nothing_slow():
    code = "import sys, sweeps, birdclef_core; print([name for name in ('torch', 'ray', 'optuna', 'pandas', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_records_of_a_sweep_are_read_once(place):
    sweep = load_sweep("s", storage=str(place))
    SweepRecords(Storage.parse(str(place)).at("s")).storage.delete("trials")
    assert len(sweep.trials()) == 3


def test_with_a_cost_the_front_comes_first_in_the_table_and_is_a_list_of_trials(place):
    records = SweepRecords(Storage.parse(str(place)).at("s"))
    sweep = records.load_sweep()
    search = replace(sweep.parts[0].search, objective="val/cmap, cost/cpu_seconds_10min")
    records.save_sweep(replace(sweep, parts=(replace(sweep.parts[0], search=search),)))
    values = {"recipe": RECIPE, "metrics": {"val/cmap": 0.5}}
    for trial, score, seconds in (("t0000", 0.4, 9.0), ("t0001", 0.5, 8.0), ("t0002", 0.2, 1.5)):
        outcome = Outcome(kind="score", value=score, cost=seconds)
        made_up_store.save_trial(
            Storage.parse(str(place)),
            trial,
            (made_up_store.P,),
            score=score,
            cpu_seconds=seconds,
            params=POINTS[0],
            told=told(outcome, POINTS[0]),
            **values,
        )
    loaded = load_sweep("s", storage=str(place))
    table = loaded.trials()
    assert table.index.tolist() == ["t0001", "t0002", "t0000"]
    assert table["front"].tolist() == [True, True, False] and table["cost/cpu_seconds_10min"].tolist() == [8.0, 1.5, 9.0]
    assert [trial.record.trial for trial in loaded.front()] == ["t0001", "t0002"] and loaded.best().record.trial == "t0001"
    assert sorted(trial.values for trial in loaded.study().best_trials) == [[0.2, 1.5], [0.5, 8.0]]
