"""A stage that is stopped, killed or damaged goes on to the same bits."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.interruption import StageInterrupted, Termination, TimeLimit, any_of, never
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import MANIFEST, Storage

CPU = torch.device("cpu")
STEPS = 4
"""An epoch's."""

KILLED_IN_ITS_SIXTH_STEP = """
import os, pickle, signal, sys, torch
torch.set_num_threads(1)
from birdclef_core.stages.training import train_stage
task, data, store = pickle.load(open(sys.argv[1], "rb"))
steps = 0
def stop():
    global steps
    steps += 1
    if steps == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return ""
list(train_stage(task, data, store, torch.device("cpu"), stop=stop))
"""


@pytest.fixture
def notes():
    return []


@pytest.fixture
def store(tmp_path, notes):
    return StageStore(Storage.parse(str(tmp_path / "store")), notes.append)


@pytest.fixture
def other(tmp_path, notes):
    return StageStore(Storage.parse(str(tmp_path / "other")), notes.append)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, tiny_recipe, tone_data):
    """A store with the stage `task(tiny_recipe)`, trained in one go, and its epochs; how often checkpoints are written changes nothing."""
    store = StageStore(Storage.parse(str(tmp_path_factory.mktemp("undisturbed"))))
    return store, list(train_stage(task(tiny_recipe), tone_data, store, CPU))


def task(recipe, **changes) -> StageTask:
    config = replace(recipe.stages[0], epochs=2, clips_per_epoch=4 * STEPS, **changes)
    return StageTask(
        stage_id="s", parent_id=None, recipe=recipe.name, model=recipe.model, config=config, pretrained=RANDOM, identity={}
    )


def at_call(number: int):
    """Stops when asked for the so-manieth time: after each step, and after each batch of evaluation."""
    calls = iter(range(1, 1000))
    return lambda: "told to" if next(calls) == number else ""


def assert_same_outcome(first, second, *, store, other):
    assert second[-1].train_loss == first[-1].train_loss
    assert second[-1].scores == first[-1].scores
    expected, got = store.open("s").weights(), other.open("s").weights()
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    history, resumed = store.record("s").history, other.record("s").history
    assert [entry["train_loss"] for entry in resumed] == [entry["train_loss"] for entry in history]
    assert other.unfinished() == {}


def unfinished(store) -> list[str]:
    return store.storage.at("unfinished", "s").names()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "changes"),
    [
        (2, {}),
        (STEPS + 1, {}),
        (STEPS + 4, {"ema_decay": 0.9, "clip_gradient_norm": 1.0, "micro_batch_size": 3}),
        (2 * STEPS + 2, {"average_epochs": 2}),
        (STEPS + 3, {"early_stop_epochs": 1, "loss": "bce"}),
        (3, {"optimizer": "adamw", "warmup_epochs": 1.3, "layer_decay": 0.8, "loss": "soft_auc"}),
        (STEPS + 4, {"optimizer": "radam", "schedule": "one_cycle", "thaw_every": 1, "clip_candidates": 2}),
    ],
    ids=[
        "first epoch",
        "scoring",
        "with an average over steps",
        "scoring an average over epochs",
        "with an early stop",
        "in a warm-up",
        "while it thaws",
    ],
)
def test_stopped_and_gone_on_ends_with_the_same_bits(tiny_recipe, tone_data, store, undisturbed, other, call, changes):
    chosen = task(tiny_recipe, **changes)
    store, whole = (store, list(train_stage(chosen, tone_data, store, CPU))) if changes else undisturbed
    with pytest.raises(StageInterrupted, match="told to"):
        list(train_stage(chosen, tone_data, other, CPU, stop=at_call(call)))
    assert unfinished(other)
    torch.rand(3)
    rest = list(train_stage(chosen, tone_data, other, CPU))
    assert_same_outcome(whole, rest, store=store, other=other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_it_ends_near_where_it_would_have(tiny_recipe, tone_data, store, other):
    """Not to the bit: a GPU adds up in any order. The bound is a thousandth of the loss."""
    gpu = torch.device("cuda")
    whole = list(train_stage(task(tiny_recipe), tone_data, store, gpu))
    with pytest.raises(StageInterrupted):
        list(train_stage(task(tiny_recipe), tone_data, other, gpu, stop=at_call(STEPS + 3)))
    rest = list(train_stage(task(tiny_recipe), tone_data, other, gpu))
    assert rest[-1].train_loss == pytest.approx(whole[-1].train_loss, rel=1e-3)


@pytest.mark.slow
def test_a_process_killed_within_an_epoch_goes_on_to_the_same_bits(tiny_recipe, tone_data, undisturbed, other, tmp_path):
    """In a process of its own: torch does not train in a fork of one that has trained."""
    chosen = task(tiny_recipe, checkpoint_every_s=0.0)
    store, whole = undisturbed
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((chosen, tone_data, StageStore(other.storage))))
    command = [sys.executable, "-c", KILLED_IN_ITS_SIXTH_STEP, str(tmp_path / "work.pickle")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rest = list(train_stage(chosen, tone_data, other, CPU))
    assert [epoch.epoch for epoch in rest] == [2], "the first epoch is not trained again"
    assert_same_outcome(whole, rest, store=store, other=other)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["state.safetensors", "counters.json"])
