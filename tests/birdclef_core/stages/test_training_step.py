"""One step: what the loss is made of, micro-batches, memory that does not suffice, precision."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from birdclef_core.augment_config import AugmentConfig, MixingConfig, NoiseGroup
from birdclef_core.config import LossName, ModelConfig, SpectrogramConfig, StageConfig
from birdclef_core.data.feed import TrainBatch
from birdclef_core.errors import InputError, TrainingError
from birdclef_core.models.detector import Detector
from birdclef_core.models.losses import batch_share_of_loss
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.training_step import TrainingStep, to_float

CPU = torch.device("cpu")
SPECIES, CLIPS = 3, 6
MODEL = ModelConfig(
    encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False)
)
STAGE = StageConfig(
    name="train_ce", label_space="target", loss="ce", epochs=1, learning_rate=1e-3, clip_s=1.0, batch_size=CLIPS, seed=1
)
QUIET = AugmentConfig(**{name: 0 for name in AugmentConfig.__dataclass_fields__ if name.endswith(("_prob", "_masks"))})
PLAIN = replace(STAGE, augment=QUIET, noise=())


def make_batch(clips: int = CLIPS, noises: int = 2) -> TrainBatch:
    generator = torch.Generator().manual_seed(7)
    waves = (torch.randn(clips + noises, 32_000, generator=generator) * 3000).to(torch.int16)
    target_BC = torch.eye(SPECIES)[torch.arange(clips) % SPECIES]
    return TrainBatch(
        wave_BT=waves[:clips],
        target_BC=target_BC,
        weight_B=torch.linspace(0.1, 1, clips),
        rows_B=torch.arange(clips),
        noise_clip_M=torch.arange(noises),
        noise_wave_MT=waves[clips:],
        noise_snr_db_M=torch.full((noises,), 6.0),
    )


def make_step(stage: StageConfig = PLAIN, *, training: bool = True, notes: list[str] | None = None, device=CPU) -> TrainingStep:
    torch.manual_seed(3)
    model = Detector(MODEL, SPECIES).to(device).train(training)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    said = [] if notes is None else notes
    return TrainingStep(model, optimizer, stage, Arithmetic(stage.precision, device), device, on_note=said.append)


def state(step: TrainingStep) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in step._model.state_dict().items()}


def gradients(step: TrainingStep) -> torch.Tensor:
    used = [parameter.grad for parameter in step._model.parameters() if parameter.grad is not None]
    return torch.cat([gradient.flatten() for gradient in used])


def without_memory_for(step: TrainingStep, clips: int, monkeypatch) -> None:
    """From so many clips on, the device is out of memory, in the middle of the model."""

    def forward(mel_BKFN):
        if len(mel_BKFN) >= clips:
            step._model.input_norm(mel_BKFN)  # BatchNorm statistics move before it happens
            raise torch.OutOfMemoryError("made up")
        return Detector.forward(step._model, mel_BKFN)

    monkeypatch.setattr(step._model, "forward", forward)


@pytest.mark.parametrize("loss", get_args(LossName))
def test_the_loss_is_the_configs_on_the_spectrograms_of_the_waves(loss):
    stage = replace(PLAIN, loss=loss, label_smoothing=0.2)
    step, batch = make_step(stage, training=False), make_batch(noises=0)
    output = step._model(step._model.spectrograms(to_float(batch.wave_BT, CPU)))
    expected = batch_share_of_loss(stage, output, batch.target_BC, batch.weight_B, batch.weight_B.sum())
    assert step(batch, seed=1).item() == pytest.approx(expected.item(), rel=1e-6)


def test_noise_augmentation_and_mixing_all_reach_the_model():
    batch = make_batch()
    generator = lambda: torch.Generator().manual_seed(1)  # noqa: E731
    plain = make_step().prepare(replace_noise(batch), generator())
    noisy = make_step().prepare(batch, generator())
    assert [torch.equal(a, b) for a, b in zip(plain.mel_BKFN, noisy.mel_BKFN, strict=True)] == [False] * 2 + [True] * 4
    for changes in (
        {"augment": replace(QUIET, gain_prob=1.0)},
        {"augment": replace(QUIET, tilt_prob=1.0)},
        {"mixing": MixingConfig(wave_prob=1.0)},
        {"mixing": MixingConfig(spectrogram_prob=1.0)},
    ):
        ready = make_step(replace(PLAIN, **changes)).prepare(replace_noise(batch), generator())
        assert not torch.equal(ready.mel_BKFN, plain.mel_BKFN), changes
        assert torch.equal(ready.target_BC, plain.target_BC) == ("augment" in changes)


def test_waves_of_floats_equal_those_of_int16_and_the_batch_stays_as_it_was():
    batch, stage = make_batch(), replace(STAGE, augment=replace(QUIET, gain_prob=1.0, time_shift_prob=1.0))
    floats = replace(batch, wave_BT=batch.wave_BT.float(), noise_wave_MT=batch.noise_wave_MT.float())
    before = floats.wave_BT.clone()
    ready = [make_step(stage).prepare(each, torch.Generator().manual_seed(1)).mel_BKFN for each in (batch, floats, floats)]
    assert torch.equal(ready[0], ready[1]) and torch.equal(ready[1], ready[2])
    assert torch.equal(floats.wave_BT, before)


def replace_noise(batch: TrainBatch) -> TrainBatch:
    empty = make_batch(noises=0)
    return replace(batch, noise_clip_M=empty.noise_clip_M, noise_wave_MT=empty.noise_wave_MT, noise_snr_db_M=empty.noise_snr_db_M)


@pytest.mark.parametrize("loss", [loss for loss in get_args(LossName) if loss != "soft_auc"])
@pytest.mark.parametrize("micro", [1, 4])
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(loss, micro):
    """With BatchNorm and dropout in evaluation; in training they see micro-batches, which is why the size is in the identity. A ranking
    loss compares the clips of a micro-batch, so its gradients differ."""
    whole = make_step(replace(PLAIN, loss=loss), training=False)
    parts = make_step(replace(PLAIN, loss=loss, micro_batch_size=micro), training=False)
    expected, got = whole(make_batch(), seed=1), parts(make_batch(), seed=1)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)
    difference = (gradients(parts) - gradients(whole)).norm() / gradients(whole).norm()
    assert difference < 1e-4


def test_mixing_pairs_clips_across_micro_batches():
    stage = replace(PLAIN, mixing=MixingConfig(wave_prob=1.0, spectrogram_prob=1.0))
    whole, parts = make_step(stage), make_step(replace(stage, micro_batch_size=2))
    ready = [step.prepare(make_batch(), torch.Generator().manual_seed(5)) for step in (whole, parts)]
    assert torch.equal(ready[0].mel_BKFN, ready[1].mel_BKFN)
    assert torch.equal(ready[0].target_BC, ready[1].target_BC)


def test_a_step_out_of_memory_is_taken_in_halves_and_leaves_no_trace(monkeypatch):
    notes: list[str] = []
    step, smaller = make_step(notes=notes), make_step(replace(PLAIN, micro_batch_size=2))
    without_memory_for(step, 3, monkeypatch)
    losses = [(step(make_batch(), seed), smaller(make_batch(), seed)) for seed in (1, 2)]
    assert step.micro_batch_size == 2
    assert all(torch.equal(got, expected) for got, expected in losses)
    expected, got = state(smaller), state(step)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert [note.partition(";")[0] for note in notes] == [
        "Stage train_ce: out of memory with 6 clips at once",
        "Stage train_ce: out of memory with 3 clips at once",
    ]
    assert "continues with 2, and the same batch of 6" in notes[1]
    assert "--set train_ce.micro_batch_size=2" in notes[1]


def test_a_clip_that_does_not_fit_alone_ends_the_stage(monkeypatch):
    step = make_step()
    without_memory_for(step, 1, monkeypatch)
    with pytest.raises(TrainingError, match=r"One clip of 1 s must fit .* stage train_ce.*--gpus-per-trial"):
        step(make_batch(), seed=1)


def test_clipping_bounds_the_gradient_and_leaves_a_small_one():
    clipped, free = make_step(replace(PLAIN, clip_gradient_norm=0.01)), make_step()
    wide = make_step(replace(PLAIN, clip_gradient_norm=1e6))
    for step in (clipped, free, wide):
        step(make_batch(), seed=1)
    assert gradients(clipped).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert gradients(free).norm() > 0.02
    assert torch.equal(gradients(wide), gradients(free))


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_bfloat16_stays_near_float32_and_spectrograms_and_loss_stay_float32(loss):
    """The bounds of the issue, here on a CPU: losses within 2 %, gradients within 15 degrees of float32's."""
    exact, rounded = (make_step(replace(PLAIN, loss=loss, precision=name), training=False) for name in ("float32", "bfloat16"))
    ready = rounded.prepare(make_batch(), torch.Generator().manual_seed(1))
    assert ready.mel_BKFN.dtype == torch.float32
    assert torch.equal(ready.mel_BKFN, exact.prepare(make_batch(), torch.Generator().manual_seed(1)).mel_BKFN)
    expected, got = exact(make_batch(), seed=1), rounded(make_batch(), seed=1)
    assert got.dtype == torch.float32
    assert got.item() != expected.item(), "the model itself is rounded"
    assert got.item() == pytest.approx(expected.item(), rel=0.02)
    cosine = torch.nn.functional.cosine_similarity(gradients(exact), gradients(rounded), dim=0)
    assert cosine > np.cos(np.radians(15))
    assert torch.isfinite(gradients(rounded)).all()


