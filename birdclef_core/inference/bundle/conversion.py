"""Turns a network into the files of other libraries: OpenVINO and ONNX, in float32, bfloat16 or int8.

What a network is given are windows, their first dimension: spectrograms (B, K, F, N), or sound (B, T).
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.program import can_be_exported
from birdclef_core.inference.networks.encoder_head import HeadNetwork
from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.networks.openvino_runtime import import_openvino
from birdclef_core.inference.networks.sound_network import SoundNetwork


def to_openvino(network: Network | SoundNetwork, heard: Tensor, path: Path, precision: str) -> None:
    """Write a network as OpenVINO's .xml and .bin. `heard`: what it is given of windows of real sound, on which int8 is fitted.

    Weights are kept in float32, or in float16 for a bfloat16 network, which rounds them more than that. Raises InputError when a library
    is missing.
    """
    openvino = import_openvino()
    nncf = _import_nncf() if precision == "int8" else None
    with _quiet():
        # Traced here and not by OpenVINO, which traces twice.
        with torch.no_grad(), _finite_logsigmoid():
            traced = torch.jit.trace(network, heard[:2], check_trace=False)
        model = openvino.convert_model(traced, example_input=heard[:2], input=[(-1, *heard.shape[1:])])
        if nncf is not None:
            samples = nncf.Dataset(list(heard.numpy()), lambda window: window[None])
            model = nncf.quantize(model, samples, subset_size=len(heard))
        openvino.save_model(model, path, compress_to_fp16=precision == "bfloat16")


def to_onnx(network: Network | SoundNetwork | HeadNetwork, heard: Tensor, path: Path) -> None:
    """Write a network as ONNX, in float32, for any number of windows. Raises InputError when a library is missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "The format onnx is written by onnx and onnxscript, which are not installed: pip install onnx onnxscript"
        ) from None
    with _quiet(), can_be_exported():
        program = torch.onnx.export(
            network,
            (heard[:2],),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            input_names=[network.input_name],
            output_names=network.output_names,
            verbose=False,
        )
        assert program is not None
        program.save(path, external_data=False)


def _import_nncf() -> Any:
    try:
        import nncf
    except ImportError:
        raise InputError("The precision int8 needs NNCF, which is not installed: pip install nncf") from None
    return nncf


@contextmanager
def _finite_logsigmoid() -> Iterator[None]:
    """Let the logarithm of a sigmoid be a softplus within the block. OpenVINO computes it as the two functions that it is named by, which
    gives minus infinity for logits below -88."""
    before = F.logsigmoid
    F.logsigmoid = lambda logits: -F.softplus(-logits)  # type: ignore[assignment]
    try:
        yield
    finally:
        F.logsigmoid = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what libraries say about themselves off the terminal: nobody who exports a network can act on it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
