"""Weights move by species where the label space changes, and exactly everywhere else."""

from functools import partial

import pytest
import torch

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.errors import StoreError
from birdclef_core.models.detector import Detector
from birdclef_core.stages.surgery import label_axes, transfer
from birdclef_core.taxonomy import LabelSpace

ALL, TARGET = LabelSpace.of("all", "abcde"), LabelSpace.of("target", "bdx")


def config(head: str) -> ModelConfig:
    encoder = "mobilenetv3_small_050"
    return ModelConfig(head=head, encoder=encoder, spectrogram=SpectrogramConfig(num_mels=32, hop_length=1000, deltas=False))


def moved(head: str, head_transfer: str = "by_species"):
    parent, child = Detector(config(head), len(ALL)).eval(), Detector(config(head), len(TARGET)).eval()
    fresh = {name: tensor.clone() for name, tensor in child.state_dict().items()}
    report = transfer(
        parent.state_dict(),
        child,
        axes=label_axes(partial(Detector, config(head))),
        parent_space=ALL,
        space=TARGET,
        head_transfer=head_transfer,
    )
    return parent, child, fresh, report


@pytest.mark.parametrize(("head", "entries"), [("sed", 4), ("cnn", 2)])
def test_only_the_head_depends_on_the_label_space(head, entries):
    axes = label_axes(partial(Detector, config(head)))
    assert len(axes) == entries
    assert set(axes.values()) == {0}


@pytest.mark.parametrize("head", ["sed", "cnn"])
def test_a_moved_species_scores_as_before(head):
    parent, child, _, report = moved(head)
    mel = torch.rand(2, 1, 32, 5 * 32 + 1)
    before, after = parent(mel).logits_BC, child(mel).logits_BC
    assert torch.allclose(after[:, 0], before[:, 1], atol=1e-6), "species b"
    assert torch.allclose(after[:, 1], before[:, 3], atol=1e-6), "species d"
    assert (report.species_carried, report.species_new) == (2, 1)


def test_a_new_species_keeps_its_fresh_row():
    _, child, fresh, report = moved("sed")
    name = report.by_species[0]
    assert torch.equal(child.state_dict()[name][2], fresh[name][2])


def test_stages_may_go_back_to_the_larger_label_space():
    parent, child = Detector(config("sed"), len(TARGET)).eval(), Detector(config("sed"), len(ALL)).eval()
    axes = label_axes(partial(Detector, config("sed")))
    report = transfer(parent.state_dict(), child, axes=axes, parent_space=TARGET, space=ALL, head_transfer="by_species")
    mel = torch.rand(2, 1, 32, 65)
    before, after = parent(mel).logits_BC, child(mel).logits_BC
    assert torch.allclose(after[:, [1, 3]], before[:, [0, 1]], atol=1e-6), "species b and d"
    assert (report.species_carried, report.species_new) == (2, 3)


def test_drop_does_as_the_seed_did():
    _, child, fresh, report = moved("sed", "drop")
    assert len(report.reinitialised) == 4
    assert all(torch.equal(child.state_dict()[name], fresh[name]) for name in report.reinitialised)
    assert report.species_carried == 0


def test_the_same_label_space_moves_all_exactly_even_with_drop():
    parent, child = Detector(config("sed"), 3), Detector(config("sed"), 3)
    report = transfer(
        parent.state_dict(),
        child,
        axes=label_axes(partial(Detector, config("sed"))),
        parent_space=TARGET,
        space=TARGET,
        head_transfer="drop",
    )
    assert all(torch.equal(tensor, child.state_dict()[name]) for name, tensor in parent.state_dict().items())
    assert not report.by_species and not report.reinitialised


def test_another_model_is_refused():
    with pytest.raises(StoreError, match="is it the same model"):
        transfer(
            Detector(config("sed"), 3).state_dict(),
            Detector(config("cnn"), 3),
            axes={},
            parent_space=TARGET,
            space=TARGET,
            head_transfer="by_species",
        )
