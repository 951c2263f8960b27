"""Encoders by name: those that give no map over time are refused, and weights are loaded wholly or not at all."""

import pickle
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.errors import InputError, TrainingError
from birdclef_core.models.encoders import RANDOM, Encoder, PretrainedWeights, build_encoder, resolve_pretrained

ENCODER = "test_resnet"
NEVER_TRAINED = "cspresnet50d"


def config(encoder: str, *, deltas: bool = True) -> ModelConfig:
    return ModelConfig(encoder=encoder, spectrogram=SpectrogramConfig(num_mels=48, n_fft=1024, hop_length=640, deltas=deltas))


def saved_weights(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(7)
    weights = build_encoder(config(ENCODER), RANDOM)[0].model.state_dict()
    path = folder / f"{ENCODER}.safetensors"
    save_file(weights, path)
    return path, weights


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit", "test_vit3"])
@pytest.mark.parametrize("deltas", [True, False])
def test_gives_a_map_over_time_for_any_length(encoder: str, deltas: bool) -> None:
    model, num_features = build_encoder(config(encoder, deltas=deltas), RANDOM)
    assert model.training
    shapes = [model(torch.randn(2, 3 if deltas else 1, 48, frames)).shape for frames in (251, 501)]
    assert all(shape[:2] == (2, num_features) for shape in shapes)
    assert shapes[1][3] > shapes[0][3] > 1


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_convnext", "test_vit"])
def test_the_axes_are_only_those_of_the_picture(encoder: str) -> None:
    """The map has frequency before time in both orders: with equal weights, it is the map of the transposed picture, transposed."""
    models = {}
    for axes in ("frequency_time", "time_frequency"):
        torch.manual_seed(3)
        models[axes] = build_encoder(replace(config(encoder), encoder_axes=axes), RANDOM)[0].eval()
    mel_BKFN = torch.randn(2, 3, 64, 256)
    given = models["time_frequency"](mel_BKFN)
    torch.testing.assert_close(given, models["frequency_time"](mel_BKFN.mT).mT, atol=1e-5, rtol=1e-5)
    assert given.shape == models["frequency_time"](mel_BKFN).shape
    assert not torch.allclose(given, models["frequency_time"](mel_BKFN), atol=1e-2)


@pytest.mark.parametrize("encoder", ["test_efficientnet", "test_resnet", "test_convnext", "test_vit"])
def test_every_parameter_is_in_one_group_of_layers(encoder: str) -> None:
    model, _ = build_encoder(config(encoder), RANDOM)
    groups = model.layer_groups()
    assert len(groups) > 2 and all(groups)
    assert sorted(id(parameter) for group in groups for parameter in group) == sorted(id(part) for part in model.parameters())


def test_layers_after_pooling_are_no_group_of_their_own() -> None:
    """The last group of a MobileNetV3 in timm is a convolution after pooling, which makes no features: thawing it would train nothing."""
    model, _ = build_encoder(config("mobilenetv3_small_050"), RANDOM)
    last = {id(parameter) for parameter in model.layer_groups()[-1]}
    features = model(torch.randn(2, 3, 48, 251))
    features.sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"model.conv_head.weight", "model.conv_head.bias"}
    assert {id(parameter) for name, parameter in model.named_parameters() if name in without} < last


def test_an_encoder_without_groups_of_layers_is_refused_where_they_are_needed() -> None:
    encoder = Encoder(torch.nn.Linear(2, 2), axes="frequency_time", from_tokens=False, shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"layer_decay, frozen_blocks and thaw_every need an encoder .* of Linear it knows none"):
        encoder.layer_groups()


@pytest.mark.parametrize("encoder", ["mixer_s32_224", "swin_tiny_patch4_window7_224"])
def test_refuses_an_encoder_of_one_size_with_its_reason(encoder: str) -> None:
    with pytest.raises(InputError, match=r"48 mel bins x 251 frames.*Input height \(48\) doesn't match model \(224\)"):
        build_encoder(config(encoder), RANDOM)


def test_unknown_name_is_refused_with_its_neighbours() -> None:
    with pytest.raises(InputError, match=r"'resnet34z' is not\. Similar names: .*resnet34"):
        resolve_pretrained("resnet34z", "auto")


