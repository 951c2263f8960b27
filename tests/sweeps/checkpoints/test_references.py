"""What a user calls a checkpoint stands for one stage, or the answer names what there is."""

from dataclasses import replace

import pytest
from made_up_records import sweep_record
from made_up_store import A, B, C, P, make, publish, save_trial

from birdclef_core.errors import InputError
from sweeps.checkpoints.garbage import needed_by
from sweeps.checkpoints.references import resolve, sweeps_in
from sweeps.schedule.records import SweepRecords


@pytest.fixture
def storage(tmp_path):
    return make(str(tmp_path))


@pytest.mark.parametrize(
    ("reference", "stage_id"),
    [("9999", P), (A, A), ("s", C), ("s/", C), ("s/t0000", C), ("s/t0000/pretrain_ce", P), ("s/t0001", B)],
)
def test_a_reference_stands_for_a_stage(storage, reference, stage_id):
    assert resolve(storage, reference) == stage_id


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        ("nowhere", r"'nowhere' must be .*no such stage or sweep. Its sweeps: s\."),
        ("999", "no such stage or sweep"),
        ("", "no such stage or sweep"),
        ("s/t0000/train_ce/x", "no such stage or sweep"),
        ("s/t0007", "no trial 't0007'; it has t0000, t0001"),
        ("s/t0000/train_bce", "no stage 'train_bce'; it has pretrain_ce, train_ce, finetune"),
    ],
)
def test_what_stands_for_nothing_is_refused_with_what_there_is(storage, reference, answer):
    with pytest.raises(InputError, match=answer):
        resolve(storage, reference)


def test_the_beginning_of_several_ids_is_refused(storage):
    publish(storage, "9999" + "0" * 60, "pretrain_ce")
    with pytest.raises(InputError, match=r"one stage id, but 2 begin with it: 9999000000000000, 9999999999999999"):
        resolve(storage, "9999")


def test_a_trial_that_has_finished_no_stage_and_a_sweep_without_a_result_are_said(storage):
    save_trial(storage, "t0000", (P, A), sweep="new", status="interrupted", stage_scores={})
    with pytest.raises(InputError, match="finished no stage yet"):
        resolve(storage, "new/t0000")
    with pytest.raises(InputError, match="Sweep new has no finished trial"):
        resolve(storage, "new")
    assert sweeps_in(storage) == ["new", "s"]


def test_a_sweep_with_a_pareto_front_stands_for_its_best_score_and_needs_all_of_its_front(storage):
    """Of two equal scores it stands for the cheaper one, as the ranking has it."""
    part = sweep_record().parts[0]
    search = replace(part.search, objective="val/cmap, cost/cpu_seconds_10min")
    records = SweepRecords(storage.at("both"))
    records.save_sweep(sweep_record(parts=(replace(part, search=search),)))
    stages = [number * 64 for number in "1234"]
    for number, (score, seconds) in enumerate(((0.9, 20.0), (0.9, 16.0), (0.5, 2.5), (0.4, 2.5))):
        save_trial(storage, f"t{number:04d}", (P, stages[number]), sweep="both", score=score, cpu_seconds=seconds)
    assert resolve(storage, "both") == stages[1]
    assert needed_by(records, records.load_trials()) == {P, stages[1], stages[2]}