def test_tf32_is_float32_where_the_device_has_none_and_each_says_what_it_allows():
    exact, rounded = make_step(), make_step(replace(PLAIN, precision="tf32"))
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.equal(exact(make_batch(), seed=1), rounded(make_batch(), seed=1))
    make_step()
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"


def test_spectrograms_are_exact_also_where_tf32_is_allowed(monkeypatch):
    step = make_step(replace(PLAIN, precision="tf32"))
    seen = []
    monkeypatch.setattr(
        "birdclef_core.audio.spectrogram.AF.amplitude_to_DB",
        lambda mel, **_: seen.append(torch.backends.cuda.matmul.fp32_precision) or mel,
    )
    step._model.spectrograms(torch.randn(1, 32_000))
    assert seen == ["ieee"]
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


def test_bfloat16_is_refused_on_a_gpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    with pytest.raises(InputError, match=r"needs a GPU that has it .* an old GPU: use --set precision=float32"):
        Arithmetic("bfloat16", torch.device("cuda"))


def test_a_rehearsal_leaves_no_trace():
    step = make_step()
    before = state(step)
    assert step.rehearse(make_batch()) > 0
    assert all(torch.equal(before[name], tensor) for name, tensor in state(step).items())
    assert all(parameter.grad is None for parameter in step._model.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_step_never_waits_for_the_gpu():
    gpu = torch.device("cuda")
    mixing = MixingConfig(wave_prob=1.0, wave_double_prob=0.0, spectrogram_prob=1.0)
    augment = AugmentConfig(coloured_noise_prob=1.0, gain_prob=0.4, gain_transition_prob=0.4)
    stage = replace(STAGE, mixing=mixing, noise=(NoiseGroup(),), augment=augment, clip_gradient_norm=1.0, micro_batch_size=4)
    step = make_step(stage, device=gpu)
    batch = TrainBatch(**{name: value.pin_memory() for name, value in vars(make_batch()).items()})
    step(batch, seed=0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed in range(1, 20):
            step(batch, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-4), ("tf32", 1e-2), ("bfloat16", 2e-2)])