def test_off_means_random() -> None:
    assert resolve_pretrained(ENCODER, "off") == RANDOM


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_of_a_file_are_loaded_and_named_by_content(tmp_path: Path, suffix: str) -> None:
    path, weights = saved_weights(tmp_path)
    if suffix == ".pth":
        path = tmp_path / "weights.pth"
        torch.save(weights, path)
    resolved = resolve_pretrained(ENCODER, str(path))
    assert resolved.name.startswith("file:")
    assert pickle.loads(pickle.dumps(resolved)) == resolved
    torch.manual_seed(1)
    loaded = build_encoder(config(ENCODER), resolved)[0].model
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    assert "state_dict" not in loaded.pretrained_cfg


def test_first_layer_is_adapted_to_one_channel(tmp_path: Path) -> None:
    path, weights = saved_weights(tmp_path)
    loaded = build_encoder(config(ENCODER, deltas=False), resolve_pretrained(ENCODER, str(path)))[0].model
    torch.testing.assert_close(loaded.conv1[0].weight, weights["conv1.0.weight"].sum(1, keepdim=True))


def test_a_folder_holds_one_file_an_encoder(tmp_path: Path) -> None:
    path, _ = saved_weights(tmp_path)
    assert resolve_pretrained(ENCODER, str(tmp_path)).path == path.resolve()
    with pytest.raises(InputError, match="test_vit"):
        resolve_pretrained("test_vit", str(tmp_path))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """timm loads what has the same name and leaves the rest at random, without a word."""
    path, weights = saved_weights(tmp_path)
    with pytest.raises(InputError, match=r"does not fit .*size mismatch"):
        build_encoder(config("test_efficientnet"), resolve_pretrained("test_efficientnet", str(path)))
    weights.pop("layer1.0.conv1.weight")
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(InputError, match=r"lacks 1 of.*layer1\.0\.conv1\.weight"):
        build_encoder(config(ENCODER), resolve_pretrained(ENCODER, str(tmp_path / "part.safetensors")))


def test_a_file_that_is_not_weights_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "x.safetensors"
    broken.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"x\.safetensors cannot be read"):
        build_encoder(config(ENCODER), resolve_pretrained(ENCODER, str(broken)))
    with pytest.raises(InputError, match="exists, but got"):
        resolve_pretrained(ENCODER, str(tmp_path / "absent"))


class Trap:
    """Runs when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_a_pickle_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"conv1.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="cannot be read"):
        build_encoder(config(ENCODER), resolve_pretrained(ENCODER, str(tmp_path / "trap.pth")))
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_is_not_on_this_machine_is_not_replaced_by_random_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="every machine"):
        build_encoder(config(ENCODER), PretrainedWeights("file:abc", tmp_path / "gone.safetensors"))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)


def test_auto_without_the_hub_is_random_and_says_so(no_hub: None) -> None:
    resolved = resolve_pretrained("resnet34d.ra2_in1k", "auto")
    assert resolved == RANDOM
    assert (
        resolved.found == "resnet34d.ra2_in1k: random weights, because the Hugging Face hub cannot be reached (ConnectionError)"
    )


def test_require_without_the_hub_is_refused(no_hub: None) -> None:
    with pytest.raises(InputError, match=r"required.*--pretrained off"):
        resolve_pretrained("resnet34d.ra2_in1k", "require")
    with pytest.raises(InputError, match="timm has no weights"):
        resolve_pretrained(NEVER_TRAINED, "require")


def test_the_hub_is_asked_once_and_named_with_its_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url, timeout: asked.append((url, timeout)))
    resolved = resolve_pretrained("resnet34d", "require")
    assert (resolved.name, resolved.path) == ("timm:resnet34d.ra2_in1k", None)
    assert [url.endswith("/timm/resnet34d.ra2_in1k/resolve/main/model.safetensors") for url, _ in asked] == [True]
    assert asked[0][1] <= 5


def test_weights_on_this_machine_are_used_without_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    path, weights = saved_weights(tmp_path)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(path))
    resolved = resolve_pretrained(ENCODER, "auto")
    assert (resolved.name, resolved.path) == ("timm:test_resnet.r160_in1k", path)
    loaded = build_encoder(config(ENCODER), resolved)[0].model
    assert torch.equal(loaded.layer1[0].conv1.weight, weights["layer1.0.conv1.weight"])


def test_weights_promised_by_the_hub_and_gone_stop_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", gone)
    with pytest.raises(TrainingError, match="no route"):
        build_encoder(config(ENCODER), PretrainedWeights("timm:test_resnet.r160_in1k"))


@pytest.mark.slow
def test_a_real_missing_network_costs_seconds_and_not_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *args, **kwargs: "https://10.255.255.1/model.safetensors")
    started = time.perf_counter()
    resolve_pretrained("resnet34d", "auto")
    assert time.perf_counter() - started < 10
