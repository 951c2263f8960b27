"""Detectors that hear without training: made-up networks, and stored stages with random weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import recreated_2023
import torch
from safetensors.torch import save_file

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.identity import canonical
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.inference.results.calibration import Calibration
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING
from birdclef_core.inference.runtime import Outputs
from birdclef_core.models.detector import Detector
from birdclef_core.recipes import RECIPES
from birdclef_core.store.stage_store import WEIGHTS, StageRecord, StageStore

SPECIES = ("alpha", "beta", "gamma")


class Loudness:
    """A network whose logits are the mean of what it hears, times a factor for each species; a segment is 32 frames."""

    def __init__(self, is_sed: bool, factors=(1.0, -1.0, 20.0)) -> None:
        self.is_sed, self.factors = is_sed, torch.tensor(factors)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, mel_BKFN: torch.Tensor) -> Outputs:
        self.shapes.append(tuple(mel_BKFN.shape))
        level_BN = mel_BKFN[:, 0].mean(dim=1)
        segments_BS = torch.stack([part.mean(dim=1) for part in level_BN.split(32, dim=1)], dim=1)
        clip_BC = level_BN.mean(dim=1)[:, None] * self.factors
        segments_BSC = segments_BS[..., None] * self.factors if self.is_sed else None
        return Outputs(clip_BC, segments_BSC, level_BN.mean(dim=1, keepdim=True).expand(-1, 4))


def loudness_detector(head: str = "sed", procedure: Procedure = DEFAULT, **spectrogram) -> DeployedDetector:
    config = ModelConfig(
        head=head, spectrogram=SpectrogramConfig(**{"num_mels": 16, "hop_length": 1250, "deltas": False, **spectrogram})
    )
    member = Member(model_id="1" * 64, config=config, species=SPECIES, runtime=Loudness(head == "sed"))
    return DeployedDetector((member,), procedure, names={"alpha": "Alpha bird"})


def made_up_calibration(detector: DeployedDetector, **values) -> Calibration:
    """A calibration that nobody has fitted; `values` replace fields of it."""
    known = {
        "model_id": detector.model_id,
        "procedure": detector.procedure,
        "species": detector.species,
        "slope": 0.5,
        "intercepts": (-1.0, 0.0, -0.5),
        "supports": (12, 3, 0),
        "postprocessing": NO_POSTPROCESSING,
        "fitted_on": "soundscapes",
        "num_rows": 40,
        "num_files": 4,
    }
    return Calibration(**{**known, **values})


class RecreatedNetwork:
    """A made-up network of `recreated_2023`, in torch."""

    def __init__(self, model: recreated_2023.Model) -> None:
        self.model = model

    def __call__(self, mel_BKFN: torch.Tensor) -> Outputs:
        matrix, bias = recreated_2023.weights(self.model, mel_BKFN.shape[1])
        features = [recreated_2023.made_up_features(mel.double().numpy(), self.model).T for mel in mel_BKFN]
        segments_BSC = torch.from_numpy(np.stack([item @ matrix + bias for item in features])).float()
        clip_BC = torch.from_numpy(np.stack([item.mean(axis=0) @ matrix + bias for item in features])).float()
        return Outputs(clip_BC, segments_BSC if self.model.head == "sed" else None, clip_BC)


def recreated_member(name: str, *, weight: float = 1.0) -> Member:
    """A member with the recipe's spectrogram and a made-up network; its classes are not in sorted order."""
    order = [3, 1, 0, 4, 2]
    network = RecreatedNetwork(recreated_2023.MODELS[name])

    def shuffled(mel_BKFN: torch.Tensor) -> Outputs:
        outputs = network(mel_BKFN)
        segments = None if outputs.segments_BSC is None else outputs.segments_BSC[..., order]
        return Outputs(outputs.clip_BC[:, order], segments, outputs.embedding_BD)

    species = tuple(f"species{number}" for number in order)
    return Member(model_id=name, config=RECIPES[name]().model, species=species, runtime=shuffled, weight=weight)


FEW_LAYERS = "test_resnet.r160_in1k"
"""An encoder of a third as many layers: for tests that convert networks, which takes time for each layer."""


def tiny_config(head: str, encoder: str = "mobilenetv3_small_050") -> ModelConfig:
    return ModelConfig(
        head=head,
        encoder=encoder,
        spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=1000, deltas=False),
    )


def publish_random(
    store: StageStore,
    stage_id: str = "ab" * 32,
    *,
    head: str = "sed",
    encoder: str = "mobilenetv3_small_050",
    species=SPECIES,
    seed: int = 1,
    **values,
) -> StageRecord:
    """Publish a stage with random weights that can be loaded; `values` replace fields of its record."""
    config = tiny_config(head, encoder)
    torch.manual_seed(seed)
    model = Detector(config, len(species))
    with torch.no_grad():
        # As they are after training: logits differ between windows.
        for parameter in model.head.parameters():
            parameter.mul_(3)
    record = StageRecord(
        **{
            "stage_id": stage_id,
            "parent_id": None,
            "recipe": "tiny",
            "stage": "train_bce",
            "identity": {"model": canonical(config), "stage": {"name": "train_bce"}, "data": "d" * 64},
            "species": list(species),
            "metrics": {"cmap_pad5": 0.5},
            "history": [],
            "cost_s": 1.0,
            "surgery": "",
            "environment": {},
            "finished_at": "2026-11-22T12:00:00+00:00",
            **values,
        }
    )
    with store.publish(lambda: record, stage_id) as folder:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    return record


def write_sound(path: Path, duration_s: float, *, seed: int = 0, rate_hz: int = 32_000) -> Path:
    """Noise whose level changes every second, so that windows differ."""
    import soundfile

    count = round(duration_s * rate_hz)
    generator = np.random.default_rng(seed)
    level = np.repeat(generator.uniform(0.01, 0.3, count // rate_hz + 1), rate_hz)[:count]
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, (level * generator.uniform(-1, 1, count)).astype(np.float32), rate_hz, subtype="PCM_16")
    return path


def with_weight(member: Member, weight: float) -> Member:
    return replace(member, weight=weight)
