"""What an epoch will cost follows from what is known of the same work on the same device, and says how well it is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import make_chain_builder, summary_of
from made_up_heads import head_chain, taught_chain, write_encoder

from birdclef_core.config import evolve
from birdclef_core.identity import canonical
from birdclef_core.store.summary import Spread, StageSummary
from sweeps.plan.calibration import measure_clips_per_s
from sweeps.plan.costs import CostModel, DataSize, HeardSound, Measurement, measured, speeds_of, work_of_task

SIZE = DataSize(num_training=1000, evaluated_s_R=np.array([2.0, 30.0, 60.0]))
TREE = make_chain_builder()
TASK = TREE.chain("sed_v2s", TREE.search.baseline(TREE.search.recipe("sed_v2s")))[0]
FAST = Spread(low=50.0, middle=64.0, high=80.0)


def model(*measurements: Measurement) -> CostModel:
    return CostModel(measurements, {"all": SIZE, "target": SIZE}, data="here")


def measurement(**changes) -> Measurement:
    return replace(Measurement(work=work_of_task(TASK), clip_s=5.0, clips_per_s=FAST), **changes)


def test_an_epoch_is_its_clips_and_an_evaluation_as_measured():
    cost = model(measurement(data="here", evaluate_s=Spread(low=1.0, middle=2.0, high=3.0))).epoch(TASK)
    assert TASK.config.clips_per_epoch == 256
    assert (cost.low_s, cost.middle_s, cost.high_s) == (256 / 80 + 1, 256 / 64 + 2, 256 / 50 + 3)
    assert cost.basis == "measured"


def test_on_other_recordings_an_evaluation_costs_a_third_of_training_for_each_window():
    windows = 1 + 6 + 12
    cost = model(measurement(data="elsewhere", evaluate_s=FAST)).epoch(TASK)
    assert cost.middle_s == pytest.approx(256 / 64 + windows / 64 / 3)


def test_another_clip_length_is_scaled_and_less_certain():
    exact, scaled = (model(measurement(clip_s=clip_s)).epoch(TASK) for clip_s in (5.0, 10.0))
    assert scaled.basis == "scaled"
    assert scaled.middle_s == pytest.approx(exact.middle_s / 2)
    assert (
        scaled.low_s / scaled.middle_s
        < exact.low_s / exact.middle_s
        < 1
        < exact.high_s / exact.middle_s
        < scaled.high_s / scaled.middle_s
    )


def test_what_was_measured_goes_before_what_was_calibrated():
    slow = Spread(low=1.0, middle=1.0, high=1.0)
    cost = model(measurement(clips_per_s=slow, calibrated=True), measurement()).epoch(TASK)
    assert cost.basis == "measured" and cost.middle_s < 10
    assert model(measurement(calibrated=True)).epoch(TASK).basis == "calibrated"


def test_of_other_work_nothing_is_known():
    assert model().epoch(TASK) is None
    for changes in ({"freeze_encoder": True}, {"frozen_blocks": 2}, {"thaw_every": 1}):
        frozen = replace(TASK, identity={**TASK.identity, "stage": {**TASK.identity["stage"], **changes}})
        assert model(measurement()).epoch(frozen) is None, changes


def with_model(**changes):
    """The task with another model, as its chain would have it."""
    changed = evolve(TASK.model, {name.replace("__", "."): value for name, value in changes.items()})
    return replace(TASK, model=changed, identity={**TASK.identity, "model": canonical(changed)})


def stages_of(*devices_and_rates: tuple[str, float]) -> list[StageSummary]:
    return [
        replace(summary_of(TASK), device=device, clips_per_s=Spread(low=rate, middle=rate, high=rate), clip_s=clip_s)
        for clip_s, (device, rate) in enumerate(devices_and_rates, start=5)
    ]


def test_what_another_card_has_measured_is_converted_by_its_speed():
    """The same work with clips of 5 s on both cards says how fast they are; clips of 6 s were trained on the fast one alone."""
    both = [*stages_of(("H100", 100.0), ("H100", 90.0)), *stages_of(("T4", 20.0))]
    longer = replace(TASK, config=replace(TASK.config, clip_s=6.0))
    costs = {name: model(*measured(both, speeds_of(both, name))) for name in ("H100", "T4", "L4")}
    windows = 1 + 5 + 10
    on_fast, on_slow = (costs[name].epoch(longer) for name in ("H100", "T4"))
    assert on_fast.middle_s == pytest.approx((256 + windows / 3) / 90) and on_fast.basis == "measured"
    # The slow card's own stage counts more, though its clips are of another length.
    assert on_slow.basis == "scaled"
    assert costs["T4"].epoch(TASK).basis == "measured" and costs["L4"].epoch(TASK) is None
    other = [replace(item, work="other") if item.clip_s == 5 else item for item in both]
    converted = model(*measured(other, speeds_of(other, "T4"))).epoch(longer)
    assert converted.basis == "converted" and converted.middle_s == pytest.approx(5 * on_fast.middle_s)
    assert converted.high_s / converted.middle_s > on_fast.high_s / on_fast.middle_s


def test_dropout_takes_no_time():
    other = with_model(drop_path_rate=0.3, drop_rate=0.4, head_dropout=0.2)
    assert model(measurement()).epoch(other) == model(measurement()).epoch(TASK)
    assert model(measurement()).epoch(with_model(encoder="resnet18d.ra2_in1k")) is None


def test_spectrograms_of_another_size_cost_in_proportion_to_it_and_less_certainly():
    known = model(Measurement.of_task(TASK, FAST))
    own, larger = known.epoch(TASK), known.epoch(with_model(spectrogram__num_mels=96, spectrogram__hop_length=625))
    assert larger.middle_s == pytest.approx(4 * own.middle_s)
    assert larger.high_s / larger.middle_s >= own.high_s / own.middle_s and larger.basis == "calibrated"
    nearer = Measurement.of_task(with_model(spectrogram__num_mels=80), Spread(low=1.0, middle=1.0, high=1.0))
    both = model(Measurement.of_task(TASK, FAST), nearer)
    assert both.epoch(with_model(spectrogram__num_mels=96)).middle_s == pytest.approx(256 * 1.2 + 256 * 1.2 * 19 / 256 / 3)
    assert both.epoch(TASK) == own
    assert known.epoch(with_model(spectrogram__deltas=False)) is None, "other channels are other work"


def test_data_sizes_come_from_the_tables_that_training_uses(tone_data):
    dataset = tone_data.dataset
    every, target = (DataSize.of(dataset, name) for name in ("all", "target"))
    assert every.num_training + len(every.evaluated_s_R) == 18
    assert target.num_training < every.num_training
    assert (every.evaluated_s_R == 1.0).all()


@pytest.mark.parametrize("encoder", ["timm", "tiny.onnx"])
def test_embeddings_cost_what_their_own_encoder_took_for_each_window(tiny_recipe, tone_data, tmp_path, encoder):
    """Whatever the recipe's own encoder is, and whichever recordings it heard."""
    name = str(write_encoder(tmp_path / encoder)) if encoder != "timm" else encoder
    task = head_chain(tiny_recipe, tone_data, name)[0]
    heard = HeardSound(seconds={}, embedded_s_R=np.array([0.2, 1.0, 1.9]))
    rate = Spread(low=1.0, middle=2.0, high=4.0)
    stored = replace(summary_of(task, data="other"), device="cpu", clips_per_s=rate)
    costs = CostModel(measured([stored], speeds_of([stored], "cpu")), {"target": SIZE}, "here", heard)
    cost = costs.epoch(task)
    assert (cost.low_s, cost.middle_s, cost.high_s) == (1.5, 3.0, 6.0), "1 + 2 + 3 windows of half a second"
    assert cost.basis == "measured"
    larger = replace(tiny_recipe, model=replace(tiny_recipe.model, encoder="resnet18d.ra2_in1k"))
    other = costs.epoch(head_chain(larger, tone_data, name)[0])
    assert other == (None if encoder == "timm" else cost)
    if encoder != "timm":
        again = write_encoder(tmp_path / "other.onnx", 24_000)
        assert costs.epoch(head_chain(tiny_recipe, tone_data, again)[0]) is None, "another file is another encoder"
    space = tone_data.dataset.all_species
    calibrated = measure_clips_per_s(task, space, torch.device("cpu"), threads=1, limit_s=0.01)
    assert CostModel([Measurement.of_task(task, calibrated)], {}, "", heard).epoch(task).basis == "calibrated"


