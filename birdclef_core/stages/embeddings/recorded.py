"""What the record of a stage says of the encoder that it began with, and how embeddings are made again from theirs."""

from collections.abc import Iterable
from dataclasses import replace

from birdclef_core.config import EMBEDS, ModelConfig, SpectrogramConfig, StageConfig
from birdclef_core.data.dataset import Dataset
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint, restore
from birdclef_core.recipes import predictions
from birdclef_core.stages.embeddings.stored import ONNX_FILE
from birdclef_core.store.stage_store import StageEntry, StageRecord

ENCODER_IN_FILE = "onnx"
"""What `embeds` is in the identity of embeddings whose encoder is an ONNX file; of a timm encoder it says what makes it."""


def first_encoder(record: StageRecord) -> str | None:
    """Return the timm encoder with whose first weights a stage was made; None where it had a parent, or an encoder in a file, or heard with
    other stages."""
    embeds = record.identity["stage"].get("embeds")
    if embeds is not None:
        return None if embeds == ENCODER_IN_FILE else str(embeds[0])
    if record.parent_id or record.is_predictions or record.is_head:
        return None
    return restore(ModelConfig, record.identity["model"]).encoder


def encoders_of(teachers: Iterable[StageRecord]) -> tuple[str, ...]:
    """Return the ids of the stages of embeddings with whose encoders heads among some teachers hear."""
    return tuple(dict.fromkeys(record.identity["embeddings"] for record in teachers if record.is_head))


def embeddings_data(dataset: Dataset, data: str) -> str:
    """Return what stands for the data in the identity of a stage of embeddings. `data`: fingerprint of the recordings."""
    return fingerprint([data, dataset.all_species.fingerprint])


def embeddings_configs(entry: StageEntry) -> tuple[ModelConfig, StageConfig]:
    """Return model and configuration of recorded embeddings. An ONNX encoder is the copy that is kept with them. Raises InputError where it
    is not there."""
    stage = entry.record.identity["stage"]
    model, encoder, seed = ModelConfig(), str(entry.folder / ONNX_FILE), 0
    if stage["embeds"] == ENCODER_IN_FILE:
        if not (entry.folder / ONNX_FILE).is_file():
            raise InputError(
                f"{encoder} must be the encoder of {entry.record.stage}, but is not there: an older version of the code made it."
            )
    else:
        name, axes, spectrogram, seed = stage["embeds"]
        model = ModelConfig(encoder=name, encoder_axes=axes, spectrogram=restore(SpectrogramConfig, spectrogram))
        encoder = "timm"
    config = predictions(
        entry.record.stage,
        of=f"{EMBEDS}{encoder}",
        on="recordings",
        window_s=stage["clip_s"],
        precision=stage["precision"],
    )
    rate_hz, output = stage["encoder_rate_hz"], stage["encoder_output"]
    return model, replace(config, encoder_rate_hz=rate_hz, encoder_output=output, seed=seed)