def test_a_damaged_checkpoint_costs_no_more_than_the_one_before(tiny_recipe, tone_data, undisturbed, other, notes, file):
    """Counters that are of other code are damaged too, though their hash is right."""
    chosen = task(tiny_recipe, checkpoint_every_s=0.0)
    store, whole = undisturbed
    with pytest.raises(StageInterrupted):
        list(train_stage(chosen, tone_data, other, CPU, stop=at_call(3)))
    newest = unfinished(other)[-1]
    other.storage.write_text(f"unfinished/s/{newest}/{file}", '{"steps": 3}')
    if file == "counters.json":
        other.storage.delete(f"unfinished/s/{newest}/{MANIFEST}")
        with other.storage.write_bundle(f"unfinished/s/{newest}"):
            pass
    rest = list(train_stage(chosen, tone_data, other, CPU))
    assert len(notes) == 1 and "is damaged and was removed" in notes[0]
    assert_same_outcome(whole, rest, store=store, other=other)


def test_within_an_epoch_a_checkpoint_is_written_when_its_time_has_come(tiny_recipe, tone_data, store, other):
    for where, every_s, expected in ((store, 0.0, ["e0002", "e0003"]), (other, 600.0, ["e0001"])):
        with pytest.raises(StageInterrupted):
            list(train_stage(task(tiny_recipe, checkpoint_every_s=every_s), tone_data, where, CPU, stop=at_call(3)))
        assert unfinished(where) == expected


def test_sigterm_ends_a_stage_at_its_next_step_with_its_checkpoint(tiny_recipe, tone_data, store):
    steps = []

    def terminate_in_the_second_step() -> str:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return ""

    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination, pytest.raises(StageInterrupted, match="epoch 1, step 2: SIGTERM was received"):
        stop = any_of(terminate_in_the_second_step, termination)
        list(train_stage(task(tiny_recipe), tone_data, store, CPU, stop=stop))
    assert signal.getsignal(signal.SIGTERM) is before
    assert unfinished(store) == ["e0001"]


def test_the_time_limit_gives_its_reason_once_it_has_passed():
    assert TimeLimit(60)() == ""
    assert TimeLimit(0)() == "the time limit of 0 s has passed"
    assert any_of(never, TimeLimit(60))() == ""
    assert any_of(never, TimeLimit(0))().startswith("the time limit")


def test_the_seconds_before_interruptions_within_an_epoch_are_in_its_cost(tiny_recipe, tone_data, store, monkeypatch):
    """Each step takes 1000 s more on a made-up clock while the stage is asked whether to stop."""
    passed_s, clock = 0.0, time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + passed_s)

    def after_steps(number: int):
        stop = at_call(number)

        def wait_and_stop() -> str:
            nonlocal passed_s
            passed_s += 1000.0
            return stop()

        return wait_and_stop

    chosen = task(tiny_recipe)
    for steps in (2, 1):
        with pytest.raises(StageInterrupted):
            list(train_stage(chosen, tone_data, store, CPU, stop=after_steps(steps)))
    first, second = train_stage(chosen, tone_data, store, CPU)
    assert 3000 < first.epoch_s < 3500 and second.epoch_s < 500
    assert first.clips_per_s == pytest.approx(4 * STEPS / 3000, rel=0.1)
    record = store.record("s")
    assert [entry["epoch_s"] for entry in record.history] == [first.epoch_s, second.epoch_s]
    assert record.cost_s == pytest.approx(first.epoch_s + second.epoch_s)
