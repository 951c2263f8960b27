"""The formats in which a bundle keeps networks."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.conversion import to_onnx, to_openvino
from birdclef_core.inference.bundle.program import write_program
from birdclef_core.inference.bundle.record import BundleMember, BundlePrecision, FormatName
from birdclef_core.inference.networks.encoder_head import HeadNetwork
from birdclef_core.inference.networks.file_runtime import load_onnx_network
from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.networks.openvino_runtime import OpenVinoRuntime
from birdclef_core.inference.networks.program_runtime import WEIGHTS, ProgramRuntime
from birdclef_core.inference.networks.sound_network import SoundNetwork
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.runtime import Runtime
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM, build_encoder
from birdclef_core.models.heads import EmbeddingHead
from birdclef_core.stages.embeddings.hearing import EncoderWithHead

AnyNetwork = Network | SoundNetwork | HeadNetwork
Write = Callable[[AnyNetwork, Tensor, Path, BundlePrecision], None]
"""Writes a network to the file that it is given, and to files of the same name with other suffixes. Gets what the network is given of
windows of real sound."""
Load = Callable[[BundleMember, Path, torch.device, BundlePrecision], Runtime]
"""Returns what runs the network in a file, in as many threads at once as torch has."""


@dataclass(frozen=True, kw_only=True)
class NetworkFormat:
    """How networks are written and loaded."""

    suffix: str
    """Of the file of a network."""
    precisions: tuple[BundlePrecision, ...]
    """Those that it has."""
    devices: tuple[str, ...]
    """Kinds of devices that it runs on."""
    library: str | None
    """What it runs with, besides torch."""
    has_frontend: bool
    """Whether a network can have its spectrogram in itself."""
    has_encoder_files: bool
    """Whether it keeps ONNX encoders, beside the heads on their embeddings."""
    write: Write
    load: Load
    load_standalone: Load
    """As `load`, but as the bundle's own `runtime.py` does it."""


def write_torch(network: AnyNetwork, heard: Tensor, path: Path, precision: BundlePrecision) -> None:
    """Write the weights of a network, and beside them the network as a program, for machines without timm."""
    assert isinstance(network, Network)
    write_program(network, heard, path)


def load_torch(member: BundleMember, path: Path, device: torch.device, precision: BundlePrecision) -> Runtime:
    """Return the network with the weights in a file. Only tensors are read from it: code in it would not run."""
    model = _model(member)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)[WEIGHTS])
    except Exception as error:  # whatever is in a file that is none of ours
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{path} must have the weights of a {member.model.encoder}, but: {problem}") from None
    return TorchRuntime(model, device)


def _model(member: BundleMember) -> Detector | EncoderWithHead:
    """The model of a member with random weights."""
    with torch.random.fork_rng(devices=[]):
        if member.head is None:
            return Detector(member.model, len(member.species))
        encoder, num_numbers = build_encoder(member.model, RANDOM)
        head = EmbeddingHead(num_numbers, len(member.species), member.head.hidden, dropout=0.0)
        return EncoderWithHead(member.model, member.head.clip_s, "float32", encoder, head)


def load_program(member: BundleMember, path: Path, device: torch.device, precision: BundlePrecision) -> Runtime:
    """Return the network as the program that lies beside its weights, which runs code of the bundle."""
    return ProgramRuntime(path)


def write_openvino(network: AnyNetwork, heard: Tensor, path: Path, precision: BundlePrecision) -> None:
    """Write a network as OpenVINO's .xml and .bin."""
    assert not isinstance(network, HeadNetwork)
    to_openvino(network, heard, path, precision)


def load_openvino(member: BundleMember, path: Path, device: torch.device, precision: BundlePrecision) -> Runtime:
    """Return the network in OpenVINO."""
    return OpenVinoRuntime(path, precision, torch.get_num_threads())


def write_onnx(network: AnyNetwork, heard: Tensor, path: Path, precision: BundlePrecision) -> None:
    """Write a network as ONNX."""
    to_onnx(network, heard, path)


def load_onnx(member: BundleMember, path: Path, device: torch.device, precision: BundlePrecision) -> Runtime:
    """Return the network in ONNX Runtime."""
    return load_onnx_network(member, path)


FORMATS: dict[FormatName, NetworkFormat] = {
    "torch": NetworkFormat(
        suffix=".pt",
        precisions=("float32",),
        devices=("cpu", "cuda"),
        library=None,
        has_frontend=False,
        has_encoder_files=False,
        write=write_torch,
        load=load_torch,
        load_standalone=load_program,
    ),
    "openvino": NetworkFormat(
        suffix=".xml",
        precisions=("float32", "bfloat16", "int8"),
        devices=("cpu",),
        library="openvino",
        has_frontend=True,
        has_encoder_files=False,
        write=write_openvino,
        load=load_openvino,
        load_standalone=load_openvino,
    ),
    "onnx": NetworkFormat(
        suffix=".onnx",
        precisions=("float32",),
        devices=("cpu",),
        library="onnxruntime",
        has_frontend=True,
        has_encoder_files=True,
        write=write_onnx,
        load=load_onnx,
        load_standalone=load_onnx,
    ),
}
