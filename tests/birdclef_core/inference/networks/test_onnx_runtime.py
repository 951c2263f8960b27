"""ONNX Runtime gives the outputs of the model, for any number of windows."""

import sys

import pytest
import torch
from made_up_bundles import random_part
from made_up_detector import FEW_LAYERS

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.conversion import to_onnx
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.networks.onnx_runtime import OnnxRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import SOLUTION_2023

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.slow
@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_it_gives_the_outputs_of_torch(head, tmp_path):
    model, path = random_part(head, encoder=FEW_LAYERS).model, tmp_path / "network.onnx"
    mel_BKFN = torch.rand(5, *input_shape(model.config, SOLUTION_2023), generator=torch.Generator().manual_seed(1))
    to_onnx(Network(model), mel_BKFN, path)
    runtime = OnnxRuntime(path)
    for count in (1, 5):
        expected = TorchRuntime(model, torch.device("cpu"))(mel_BKFN[:count])
        for a, b in zip(runtime(mel_BKFN[:count]), expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="takes windows of the shape"):
        runtime(mel_BKFN[..., :-1])


def test_what_is_no_network_is_refused(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"no network")
    with pytest.raises(InputError, match="must be a network that ONNX Runtime can run"):
        OnnxRuntime(tmp_path / "other.onnx")


@pytest.mark.parametrize("library", ["onnxruntime", "onnxscript"])
def test_a_missing_library_is_one_line_with_the_way_to_install_it(monkeypatch, tmp_path, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"not installed: pip install .*{library}"):
        if library == "onnxruntime":
            OnnxRuntime(tmp_path / "network.onnx")
        else:
            to_onnx(Network(random_part("cnn").model), torch.zeros(2, 1, 32, 160), tmp_path / "network.onnx")
