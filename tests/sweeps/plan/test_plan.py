"""A plan says what a sweep will train: the same that the simulated sweep trains, less what the store has."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from damage import damages
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search, make_students, summary_of
from made_up_stages import publish
from pages import HOSTILE, Page

from birdclef_core.errors import InputError
from birdclef_core.json_files import to_json
from birdclef_core.models.encoders import RANDOM
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import Spread
from sweeps.budget import Limits
from sweeps.devices import DeviceSpeeds
from sweeps.execution.nodes.slots import Slots
from sweeps.plan import planner as planner_module
from sweeps.plan.costs import FORWARD_SHARE, CostModel, DataSize, HeardSound, Measurement, work_of_task
from sweeps.plan.picture import plan_page
from sweeps.plan.plan import PLANNED_WITHOUT_COSTS, Amount, Plan, make_plan
from sweeps.plan.planner import PlanFigures, Planner, _usual_gpu, against_actual, load_plan, save_plan
from sweeps.plan.text import plan_lines
from sweeps.schedule.records import TrialRecord
from sweeps.search import Choice, Range

SIZE = DataSize(num_training=1000, evaluated_s_R=np.array([0.0]))


def grid_tree():
    """2 pretrainings x 3 x 4, of one recipe."""
    search = make_search(pools={"pretrain": 2})
    space = {
        **search.space,
        "train_ce.learning_rate": Choice((1e-3, 2e-3, 3e-3)),
        "train_bce.learning_rate": Choice((1e-4, 2e-4, 3e-4, 4e-4)),
    }
    del space["train.clip_s"]
    return make_chain_builder(replace(search, recipes=search.recipes[:1], space=space))


def make(chains, *, known=True, stored=(), samples=24, workers=2, known_trials=(), **limits) -> Plan:
    """Every epoch takes about 36 s."""
    costs = CostModel([], {"all": SIZE, "target": SIZE}, data="here")
    baseline = chains.chain(chains.search.recipes[0].name, chains.search.baseline(chains.search.recipes[0]))
    for task in baseline if known else ():
        rate = 256 / 36
        costs.add(Measurement(work=work_of_task(task), clip_s=5.0, clips_per_s=Spread(low=rate / 2, middle=rate, high=rate * 2)))
    return make_plan(
        chains,
        samples=samples,
        workers=workers,
        gpus_per_worker=0.5,
        device="a GPU",
        stored={stage_id: summary_of(baseline[0], code=stage_id) for stage_id in stored},
        costs=costs,
        stage_bytes=lambda task: 2**20,
        known=known_trials,
        limits=Limits(**limits),
    )


def on_cards(**devices: int) -> Plan:
    """The grid without pruning, on cards of which a T4 is a fourth as fast as an H100."""
    speeds = DeviceSpeeds(base="H100")
    for device, rate in (("H100", 8.0), ("H100", 8.0), ("T4", 2.0)):
        speeds.learn(device, "work", rate)
    costs = CostModel([], {"all": SIZE, "target": SIZE}, data="here")
    chains, rate = grid_tree(), Spread(low=1.0, middle=1.0, high=1.0)
    for task in chains.chain("sed_v2s", chains.search.baseline(chains.search.recipes[0])):
        costs.add(Measurement(work=work_of_task(task), clip_s=5.0, clips_per_s=rate))
    workers, known = (
        sum(devices.values()),
        {"samples": 24, "gpus_per_worker": 1.0, "device": "H100", "stored": {}, "costs": costs},
    )
    sizes = {"stage_bytes": lambda task: None, "pruning": "off"}
    return make_plan(chains, workers=workers, devices=devices, speeds=speeds, **known, **sizes)


def test_a_plan_knows_how_fast_its_cards_are():
    fast, slow, both = on_cards(H100=2), on_cards(H100=1, T4=1), on_cards(T4=2)
    middle = [[amount.middle for amount in (plan.shared.worker_hours, plan.shared.wall_hours)] for plan in (fast, slow, both)]
    assert both.shared.worker_hours.middle == pytest.approx(4 * fast.shared.worker_hours.middle)
    assert middle[0][0] < middle[1][0] < middle[2][0] and middle[0][1] < middle[1][1] < middle[2][1]
    assert slow.alone.wall_hours.middle == pytest.approx(fast.alone.wall_hours.middle * 2 / 1.25)
    assert slow.alone.worker_hours.middle == pytest.approx(fast.alone.worker_hours.middle / 0.625)
    lines = "\n".join(plan_lines(slow))
    assert "on 2 workers, 1 of 1 x H100 and 1 of 1 x T4" in lines
    assert "Speeds beside H100, of whose hours the tree is: 1 x H100 at 1.00 (from 2 stages), 1 x T4 at 0.25 (from 1" in lines
    assert "1 x L4 at 1.00 (nothing is known of it)" in "\n".join(plan_lines(on_cards(H100=1, L4=1)))
    assert "Speeds" not in "\n".join(plan_lines(fast))


def test_the_plan_of_a_grid_is_the_grid():
    plan = make(grid_tree())
    epochs = {"pretrain_ce": 3, "pretrain_bce": 1, "train_ce": 3, "train_bce": 3, "finetune": 1}
    assert (plan.trials, plan.stages_asked) == (24, 24 * 5)
    assert plan.stages_unique == 2 + 2 + 6 + 24 + 24
    assert plan.alone.epochs == 24 * sum(epochs.values())
    assert plan.shared.epochs == 2 * 4 + 6 * 3 + 24 * 4 == 122
    assert plan.merge_rate == 24 * 11 / 122
    assert plan.pruned.epochs < plan.shared.epochs
    assert plan.shared.worker_hours.middle == pytest.approx(122 / 100, rel=0.01)
    assert plan.shared.wall_hours.middle == pytest.approx(0.61, rel=0.1)
    assert plan.shared.worker_hours.low < plan.shared.worker_hours.middle < plan.shared.worker_hours.high
    assert plan.stored_bytes == plan.stages_unique * 2**20


@pytest.mark.parametrize("samples", [5, 24, 64])
def test_a_plan_counts_the_stages_of_its_tree_and_no_others(samples):
    """The run with pruning draws other trials: their stages were once counted, so that sharing seemed to cost more than not sharing."""
    search = replace(make_search(), recipes=make_search().recipes[:1])
    plan = make(make_chain_builder(search), samples=samples, workers=8)

    def count(nodes) -> int:
        return sum(1 + count(node.children.values()) for node in nodes)

    in_tree = count(plan.recipes.values()) - len(plan.recipes)
    assert plan.stages_unique == in_tree
    assert plan.stored_bytes == in_tree * 2**20
    assert plan.shared.worker_hours.middle <= plan.alone.worker_hours.middle * (1 + 1e-9)
    assert sum(plan.bases.values()) == in_tree


def test_what_the_store_has_costs_nothing():
    chains = grid_tree()
    baseline = chains.chain("sed_v2s", chains.search.baseline(chains.search.recipes[0]))
    plan = make(chains, stored=[task.stage_id for task in baseline[:2]])
    assert plan.stages_stored == 2
    assert plan.shared.epochs == 122 - 4
    assert plan.alone.epochs == 24 * 11


def test_the_plan_of_an_extension_is_of_the_new_trials_alone(tmp_path):
    """The store has what the old ones trained, and draws that are old trials are not trials of the extension."""
    chains = grid_tree()
    workers = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=18))
    workers.run()
    known = list(workers.coordinator.trials.values())
    before = [to_json(record) for record in known]
    plan = make(chains, stored=workers.published, samples=30, known_trials=known)
    assert plan.trials == 24 - 18
    assert plan.stages_asked == 6 * 5
    assert plan.shared.epochs < plan.alone.epochs == 6 * 11
    assert plan.stages_stored >= 2
    assert [to_json(record) for record in known] == before, "planning does not touch them"


def test_an_extension_that_finds_nothing_new_is_an_empty_plan(tmp_path):
    chains = grid_tree()
    workers = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=30, prunes=False))
    workers.run()
    plan = make(chains, samples=40, known_trials=list(workers.coordinator.trials.values()))
    assert (plan.trials, plan.stages_unique, plan.shared.epochs) == (0, 0, 0)
    assert "Plan: 0 trials" in plan_lines(plan)[0]


def test_unknown_costs_are_said_and_not_made_up():
    plan = make(grid_tree(), known=False, price_per_hour=2.0)
    assert plan.shared.worker_hours is None and plan.shared.epochs == 122
    text = "\n".join(plan_lines(plan))
    assert "costs on a GPU is not known" in text
    assert "min" not in text


def test_the_text_has_the_tree_and_money_is_for_gpus():
    lines = plan_lines(make(grid_tree(), price_per_hour=10.0))
    text = "\n".join(lines)
    assert "120 stages asked for, 58 unique, 0 of them in the store (merge rate 2.16)" in text
    assert text.count("pretrain_ce") == 2 and text.count("train_ce ") == 6 + 2, "with the two pretrain_ce"
    assert text.count("4 x train_bce → finetune: 4 epochs each, not shared") == 6
    cells = [re.split(r"\s{3,}", line.strip()) for line in lines]
    place = next(place for place, row in enumerate(cells) if row[0] == "stages shared")
    assert cells[place][:3] == ["stages shared", "122", "36 min 39 s"], "1.22 worker hours of half a GPU"
    assert cells[place][-1] == "6.11", "at 10 an hour"
    assert [row[0] for row in cells[place + 1 : place + 3]] == ["at least", "at most"]
    assert [float(row[-1]) for row in cells[place + 1 : place + 3]] == pytest.approx([6.11 / 2, 6.11 * 2], rel=0.01)
    assert max(map(len, lines[1:11])) <= 80


def test_the_page_draws_every_shared_stage_and_is_small_for_large_sweeps():
    page = plan_page(make(grid_tree()), HOSTILE)
    assert page.count("once for") >= 4 + 6
    assert "http" not in page and "<script" not in page
    assert f"Plan of {HOSTILE}" in Page(page).check().text
    large = make(make_chain_builder(replace(make_search(), sampler="random")), samples=1000, known=False)
    assert len(plan_page(large, "large")) < 30_000


def test_a_planner_takes_costs_and_stages_from_the_store(tmp_path, tone_data):
    store = StageStore(Storage.parse(str(tmp_path)))
    chains = replace(grid_tree(), all_species=tone_data.dataset.all_species, target_species=tone_data.dataset.target_species)
    slots = Slots(gpus_per_trial=0.0, cpus_per_trial=1, max_concurrent=2, num_nodes=1)
    planner = Planner(chains=chains, dataset=tone_data.dataset, store=store, slots=slots)
    assert planner.plan(samples=24).shared.worker_hours is None
    import torch

    from birdclef_core.stages.environment import environment

    chain = chains.chain("sed_v2s", chains.search.baseline(chains.search.recipes[0]))
    history = [{"clips_per_s": 100.0, "evaluate_s": 1.0}] * 3
    for task in (chain[0], chain[-1]):
        publish(
            store,
            task.stage_id,
            identity=task.identity,
            history=history,
            environment=environment(torch.device("cpu")),
        )
    plan = planner.plan(samples=24)
    assert plan.stages_stored == 2
    assert plan.shared.worker_hours is not None
    assert set(plan.bases) == {"measured"}


def test_a_planner_takes_the_card_of_most_trials_whose_stages_the_store_has(tmp_path, tone_data, monkeypatch):
    store = StageStore(Storage.parse(str(tmp_path)))
    chains = replace(grid_tree(), all_species=tone_data.dataset.all_species, target_species=tone_data.dataset.target_species)
    chain = chains.chain("sed_v2s", chains.search.baseline(chains.search.recipes[0]))
    for number, (device, rate) in enumerate((("H100", 100.0), ("H100", 100.0), ("T4", 20.0))):
        for task in (chain[0], chain[-1]):
            stage_id = f"{number}{task.stage_id[1:]}"
            history = [{"clips_per_s": rate, "evaluate_s": 1.0}] * 3
            publish(
                store, stage_id, identity=task.identity, history=history, environment={"device": device, "device_type": "cuda"}
            )
    devices = {"L4": 3, "T4": 2, "H100": 1}
    slots = Slots(gpus_per_trial=1.0, cpus_per_trial=1, max_concurrent=6, num_nodes=1, devices=devices)
    plan = Planner(chains=chains, dataset=tone_data.dataset, store=store, slots=slots).plan(samples=24)
    assert plan.device == "T4" and set(plan.bases) == {"measured"}
    assert {share.device: share.speed.value for share in plan.devices} == {"L4": 1.0, "T4": 1.0, "H100": 5.0}
    assert Planner(chains=chains, dataset=tone_data.dataset, store=store, slots=slots).speeds().of("H100").measured_from == 4


def test_a_planner_measures_each_encoder_of_a_search_and_knows_what_every_trial_costs(tmp_path, tone_data, monkeypatch):
    encoders = ("resnet10t.c3_in1k", "resnet18d.ra2_in1k")
    search = make_search(pools={})
    space = {
        "model.encoder": Choice(encoders),
        "model.drop_path_rate": Range(0.0, 0.3),
        "model.spectrogram.num_mels": Range(32, 96),
        "train_ce.learning_rate": Range(1e-4, 1e-3),
    }
    search = replace(search, recipes=search.recipes[:1], space=space)
    data = {"all_species": tone_data.dataset.all_species, "target_species": tone_data.dataset.target_species}
    chains = make_chain_builder(search, pretrained=dict.fromkeys(encoders, RANDOM), **data)
    measured = []

    def measure(task, *_, **__):
        measured.append((task.model.encoder, task.config.freeze_encoder))
        return Spread(low=10.0, middle=10.0, high=10.0)

    monkeypatch.setattr(planner_module, "measure_clips_per_s", measure)
    slots = Slots(gpus_per_trial=0.0, cpus_per_trial=1, max_concurrent=2, num_nodes=1)
    planner = Planner(chains=chains, dataset=tone_data.dataset, store=StageStore(Storage.parse(str(tmp_path))), slots=slots)
    plan = planner.plan(samples=12, calibrate=lambda text: None)
    assert sorted(measured) == [(encoder, frozen) for encoder in encoders for frozen in (False, True)]
    assert plan.unknown == () and plan.shared.worker_hours is not None


def test_planned_and_actual_stand_side_by_side(tmp_path):
    storage = Storage.parse(str(tmp_path))
    assert load_plan(storage, "plan.json") is None
    planned = save_plan(storage, make(grid_tree()), "plan.json")
    assert load_plan(storage, "plan.json") == planned
    record = TrialRecord(
        trial="t0",
        recipe="r",
        params={},
        stage_ids=["a", "b"],
        trained_ids=["b"],
        epochs_trained=7,
        spent_s={"train_ce": 3600.0},
        reused_s={"pretrain_ce": 1800.0},
    )
    text = "\n".join(against_actual(planned, [record, replace(record, trial="t1")], wall_s=7200.0))
    rows = {line.split("  ")[1].strip(): line for line in text.splitlines()[2:]}
    assert rows["epochs trained"].split()[2:] == ["122", rows["epochs trained"].split()[3], "14"]
    assert rows["worker time"].endswith("2 h 00 min") and rows["wall time"].endswith("2 h 00 min")
    assert "would have taken 1 h 00 min more" in text


AMOUNT = Amount(epochs=3.0, worker_hours=Spread(low=1.0, middle=2.0, high=3.0), wall_hours=None)
FIGURES = PlanFigures(trials=4, stages_asked=9, stages_new=5, alone=AMOUNT, shared=AMOUNT, pruned=AMOUNT)


@pytest.mark.parametrize("damage", list(damages(PlanFigures, to_json(FIGURES))), ids=lambda damage: damage.what)
def test_a_damaged_plan_is_refused_with_the_way_out(tmp_path, damage):
    storage = Storage.parse(str(tmp_path))
    storage.write_json("plan.json", FIGURES)
    assert load_plan(storage, "plan.json") == FIGURES
    (tmp_path / "plan.json").write_bytes(damage.content)
    with pytest.raises(InputError, match=r"plan\.json cannot be read: .*Remove the file: the sweep is planned again") as error:
        load_plan(storage, "plan.json")
    assert damage.place in str(error.value)


def test_a_plan_that_an_earlier_version_wrote_is_read():
    planned = load_plan(Storage.parse(str(Path(__file__).parents[2] / "data" / "records" / "sweep")), "plan.json")
    assert planned is not None and (planned.trials, planned.stages_asked, planned.shared.epochs) == (4, 20, 40)


def test_the_usual_gpu_is_the_newest_that_trained_a_stage_and_never_a_cpu():
    task = grid_tree().chain("sed_v2s", grid_tree().search.baseline(grid_tree().search.recipes[0]))[0]

    def trained(device: str, device_type: str, day: int):
        when = f"2026-11-{day:02d}T12:00:00+00:00"
        return replace(summary_of(task), device=device, device_type=device_type, finished_at=when)

    old, new = trained("Tesla T4", "cuda", 1), trained("NVIDIA H100 80GB HBM3", "cuda", 2)
    cpu = trained("Intel(R) Xeon(R) Processor", "cpu", 3)
    assert _usual_gpu([new, old, cpu]) == _usual_gpu([cpu, old, new]) == "NVIDIA H100 80GB HBM3"
    assert _usual_gpu([cpu]) == _usual_gpu([]) == "GPUs of the cluster"


def wide_tree():
    """One recipe with ranges: there are always more points."""
    return make_chain_builder(replace(make_search(), recipes=make_search().recipes[:1], sampler="random"))


def test_a_plan_says_what_limits_buy():
    plan = make(wide_tree(), samples=None, gpu_hours=1.0, price_per_hour=8.0)
    within = plan.within
    assert within is not None and within.limit == "--max-gpu-hours 1"
    assert 1.8 < within.worker_hours <= 2.0, "a worker has half a GPU"
    assert 0 < within.finished < within.trials
    assert plan.trials == sum(node.trials for node in plan.recipes.values()) < within.trials, "without pruning"
    money = f"{8.0 * within.worker_hours / 2:.2f}"
    line = next(line for line in plan_lines(plan) if "ends at" in line)
    assert f"The sweep ends at --max-gpu-hours 1, after about {within.trials} trials of which {within.finished} finish" in line
    assert f"GPU hours ({money} in money)" in line


def test_a_plan_of_fewer_trials_than_its_limits_allow_says_so():
    plan = make(wide_tree(), samples=3, gpu_hours=100.0)
    assert plan.within.limit == "" and plan.within.trials == plan.trials == 3
    assert any("The sweep ends within its limits, after about 3 trials" in line for line in plan_lines(plan))


def test_the_plan_of_an_extension_counts_what_was_spent_before(tmp_path):
    chains = wide_tree()
    workers = MadeUpWorkers(make_coordinator(tmp_path, chains, samples=6))
    workers.run()
    known = list(workers.coordinator.trials.values())
    spent_h = sum(record.cost_s for record in known) / 3600
    plan = make(chains, stored=workers.published, samples=None, known_trials=known, gpu_hours=(spent_h + 1.0) / 2)
    assert 0.8 < plan.within.worker_hours <= 1.0


def test_what_limits_buy_is_not_made_up_where_costs_are_not_known():
    plan = make(wide_tree(), known=False, samples=None, hours=2.0)
    assert plan.within is None and plan.trials == PLANNED_WITHOUT_COSTS
    assert any("What --max-hours 2 buys is not known" in line for line in plan_lines(plan))


@pytest.mark.parametrize("cost", ["cost/cpu_seconds_10min", "cost/device_hours"])
def test_a_sweep_with_a_cost_is_planned_without_measuring_models(cost):
    chains = make_chain_builder(replace(make_search(), sampler="stage", objective=f"val/cmap, {cost}"))
    assert make(chains, samples=12).trials == 12


def test_two_teachers_of_eight_students_predict_once_each():
    search = make_students()
    chains = make_chain_builder(search, unlabelled_fingerprint="birds")
    heard_s = 60.0 * 60
    heard = HeardSound(seconds={"unlabelled": heard_s})
    costs = CostModel([], {"all": SIZE, "target": SIZE}, "here", heard)
    train, labels, _ = chains.chain("noisy", search.baseline(search.recipes[0]))
    rate = Spread(low=10.0, middle=10.0, high=10.0)
    costs.add(Measurement(work=work_of_task(train), clip_s=train.config.clip_s, clips_per_s=rate))
    plan = make_plan(
        chains, samples=8, workers=2, gpus_per_worker=0.0, device="cpu", stored={}, costs=costs, stage_bytes=lambda task: 2**20
    )
    assert plan.stages_asked == 8 * 3 and plan.stages_unique == 2 + 2 + 8
    assert plan.shared.epochs == 2 * 4 + 2 * 1 + 8 * 2
    windows = heard_s / labels.config.clip_s
    per_window = FORWARD_SHARE * labels.config.clip_s / (10.0 * train.config.clip_s)
    assert costs.epoch(labels).middle_s == pytest.approx(windows * per_window, rel=0.01), (
        "a forward pass of the teacher for each window"
    )
