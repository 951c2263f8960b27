"""The records of a sweep come back as they were written; what is wrong with one is said, and all stay as they are."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from damage import Damage, damages
from made_up import MadeUpWorkers, make_coordinator
from made_up_records import SEARCH, sweep_record

from birdclef_core.errors import InputError
from birdclef_core.json_files import to_json
from birdclef_core.store.storage import Storage
from sweeps.options import SweepOptions
from sweeps.sampling.draws import Outcome
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import VERSION, SweepRecord, SweepRecords, ToldDraw, TrialRecord
from sweeps.search import Choice, Range
from sweeps.search.search_files import load_search

RECORDS = Path(__file__).parents[2] / "data" / "records"

FIRST_PIECE = "trials/00000000-00000000.jsonl"

TRIAL = TrialRecord(
    trial="t0000",
    recipe="tiny",
    params={"train_ce.learning_rate": 1e-3, "pretrain.variant": 0, "train_ce.precision": "tf32"},
    stage_ids=["a" * 64, "b" * 64],
    stages=["pretrain_ce", "train_ce"],
    kinds=["all ce", "target ce"],
    config_id="c",
    status="pruned",
    stage="train_ce",
    epoch=3,
    epochs_done=5,
    epochs_trained=3,
    stage_scores={"pretrain_ce": 0.5},
    middle_scores={"train_ce": (5, 10, 0.25)},
    trained_ids=["a" * 64],
    metrics={"val/cmap": 0.25},
    score=0.5,
    spent_s={"train_ce": 1.5},
    reused_s={"pretrain_ce": 2.0},
    reason="below the others",
    stopped=Stopped(stage_id="b" * 64, rung=Rung("train_ce", 5, 10, "target ce"), score=0.25, reason="below the others"),
    told=[ToldDraw(draw=3, recipe="tiny", params={}, outcome=Outcome(kind="pruned", value=0.25, step=5))],
)


@pytest.fixture
def folder(tmp_path):
    workers = MadeUpWorkers(make_coordinator(tmp_path, samples=5))
    workers.run()
    records(tmp_path).save_sweep(sweep_record())
    return tmp_path / "sweep"


def records(folder) -> SweepRecords:
    return SweepRecords(Storage.parse(str(folder)).at("sweep"))


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(path: Path, change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_trial_comes_back_as_it_was_written(tmp_path):
    records(tmp_path).save_trials([TRIAL])
    assert records(tmp_path).load_trials() == [TRIAL]
    odd = replace(TRIAL, trial="t0001", status="failed", score=math.inf, metrics={"val/cmap": math.nan}, stopped=None, told=[])
    records(tmp_path).save_trials([odd])
    again = records(tmp_path).load_trials()[1]
    assert math.isnan(again.metrics.pop("val/cmap"))
    odd.metrics.clear()
    assert again == odd


@pytest.mark.parametrize("name", ["sed", "cnn", "all"])
def test_a_sweep_comes_back_with_its_search(tmp_path, name):
    part = sweep_record().parts[0]
    record = sweep_record(parts=(part, replace(part, first_trial=4, search=load_search(name))))
    records(tmp_path).save_sweep(record)
    assert records(tmp_path).load_sweep() == record


def test_runtime_fields_and_every_kind_of_value_of_a_search_come_back(tmp_path):
    recipe = SEARCH.recipes[0]
    stages = tuple(replace(stage, micro_batch_size=2, evaluation_batch_size=3) for stage in recipe.stages)
    space = {
        "train_ce.ema_decay": Choice((0.0, 0.9)),
        "train_ce.precision": Choice(("tf32", "float32")),
        "train_ce.freeze_encoder": Choice((True, False)),
        "train_ce.micro_batch_size": Choice((None, 2)),
        "every.clip_s": Range(5, 5),
    }
    search = replace(SEARCH, recipes=(replace(recipe, stages=stages),), space=space, small_space=space, sampler="random")
    records(tmp_path).save_sweep(sweep_record(parts=(replace(sweep_record().parts[0], search=search),)))
    again = records(tmp_path).load_sweep().parts[0].search
    assert again == search
    assert again.recipes[0].stages[0].evaluation_batch_size == 3
    assert [type(value) for value in again.space["train_ce.freeze_encoder"].values] == [bool, bool]


def refused(tmp_path: Path, read, file: str, damage: Damage) -> None:
    """The reader refuses the damaged file with its name and the place in it, and changes nothing."""
    (tmp_path / "sweep" / file).write_bytes(damage.content)
    before = contents(tmp_path)
    with pytest.raises(InputError) as error:
        read()
    said = str(error.value)
    assert f"{file} cannot be read: " in said or (damage.place.startswith("version") and "of version" in said)
    assert damage.place in said and "Nothing was changed" in said
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damage", list(damages(TrialRecord, to_json(TRIAL))), ids=lambda damage: damage.what)
def test_every_damage_to_a_trial_is_refused(tmp_path, damage):
    records(tmp_path).save_trials([TRIAL])
    refused(tmp_path, records(tmp_path).load_trials, FIRST_PIECE, damage)


@pytest.mark.parametrize(
    "damage", list(damages(SweepRecord, to_json(sweep_record()), defaults=True)), ids=lambda damage: damage.what
)
def test_every_damage_to_a_sweeps_record_is_refused(tmp_path, damage):
    records(tmp_path).save_sweep(sweep_record())
    refused(tmp_path, records(tmp_path).load_sweep, "sweep.json", damage)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values.update(score="high"), "cannot be read: in line 1, score must be a number, but is 'high'"),
        (lambda values: values["stopped"]["rung"].update(epoch="x"), "stopped.rung.epoch must be a whole number, but is 'x'"),
        (lambda values: values.update(kinds=["all ce"]), "stage_ids, stages and kinds must be of the same stages"),
        (
            lambda values: values.update(stage_ids=[], stages=[], kinds=[]),
            "stage_ids, stages and kinds must be of the same stages",
        ),
        (lambda values: values.update(stage_scores={"finetune": 1}), "must be of its stages, but finetune is none of them"),
        (lambda values: values.update(middle_scores={"x": [1, 2, 3]}), "must be of its stages, but x is none of them"),
        (lambda values: values.update(middle_scores={"train_ce": [1, 2]}), "middle_scores.train_ce.2 is missing"),
        (lambda values: values["stopped"]["rung"].update(stage="y"), "must be of its stages, but y is none of them"),
        (lambda values: values.update(trial="t0004"), "has no record of t0000, though there are 1 trials"),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path, change, reason):
    records(tmp_path).save_trials([TRIAL])
    edit(tmp_path / "sweep" / FIRST_PIECE, change)
    with pytest.raises(InputError, match=reason):
        records(tmp_path).load_trials()


def test_a_coordinator_changes_nothing_where_a_trial_is_damaged(folder):
    edit(folder / "trials/00000002-00000002.jsonl", lambda values: values.pop("told"))
    before = contents(folder)
    with pytest.raises(InputError, match=r"02\.jsonl cannot be read: in line 1, told is missing\. Nothing was changed"):
        make_coordinator(folder.parent, samples=9)
    assert contents(folder) == before


def test_a_missing_piece_is_a_gap(folder):
    (folder / "trials/00000002-00000002.jsonl").unlink()
    with pytest.raises(InputError, match=r"00000002-00000002\.jsonl is missing, though there are later ones"):
        make_coordinator(folder.parent, samples=9)


@pytest.mark.parametrize(("text", "version"), [("{}", "1"), ('{"version": 2}', "2"), ('{"version": "new"}', "'new'")])
def test_a_sweep_of_another_version_is_refused(folder, text, version):
    (folder / "sweep.json").write_text(text)
    with pytest.raises(
        InputError, match=f"sweep.json is of version {version}, and this version of the code reads version {VERSION}"
    ):
        records(folder.parent).load_sweep()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda part: part["options"].update(seed=-1), "parts.0.options: --seed >= 0 must hold, but got -1"),
        (
            lambda part: part["search"]["recipes"][0]["stages"][0].update(epochs=0),
            "parts.0.search.recipes.0.stages.0: epochs >= 1",
        ),
        (lambda part: part["search"]["pools"].update(train=0), "parts.0.search: A pool of search .* must be a group of stages"),
        (lambda part: part["search"]["space"]["train_ce.clip_s"].update(values=5), "clip_s.values must be a list, but is 5"),
    ],
)
def test_what_a_configuration_says_of_itself_is_said_with_its_place(folder, change, reason):
    edit(folder / "sweep.json", lambda values: change(values["parts"][0]))
    with pytest.raises(InputError, match=reason):
        records(folder.parent).load_sweep()


def test_a_sweep_without_parts_is_damaged(folder):
    edit(folder / "sweep.json", lambda values: values.update(parts=[]))
    with pytest.raises(InputError, match="parts must hold at least one part"):
        records(folder.parent).load_sweep()


def test_options_that_are_newer_than_a_sweep_have_their_defaults(folder):
    edit(folder / "sweep.json", lambda values: values["options"].pop("max_store_bytes"))
    assert records(folder.parent).load_sweep().options == SweepOptions(search="sed", name="s")


def test_a_driver_that_is_killed_between_two_records_leaves_none_out(tmp_path):
    """Trials are drawn ahead and the largest group of them starts first; its record must not come before older ones'."""
    coordinator = make_coordinator(tmp_path, samples=12)
    saved = []
    save = coordinator.book._storage.save_trials
    coordinator.book._storage.save_trials = lambda trials: (saved.extend(trial.trial for trial in trials), save(trials))
    MadeUpWorkers(coordinator).run()
    first_saves = list(dict.fromkeys(saved))
    assert first_saves == sorted(first_saves) and len(first_saves) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "finished", "score": None}, "a finished trial must have a score"),
        ({"stopped": None}, "a pruned trial must say in `stopped`"),
        ({"stages": ["train_ce", "train_ce"], "stage_scores": {}}, "a name of its own, but they are train_ce, train_ce"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(tmp_path, changes, message):
    records(tmp_path).save_trials([replace(TRIAL, **changes)])
    with pytest.raises(InputError, match=message):
        records(tmp_path).load_trials()


@pytest.mark.parametrize(
    ("params", "recipe"),
    [
        ({"train_ce.learning_rate": "fast"}, "cnn_b0ns"),
        ({"train_ce.learning_rate": math.nan}, "cnn_b0ns"),
        ({"train_ce.learning_rate": 5.0}, "cnn_b0ns"),
        ({}, "cnn_b0ns"),
        ({}, "nope"),
    ],
)
def test_an_open_trial_whose_parameters_were_changed_is_refused(tmp_path, params, recipe):
    """Its chain cannot be made: that was a traceback of Optuna's. An ended trial is not compared with others then."""
    search = replace(SEARCH, pools={})
    point = search.point_of("cnn_b0ns", {"train_ce.learning_rate": 5e-4, "train_ce.clip_s": 5.0})
    assert point is not None
    record = replace(TRIAL, status="running", stopped=None, recipe="cnn_b0ns", params=point)
    place, whole = records(tmp_path), sweep_record()
    sweep = replace(whole, parts=(replace(whole.parts[0], search=search),))
    place.check_points(sweep, [record])
    changed = replace(record, recipe=recipe, params={**point, **params} if params else {})
    with pytest.raises(InputError, match=r"trials says that t0000 has recipe .* which the sweep's search cannot have drawn"):
        place.check_points(sweep, [changed])
    place.check_points(sweep, [replace(changed, status="failed")])
