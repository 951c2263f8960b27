"""A network as a program is the network, and needs no more than torch."""

import pytest
import torch
from made_up_bundles import random_part

from birdclef_core.inference.bundle.program import write_program
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.networks.program_runtime import ProgramRuntime
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import SOLUTION_2023
from birdclef_core.stages.precision import Arithmetic


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_a_program_gives_the_outputs_of_the_network(head, tmp_path):
    model = random_part(head).model
    mel_BKFN = torch.rand(5, *input_shape(model.config, SOLUTION_2023), generator=torch.Generator().manual_seed(1))
    write_program(Network(model), mel_BKFN, tmp_path / "network.pt")
    runtime = ProgramRuntime(tmp_path / "network.pt")
    for count in (1, 5):
        for a, b in zip(runtime(mel_BKFN[:count]), TorchRuntime(model, torch.device("cpu"))(mel_BKFN[:count]), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    text = (tmp_path / "network.py").read_text()
    imported = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert imported == ["from math import inf, nan", "import torch", "from torch import device"]


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_a_network_is_exported_in_a_process_that_has_trained(precision, tmp_path):
    """A stage sets the precision of cuDNN's convolutions, and keeps it."""
    before = torch.backends.cudnn.rnn.fp32_precision
    Arithmetic(precision, torch.device("cpu"))
    model = random_part("sed").model
    mel_BKFN = torch.rand(2, *input_shape(model.config, SOLUTION_2023))
    write_program(Network(model), mel_BKFN, tmp_path / "network.pt")
    assert torch.backends.cudnn.rnn.fp32_precision == before
    assert torch.backends.cudnn.conv.fp32_precision == ("tf32" if precision == "tf32" else "ieee")
