"""What a stage cannot be built with is known from its settings, before anything is trained."""

from dataclasses import replace

import pytest

from birdclef_core.config import ModelConfig, SpectrogramConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.models.detector import Detector
from birdclef_core.stages.buildable import check_layers, check_length

MODEL = ModelConfig(
    encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False)
)


def stage(**changes) -> StageConfig:
    values = {
        "name": "train",
        "label_space": "target",
        "loss": "ce",
        "epochs": 3,
        "learning_rate": 1e-3,
        "batch_size": 4,
        "seed": 0,
    }
    return StageConfig(**{"clip_s": 5.0, **values, **changes})


def test_no_more_groups_are_frozen_than_the_encoder_has():
    number = len(Detector(MODEL, 2).layer_groups())
    check_layers(MODEL, stage(frozen_blocks=number))
    with pytest.raises(
        InputError, match=rf"frozen_blocks <= {number} must hold for stage train, because the encoder 'mobilenetv3_small"
    ):
        check_layers(MODEL, stage(frozen_blocks=number + 1))
    check_layers(MODEL, stage(frozen_blocks=number + 1, embeddings="embed"))


@pytest.mark.parametrize("changes", [{"layer_decay": 0.5}, {"thaw_every": 1}, {"frozen_blocks": 1}])
def test_an_encoder_without_groups_of_layers_is_refused_where_they_are_needed(monkeypatch, changes):
    def none_known(self):
        raise InputError("of Linear it knows none")

    monkeypatch.setattr("birdclef_core.models.encoders.Encoder.layer_groups", none_known)
    model = replace(MODEL, encoder="mobilenetv3_small_075")
    with pytest.raises(InputError, match="Stage train: of Linear it knows none"):
        check_layers(model, stage(**changes))
    check_layers(model, stage())


def test_clips_that_an_encoder_makes_nothing_of_are_refused():
    model = replace(MODEL, encoder="convnext_atto", spectrogram=replace(MODEL.spectrogram, hop_length=1000))
    check_length(model, stage(clip_s=2.0))
    with pytest.raises(InputError, match=r"'convnext_atto' cannot make features of clips of 0\.5 s, 17 frames, in stage train"):
        check_length(model, stage(clip_s=0.5))
    check_length(MODEL, stage(clip_s=0.5))
    check_length(model, stage(clip_s=0.5, embeddings="embed"))
