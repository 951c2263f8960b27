"""Makes members of a detector from stored stages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from birdclef_core.config import ModelConfig, Precision
from birdclef_core.errors import InputError
from birdclef_core.identity import restore
from birdclef_core.inference.deployed import SHOWN_DIGITS, Member, soup_id
from birdclef_core.inference.networks.encoder_head import TorchHead
from birdclef_core.inference.networks.file_runtime import FileRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.models.detector import Detector
from birdclef_core.stages.embeddings.hearing import EncoderWithHead, FileWithHead, load_weights, with_encoder
from birdclef_core.stages.embeddings.onnx_encoder import OnnxEncoder
from birdclef_core.store.stage_store import StageEntry, StageRecord

Model = Detector | EncoderWithHead | FileWithHead


def load_member(
    entry: StageEntry,
    device: torch.device,
    *,
    weight: float = 1.0,
    souped_with: Sequence[StageEntry] = (),
    embeddings: StageEntry | None = None,
) -> Member:
    """Return a stored stage as a member that runs in plain torch, or with ONNX Runtime where its encoder is an ONNX file; raises as
    `load_model` does. A head on embeddings hears in the precision of its embeddings."""
    model = load_model(entry, souped_with=souped_with, embeddings=embeddings)
    return member_of_model(
        model,
        device,
        model_id=soup_id([item.record.stage_id for item in (entry, *souped_with)]),
        species=tuple(entry.record.species),
        weight=weight,
        precision=model.precision if isinstance(model, EncoderWithHead) else "float32",
    )


def member_of_model(
    model: Model,
    device: torch.device,
    *,
    model_id: str,
    species: tuple[str, ...],
    weight: float = 1.0,
    precision: Precision = "float32",
) -> Member:
    """Return a model as a member that runs as `load_member` says. Raises InputError for an ONNX encoder that cannot be run."""
    clip_s = None if isinstance(model, Detector) else model.clip_s
    if isinstance(model, FileWithHead):
        num_threads = 1 if device.type == "cpu" else 0  # on a CPU, each core hears windows of its own
        encoder = OnnxEncoder(model.path, model.rate_hz, model.output, num_threads=num_threads)
        runtime: FileRuntime | TorchRuntime = FileRuntime(encoder, TorchHead(model.head))
    else:
        runtime = TorchRuntime(model, device, precision=precision)
    return Member(
        model_id=model_id,
        config=model.config,
        species=species,
        runtime=runtime,
        weight=weight,
        takes_sound=isinstance(model, FileWithHead),
        clip_s=clip_s,
    )


def load_model(entry: StageEntry, *, souped_with: Sequence[StageEntry] = (), embeddings: StageEntry | None = None) -> Model:
    """Return the model of a stored stage. `souped_with`: stages whose weights are averaged with its own. `embeddings`: for a head on
    embeddings the stage that keeps these, and with them the encoder.

    Raises InputError when the stage's model is not one of this version of the code, the stages differ in model or species, or the encoder
    was not kept; StoreError when weights are of another model.
    """
    record = entry.record
    record.require_weights()
    for other in souped_with:
        if _made_of(other.record) != _made_of(record):
            raise InputError(
                f"Stages whose weights are averaged must have one model and the same species, but {other.record.stage_id[:SHOWN_DIGITS]} "
                f"differs from {record.stage_id[:SHOWN_DIGITS]}."
            )
    weights = _mean_weights([entry, *souped_with])
    config = restore(ModelConfig, record.identity.get("model", {}))
    if record.is_head:
        assert embeddings is not None
        return with_encoder(record, config, weights, embeddings)
    with torch.random.fork_rng(devices=[]):
        model = Detector(config, len(record.species))
    load_weights(model, weights, record)
    return model


def _made_of(record: StageRecord) -> tuple[object, ...]:
    """What must be equal for stages whose weights are averaged."""
    identity = record.identity
    return identity.get("model"), record.species, identity.get("embeddings"), identity.get("stage", {}).get("head_hidden")


def _mean_weights(entries: Sequence[StageEntry]) -> dict[str, Tensor]:
    """Return the mean of the weights and BatchNorm statistics of stages; counters are those of the first."""
    first, *others = [entry.weights() for entry in entries]
    if not others:
        return first
    return {
        name: torch.stack([tensor, *(other[name] for other in others)]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }
