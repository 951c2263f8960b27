"""A detector learns, cuts clips as its head asks for, and keeps still what finetuning freezes.

Shapes: B clips, T samples, K channels, F mel bins, N frames, C species.
"""

import pickle

import pytest
import torch

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.errors import InputError
from birdclef_core.models.detector import Detector, check_clip_s
from birdclef_core.models.losses import bce_loss, ce_loss

SMALL = SpectrogramConfig(num_mels=48, n_fft=1024, hop_length=640)
NUM_CLASSES = 6


def build(
    head: str, *, deltas: bool = True, axes: str = "frequency_time", seed: int = 0, num_classes: int = NUM_CLASSES
) -> Detector:
    torch.manual_seed(seed)
    spectrogram = SpectrogramConfig(num_mels=48, n_fft=1024, hop_length=640, deltas=deltas)
    config = ModelConfig(head=head, encoder="test_efficientnet", encoder_axes=axes, spectrogram=spectrogram)  # type: ignore[arg-type]
    return Detector(config, num_classes)


def waves(clips: int, seconds: float = 10.0) -> torch.Tensor:
    return torch.randn(clips, round(seconds * 32_000), generator=torch.Generator().manual_seed(1)) * 0.1


@pytest.mark.parametrize("head", ["sed", "cnn"])
@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize("axes", ["frequency_time", "time_frequency"])
@pytest.mark.parametrize("loss", [ce_loss, bce_loss])
def test_forward_and_backward(head: str, deltas: bool, axes: str, loss) -> None:
    model = build(head, deltas=deltas, axes=axes)
    output = model(model.spectrograms(waves(2)))
    assert output.logits_BC.shape == (2, NUM_CLASSES)
    if head == "sed":
        assert output.segment_logits_BC.shape == (2, NUM_CLASSES)
        assert output.frame_logits_BNC.shape[::2] == (2, NUM_CLASSES)
    else:
        assert output.segment_logits_BC is None
        assert output.frame_logits_BNC is None
    loss(output, torch.rand(2, NUM_CLASSES), torch.ones(2)).backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert not without