def test_a_gpu_agrees_with_the_processor(precision, bound):
    on_cpu, on_gpu = (
        make_step(training=False),
        make_step(replace(PLAIN, precision=precision), training=False, device=torch.device("cuda")),
    )
    expected, got = on_cpu(make_batch(), seed=1), on_gpu(make_batch(), seed=1)
    assert got.item() == pytest.approx(expected.item(), rel=bound)


CNN = replace(MODEL, head="cnn")
CLICK_AT = 80_000


def clicks(clips: int, seconds: int) -> TrainBatch:
    """Clips with a click in the middle of every five seconds."""
    wave_BT = torch.zeros(clips, seconds * 32_000, dtype=torch.int16)
    wave_BT[:, CLICK_AT::160_000] = 30_000
    return replace(
        replace_noise(make_batch(clips)), wave_BT=wave_BT, noise_wave_MT=torch.empty(0, wave_BT.shape[1], dtype=torch.int16)
    )


def prepared(stage: StageConfig, batch: TrainBatch, model: ModelConfig) -> torch.Tensor:
    """The first channel of what the model gets: mel_BFN."""
    torch.manual_seed(3)
    detector = Detector(model, SPECIES).train()
    optimizer = torch.optim.Adam(detector.parameters())
    step = TrainingStep(detector, optimizer, stage, Arithmetic(stage.precision, CPU), CPU, on_note=print)
    return step.prepare(batch, torch.Generator().manual_seed(1)).mel_BKFN[:, 0]