@pytest.mark.parametrize("encoder", ["timm", "tiny.onnx"])
def test_what_a_head_predicts_costs_what_its_encoder_takes_for_the_sound(tiny_recipe, tone_data, tmp_path, encoder):
    name = str(write_encoder(tmp_path / encoder)) if encoder != "timm" else encoder
    chain = taught_chain(tiny_recipe, tone_data, name)
    embed, _, _, labels, student = chain
    heard = HeardSound(seconds={"recordings": 60.0, "unlabelled": 0.0}, embedded_s_R=np.array([1.0]))
    rate = Spread(low=1.0, middle=2.0, high=4.0)
    stored = replace(summary_of(embed), device="cpu", clips_per_s=rate)
    costs = CostModel(measured([stored], speeds_of([stored], "cpu")), {"target": SIZE}, "here", heard)
    assert costs.epoch(labels).middle_s == 60.0, "60 windows of 1 s, each as two of the half seconds of which two take a second"
    assert costs.epoch(student) is None
    assert CostModel([], {"target": SIZE}, "here", heard).epoch(labels) is None


def test_a_calibration_measures_steps_on_noise(tiny_recipe, tone_data):
    config = tiny_recipe.stages[0]
    task = replace(TASK, model=tiny_recipe.model, config=config)
    rate = measure_clips_per_s(task, tone_data.dataset.all_species, torch.device("cpu"), threads=1, limit_s=0.2)
    assert 0 < rate.low <= rate.middle <= rate.high
