"""Every recipe's encoder and those of other timm families learn through both heads, at the size the recipe uses them with.

Shapes: B clips, T samples.
"""

import json
from pathlib import Path

import pytest
import torch

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.models.detector import Detector
from birdclef_core.models.losses import bce_loss, ce_loss

pytestmark = pytest.mark.slow

GOLDEN = json.loads((Path(__file__).parents[2] / "data/golden/frontend_meta.json").read_text())
RECIPES = {
    "sed_v2s": "tf_efficientnetv2_s.in21k",
    "sed_b3ns": "tf_efficientnet_b3.ns_jft_in1k",
    "sed_seresnext26t": "seresnext26t_32x4d.bt_in1k",
    "cnn_v2s": "tf_efficientnetv2_s.in21k",
    "cnn_b3ns": "tf_efficientnet_b3.ns_jft_in1k",
    "cnn_resnet34d": "resnet34d.ra2_in1k",
    "cnn_b0ns": "tf_efficientnet_b0.ns_jft_in1k",
}
FAMILIES = (
    "convnext_atto",
    "convnextv2_atto",
    "efficientvit_b0",
    "efficientvit_m0",
    "regnety_002",
    "mobilenetv4_conv_small",
    "fastvit_t8",
    "vit_tiny_patch16_224",
    "deit_tiny_patch16_224",
    "vit_tiny_patch16_dinov3_qkvb",
)


def learn_one_step(config: ModelConfig, clip_s: float) -> None:
    """Forward, backward and a step in training, then in evaluation, with a clip of another length."""
    torch.manual_seed(0)
    model = Detector(config, 264)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for loss in (ce_loss, bce_loss):
        wave_BT = torch.randn(2, round(clip_s * 32_000)) * 0.1
        optimizer.zero_grad()
        value = loss(model(model.spectrograms(wave_BT)), torch.rand(2, 264), torch.tensor([1.0, 0.5]))
        value.backward()
        optimizer.step()
        assert torch.isfinite(value)
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients)
        # Blocks in between may get none in a batch of two: residual branches start at zero, stochastic depth leaves them out.
        assert all(bool(end.grad.any()) for end in (next(model.encoder.parameters()), *model.head.parameters()))
    model.eval()
    with torch.inference_mode():
        output = model(model.spectrograms(torch.randn(1, round((clip_s + 5) * 32_000)) * 0.1))
    assert output.logits_BC.shape == (1, 264)
    assert torch.isfinite(output.logits_BC).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe(recipe: str) -> None:
    meta = GOLDEN[recipe]
    spectrogram = SpectrogramConfig(
        num_mels=meta["n_mels"],
        n_fft=meta["n_fft"],
        hop_length=meta["hop_length"],
        f_min_hz=float(meta["f_min"]),
        f_max_hz=float(meta["f_max"]),
        db_scale={80: "unit", 255: "over_255"}[meta["normal"]],
        deltas=meta["in_chans"] == 3,
    )
    head = "sed" if recipe.startswith("sed") else "cnn"
    learn_one_step(ModelConfig(head=head, encoder=RECIPES[recipe], spectrogram=spectrogram), clip_s=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["sed", "cnn"])
@pytest.mark.parametrize("encoder", FAMILIES)
def test_family(encoder: str, head: str) -> None:
    spectrogram = SpectrogramConfig(num_mels=64, n_fft=1024, hop_length=640)
    learn_one_step(ModelConfig(head=head, encoder=encoder, spectrogram=spectrogram), clip_s=5)  # type: ignore[arg-type]