@pytest.mark.parametrize("head", ["sed", "cnn"])
@pytest.mark.parametrize("axes", ["frequency_time", "time_frequency"])
def test_batch_equals_item_by_item(head: str, axes: str) -> None:
    model = build(head, axes=axes).eval()
    wave_BT = waves(3) * torch.tensor([[1.0], [0.01], [3.0]])
    together = model(model.spectrograms(wave_BT)).logits_BC
    alone = torch.cat([model(model.spectrograms(wave_BT[i : i + 1])).logits_BC for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_cnn_sees_the_spectrogram_of_each_five_seconds_by_itself() -> None:
    model = build("cnn").eval()
    wave_BT = waves(2, 15)
    wave_XT = model.cut_waves(wave_BT)
    assert wave_XT.shape == (6, 160_000) and wave_XT.data_ptr() == wave_BT.data_ptr()
    mel_XFN = model.wave_to_mel(wave_XT)
    mel_BKFN = model.mel_to_channels(mel_XFN, 2)
    frames = model.spectrogram.num_frames(160_000)
    assert mel_BKFN.shape == (2, 3, 48, 3 * frames)
    for piece in range(3):
        alone = model.spectrogram(wave_BT[:, piece * 160_000 : (piece + 1) * 160_000])
        torch.testing.assert_close(mel_BKFN[..., piece * frames : (piece + 1) * frames], alone)
    seen = []
    model.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(mel_BKFN)
    assert seen[0].shape == (6, 3, 48, frames)
    torch.testing.assert_close(seen[0][:, 0], mel_XFN)


def test_cnn_does_not_care_for_the_order_of_pieces() -> None:
    model = build("cnn").eval()
    wave_BPT = waves(1, 15).view(1, 3, -1)
    forth = model(model.spectrograms(wave_BPT.flatten(1))).logits_BC
    back = model(model.spectrograms(wave_BPT.flip(1).flatten(1))).logits_BC
    torch.testing.assert_close(forth, back, atol=1e-5, rtol=1e-5)


def test_cnn_refuses_other_clip_lengths() -> None:
    config = ModelConfig(head="cnn", spectrogram=SMALL)
    check_clip_s(config, 15)
    check_clip_s(ModelConfig(head="sed", spectrogram=SMALL), 7.3)
    for clip_s in (7.5, 2.5, 12):
        with pytest.raises(InputError, match="clip_s % 5 == 0"):
            check_clip_s(config, clip_s)
    model = build("cnn")
    with pytest.raises(InputError):
        model.cut_waves(waves(1, 7))
    with pytest.raises(InputError, match="multiple of"):
        model(torch.zeros(1, 3, 48, 300))


def test_input_norm_is_over_mel_bins() -> None:
    model = build("sed")
    mel_BKFN = torch.randn(4, 3, 48, 50) * torch.linspace(1, 5, 48)[:, None] + torch.linspace(-3, 3, 48)[:, None]
    normed = model.input_norm(mel_BKFN)
    torch.testing.assert_close(normed.mean((0, 1, 3)), torch.zeros(48), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var((0, 1, 3), unbiased=False), torch.ones(48), atol=1e-3, rtol=0)


FROZEN = {"sed": ("encoder.", "input_norm.", "head.linear."), "cnn": ("encoder.", "head.gem.")}


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_freeze_leaves_what_finetuning_leaves_also_batch_norm(head: str) -> None:
    model = build(head)
    model.freeze()
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01)
    output = model(model.spectrograms(waves(2)))
    bce_loss(output, torch.ones(2, NUM_CLASSES), torch.ones(2)).backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if not name.startswith(FROZEN[head])}
    assert model.head.dropout.training
    assert head == "sed" or not model.head.map_dropout.training


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_frozen_blocks_are_the_first_with_their_batch_norm_and_may_thaw(head: str) -> None:
    model = build(head)
    groups = model.layer_groups()
    assert len(groups) == 6, "the stem, five stages, of which the last has what comes after"
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.freeze_blocks(2)
    model.train()
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    bce_loss(model(model.spectrograms(waves(2))), torch.ones(2, NUM_CLASSES), torch.ones(2)).backward()
    optimizer.step()
    frozen = ("input_norm.", "encoder.model.conv_stem", "encoder.model.bn1", "encoder.model.blocks.0.")
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if not name.startswith(frozen)}
    model.freeze_blocks(len(groups))
    assert not model.encoder.training and not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert model.head.training and all(parameter.requires_grad for parameter in model.head.parameters())
    model.freeze_blocks(0)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(part.training for part in model.modules())


def test_more_frozen_blocks_than_there_are_is_refused_with_their_number() -> None:
    model = build("sed")
    number = len(model.layer_groups())
    with pytest.raises(
        InputError, match=rf"frozen_blocks <= {number} must hold .*'test_efficientnet'.* but got frozen_blocks=99"
    ):
        model.freeze_blocks(99)


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_classes_enter_through_the_first_dimension_of_parameters_alone(head: str) -> None:
    small, large = build(head, num_classes=5).state_dict(), build(head, num_classes=9).state_dict()
    assert small.keys() == large.keys()
    differ = {name for name in small if small[name].shape != large[name].shape}
    assert all(small[name].shape[0] == 5 and large[name].shape[0] == 9 for name in differ)
    assert len(differ) == {"sed": 4, "cnn": 2}[head]


def test_builds_on_the_meta_device() -> None:
    """Head surgery builds models there, to compare shapes."""
    with torch.device("meta"):
        model = build("sed")
    assert all(tensor.is_meta for tensor in model.state_dict().values())


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_same_seed_same_weights_and_pickles(head: str) -> None:
    first, second = build(head, seed=5).state_dict(), build(head, seed=5).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], tensor) for name, tensor in build(head, seed=6).state_dict().items())
    pickle.dumps(build(head))


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_bfloat16_stays_near_float32(head: str) -> None:
    model = build(head).eval()
    mel_BKFN = model.spectrograms(waves(2))
    expected = model(mel_BKFN).logits_BC
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(mel_BKFN)
    assert output.logits_BC.dtype == torch.float32
    torch.testing.assert_close(output.logits_BC, expected, atol=0.1, rtol=0.1)


def test_drop_rate_is_the_dropout_of_a_cnns_feature_map() -> None:
    config = ModelConfig(head="cnn", encoder="test_efficientnet", spectrogram=SMALL, drop_rate=0.3)
    assert Detector(config, NUM_CLASSES).head.map_dropout.p == 0.3