def places_of_clicks(mel_BFN: torch.Tensor) -> list[list[int]]:
    """First frames of the clicks of each clip."""
    loud_BN = mel_BFN.amax(dim=1) > mel_BFN.amax() - 0.1
    return [
        (torch.nonzero(loud_N.long().diff(prepend=torch.zeros(1, dtype=torch.long)) > 0)[:, 0]).tolist() for loud_N in loud_BN
    ]


def test_the_time_shift_comes_after_mixing():
    """A mixture of clips with a click in the same place has one click, and not one for each clip."""
    stage = replace(PLAIN, clip_s=5.0, augment=replace(QUIET, time_shift_prob=1.0), mixing=MixingConfig(wave_prob=1.0))
    clicked = places_of_clicks(prepared(stage, clicks(CLIPS, 5), MODEL))
    assert [len(places) for places in clicked] == [1] * CLIPS
    assert len({places[0] for places in clicked}) > 3


def test_the_pieces_of_a_cnn_are_shifted_and_masked_each_by_itself():
    shifted = replace(PLAIN, clip_s=15.0, augment=replace(QUIET, time_shift_prob=1.0))
    mel_BFN = prepared(shifted, clicks(4, 15), CNN)
    frames = mel_BFN.shape[2] // 3
    pieces = places_of_clicks(mel_BFN.unflatten(2, (3, frames)).movedim(2, 1).flatten(0, 1))
    assert [len(places) for places in pieces] == [1] * 12, "no click has left its piece"
    assert len({places[0] for places in pieces}) > 8
    masked = replace(PLAIN, clip_s=15.0, augment=replace(QUIET, time_masks=1, frequency_masks=1, frequency_mask_prob=1.0))
    mel_XFN = prepared(masked, clicks(4, 15), CNN).unflatten(2, (3, frames)).movedim(2, 1).flatten(0, 1)
    for hidden in ((mel_XFN == 0).all(dim=1), (mel_XFN == 0).all(dim=2)):
        assert hidden.any(dim=1).sum() >= 10 and len(hidden.unique(dim=0)) >= 10


def test_a_sed_is_shifted_as_a_whole():
    shifted = replace(PLAIN, clip_s=10.0, augment=replace(QUIET, time_shift_prob=1.0))
    for first, second in places_of_clicks(prepared(shifted, clicks(4, 10), MODEL)):
        assert second - first in (319, 320, 321)
