"""A network with its spectrogram in itself gives the outputs of the network and the spectrogram apart."""

from dataclasses import replace

import pytest
import torch
from made_up_bundles import examples, random_part

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.inference.bundle.conversion import to_openvino
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.networks.network import Network
from birdclef_core.inference.networks.openvino_runtime import OpenVinoRuntime
from birdclef_core.inference.networks.sound_network import SoundNetwork, _Spectrogram
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import DEFAULT, SOLUTION_2023
from birdclef_core.recipes import RECIPES

CPU = torch.device("cpu")


def detector(head: str) -> DeployedDetector:
    part = random_part(head)
    member = Member(model_id=part.stage_id, config=part.model.config, species=part.species, runtime=TorchRuntime(part.model, CPU))
    return DeployedDetector((member,), SOLUTION_2023)


@pytest.mark.parametrize("name", list(RECIPES))
def test_its_spectrogram_is_that_of_the_recipe(name):
    """Also of silence, and of a loud window beside a quiet one."""
    front = MelSpectrogram(RECIPES[name]().model.spectrogram)
    wave_BT = torch.from_numpy(examples().wave_RT[:2, :64_000]) * torch.tensor([[1.0], [1e-3]])
    wave_BT = torch.cat([wave_BT, torch.zeros(1, 64_000)])
    inside = _Spectrogram(front)
    torch.testing.assert_close(inside(wave_BT, 0, front.num_frames(64_000)), front(wave_BT), rtol=0, atol=1e-4)


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_it_gives_the_outputs_of_the_two_apart(head):
    apart, wave_RT = detector(head), examples().wave_RT[:3]
    (mel_BKFN,) = apart.inputs(wave_RT)
    expected = apart.members[0].runtime(mel_BKFN)
    network = SoundNetwork(Network(random_part(head).model), SOLUTION_2023)
    with torch.inference_mode():
        found = network(torch.from_numpy(wave_RT))
    given = [tensor for tensor in expected if tensor is not None]
    for a, b in zip(found, given, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_detector_gives_it_sound(tmp_path):
    pytest.importorskip("openvino")
    apart, wave_RT = detector("cnn").with_procedure(DEFAULT), examples().wave_RT[:3]
    network = SoundNetwork(Network(random_part("cnn").model), DEFAULT)
    to_openvino(network, torch.from_numpy(wave_RT), tmp_path / "network.xml", "float32")
    runtime = OpenVinoRuntime(tmp_path / "network.xml", "float32", 1)
    (member,) = apart.members
    together = replace(apart, members=(replace(member, runtime=runtime, takes_sound=True),))
    expected, found = apart.hear(wave_RT), together.hear(wave_RT)
    torch.testing.assert_close(torch.from_numpy(found.logits_BC), torch.from_numpy(expected.logits_BC), rtol=1e-3, atol=1e-3)
