"""OpenVINO gives the outputs of the model, for any number of windows and streams, and nothing that is unfilled."""

import sys

import numpy as np
import pytest
import torch
from made_up_bundles import random_part

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.conversion import to_openvino
from birdclef_core.inference.networks import openvino_runtime
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.networks.openvino_runtime import OpenVinoRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import SOLUTION_2023

pytest.importorskip("openvino")


def spectrograms(head: str, count: int) -> torch.Tensor:
    shape = input_shape(random_part(head).model.config, SOLUTION_2023)
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module", params=["sed", "cnn"])
def written(request, tmp_path_factory):
    """(head, file) of a network in float32."""
    path = tmp_path_factory.mktemp("openvino") / "network.xml"
    to_openvino(Network(random_part(request.param).model), spectrograms(request.param, 2), path, "float32")
    return request.param, path


@pytest.mark.parametrize(("count", "num_streams"), [(1, 1), (4, 2), (11, 2)])
def test_it_gives_the_outputs_of_torch(written, count, num_streams):
    head, path = written
    mel_BKFN = spectrograms(head, count)
    expected = TorchRuntime(random_part(head).model, torch.device("cpu"))(mel_BKFN)
    found = OpenVinoRuntime(path, "float32", num_streams)(mel_BKFN)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_asked_for_and_refused_where_the_cpu_lacks_it(written, monkeypatch):
    _, path = written
    openvino = openvino_runtime.import_openvino()
    settings = []
    original = openvino.Core.compile_model

    def compile_model(self, model, device, config):
        settings.append(config)
        return original(self, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", compile_model)
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    for precision in ("float32", "bfloat16", "int8"):
        OpenVinoRuntime(path, precision, 2)
    assert [item["INFERENCE_PRECISION_HINT"] for item in settings] == ["f32", "bf16", "f32"]
    assert {(item["NUM_STREAMS"], item["INFERENCE_NUM_THREADS"]) for item in settings} == {(2, 2)}
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(InputError, match="bfloat16, which this CPU cannot compute in"):
        OpenVinoRuntime(path, "bfloat16", 1)


def test_outputs_that_are_unfilled_at_first_are_asked_for_again(written, monkeypatch):
    """A known fault: what a request gives at its first run can be whatever was in memory."""
    stream, runs = openvino_runtime._Stream, []
    original = stream.run

    def first_is_unfilled(self, heard):
        runs.append(len(heard))
        results = original(self, heard)
        return [np.full_like(tensor, 7.0) for tensor in results] if len(runs) == 1 else results

    head, path = written
    mel_BKFN = spectrograms(head, 4)
    expected = OpenVinoRuntime(path, "float32", 1)(mel_BKFN)
    monkeypatch.setattr(stream, "run", first_is_unfilled)
    runtime = OpenVinoRuntime(path, "float32", 1)
    assert not runs, "a network that gets no windows is not tried"
    torch.testing.assert_close(runtime(mel_BKFN).clip_BC, expected.clip_BC)
    assert len(runs) == 3
    runtime(mel_BKFN)
    assert len(runs) == 4, "it is tried once"
    monkeypatch.setattr(stream, "run", lambda self, heard: [np.random.default_rng().random((4, 3))])
    with pytest.raises(InputError, match="must give the same outputs each time"):
        OpenVinoRuntime(path, "float32", 1)(mel_BKFN)


def test_logits_that_a_trained_network_gives_to_noise_are_finite(tmp_path):
    """OpenVINO's own logarithm of a sigmoid is minus infinity below -88, and such a network was refused."""
    part = random_part("sed")
    with torch.no_grad():
        part.model.head.attention_block.classify.bias.fill_(-150.0)
    to_openvino(Network(part.model), spectrograms("sed", 2), tmp_path / "network.xml", "float32")
    found = OpenVinoRuntime(tmp_path / "network.xml", "float32", 1)(spectrograms("sed", 4))
    expected = TorchRuntime(part.model, torch.device("cpu"))(spectrograms("sed", 4))
    assert expected.clip_BC.max() < -100
    torch.testing.assert_close(found.clip_BC, expected.clip_BC, rtol=1e-4, atol=1e-3)


def test_what_is_no_network_and_other_spectrograms_are_refused(written, tmp_path):
    head, path = written
    with pytest.raises(InputError, match="takes windows of the shape"):
        OpenVinoRuntime(path, "float32", 1)(spectrograms(head, 1)[..., :-1])
    (tmp_path / "other.xml").write_text("<net/>")
    with pytest.raises(InputError, match="must be a network that OpenVINO can run"):
        OpenVinoRuntime(tmp_path / "other.xml", "float32", 1)


def test_a_missing_library_is_one_line_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"not installed: pip install openvino$"):
        openvino_runtime.import_openvino()
