"""torch.compile is used where it was faster, and only there; what goes wrong in it stops nothing."""

from functools import partial

import pytest
import torch

from birdclef_core.models.detector import Detector
from birdclef_core.stages.compilation import compile_if_faster


class MadeUpStep:
    """Takes as long as it is told, plain and compiled."""

    def __init__(self, plain_s: float, compiled_s: float | Exception) -> None:
        self.plain_s, self.compiled_s, self.compiled = plain_s, compiled_s, False

    def compile_encoder(self, wanted: bool) -> None:
        self.compiled = wanted

    def rehearse(self, batch: object) -> float:
        if not self.compiled:
            return self.plain_s
        if isinstance(self.compiled_s, Exception):
            raise self.compiled_s
        return self.compiled_s


@pytest.mark.parametrize(
    ("compiled_s", "used", "said"),
    [
        (1.0, True, "torch.compile: used; a step takes 1 s with it and 2 s without"),
        (1.99, False, "torch.compile: not used; a step takes 1.99 s with it and 2 s without"),
        (RuntimeError("no C++ compiler\nand more"), False, "not used, because it failed here (RuntimeError: no C++ compiler)."),
    ],
)
def test_it_is_used_where_it_pays(compiled_s, used, said):
    step, notes = MadeUpStep(2.0, compiled_s), []
    assert compile_if_faster(step, step, None, notes.append) is used
    assert step.compiled is used
    assert len(notes) == 1 and said in notes[0]


@pytest.mark.slow
def test_a_compiled_encoder_computes_the_same_and_is_left_out_of_evaluation(tiny_recipe, monkeypatch):
    calls = []

    def backend(graph, example_inputs):
        """Stands in for the inductor, which takes a minute."""
        return lambda *inputs: calls.append(1) or graph(*inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    torch.manual_seed(0)
    model = Detector(tiny_recipe.model, 3).train()
    names, mel = list(model.state_dict()), torch.rand(2, 1, 32, 65)
    outputs = []
    for wanted in (False, True):
        model.compile_encoder(wanted)
        torch.manual_seed(1)
        outputs.append(model(mel).logits_BC)
    assert calls and list(model.state_dict()) == names
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)
    calls.clear()
    model.eval()(mel)
    assert not calls
