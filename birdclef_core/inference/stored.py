"""Makes members of a detector from stored stages."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, Precision, StageConfig
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import file_sha256, restore
from birdclef_core.inference.deployed import SHOWN_DIGITS, Member, soup_id
from birdclef_core.inference.networks.encoder_head import EncoderWithHead, FileWithHead, TorchHead
from birdclef_core.inference.networks.file_runtime import FileRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM, build_encoder
from birdclef_core.models.heads import EmbeddingHead
from birdclef_core.stages.embeddings.encoders import ONNX_NAME
from birdclef_core.stages.embeddings.onnx_encoder import OnnxEncoder
from birdclef_core.stages.embeddings.stored import ONNX_FILE, TIMM_WEIGHTS
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
        return _with_encoder(record, config, weights, embeddings)
    with torch.random.fork_rng(devices=[]):
        model = Detector(config, len(record.species))
    _load(model, weights, record)
    return model


def _with_encoder(record: StageRecord, config: ModelConfig, weights: dict[str, Tensor], embeddings: StageEntry) -> Model:
    """A head on embeddings, with the encoder that made them."""
    made, folder = embeddings.record.identity, embeddings.folder
    num_numbers, clip_s = len(weights["layers.0.weight"]), float(made["stage"]["clip_s"])
    hidden = restore(StageConfig, record.identity["stage"]).head_hidden
    head = EmbeddingHead(num_numbers, len(record.species), hidden, config.head_dropout)
    _load(head, weights, record)
    sha256 = made["parent"].removeprefix(ONNX_NAME) if made["parent"].startswith(ONNX_NAME) else None
    file = folder / (TIMM_WEIGHTS if sha256 is None else ONNX_FILE)
    if not file.is_file():
        raise InputError(
            f"The encoder of head {record.stage_id[:SHOWN_DIGITS]} must be with its embeddings, but {file} is not there: an older version of the "
            "code made them. Remove that stage from the store, and train the head again."
        )
    if sha256 is None:
        with torch.random.fork_rng(devices=[]):
            encoder, _ = build_encoder(config, RANDOM)
        try:
            _load(encoder, load_file(file), embeddings.record)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{file} must have the weights of an encoder, but: {error}") from None
        return EncoderWithHead(config, clip_s, made["stage"]["precision"], encoder, head)
    if file_sha256(file) != sha256:
        raise InputError(f"{file} must be the ONNX encoder that made the embeddings (sha256 {sha256}), but is another file.")
    rate_hz = int(made["stage"]["encoder_rate_hz"])
    heard = replace(config.spectrogram, f_min_hz=0.0, f_max_hz=min(rate_hz, SAMPLE_RATE_HZ) / 2)
    shown = replace(config, encoder=f"{ONNX_NAME}{sha256[:SHOWN_DIGITS]}", spectrogram=heard)
    return FileWithHead(
        config=shown, clip_s=clip_s, path=file, rate_hz=rate_hz, output=made["stage"]["encoder_output"], head=head.eval()
    )


def _made_of(record: StageRecord) -> tuple[object, ...]:
    """What must be equal for stages whose weights are averaged."""
    identity = record.identity
    return identity.get("model"), record.species, identity.get("embeddings"), identity.get("stage", {}).get("head_hidden")


def _load(model: nn.Module, weights: dict[str, Tensor], record: StageRecord) -> None:
    try:
        model.load_state_dict(weights)
    except (RuntimeError, KeyError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise StoreError(
            f"The weights of stage {record.stage_id[:SHOWN_DIGITS]} must be those of the model of its record, but: {problem}"
        ) from None


def _mean_weights(entries: Sequence[StageEntry]) -> dict[str, Tensor]:
    """Return the mean of the weights and BatchNorm statistics of stages; counters are those of the first."""
    first, *others = [entry.weights() for entry in entries]
    if not others:
        return first
    return {
        name: torch.stack([tensor, *(other[name] for other in others)]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }
