"""How the entries of a checkpoint are named: as in this project, or as in the 2023 solution.

The 2023 solution has one class of model for each head. Its SED keeps the children of a timm model without the last two (pooling and
classifier) as a numbered `nn.Sequential` named `encoder`. Its CNN keeps a timm model without a classifier as `backbone`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from birdclef_core.config import HeadName
from birdclef_core.errors import InputError
from birdclef_core.models.detector import Detector

_HEADS: dict[HeadName, dict[str, str]] = {
    "sed": {
        "input_norm.norm.": "bn0.",
        "head.linear.": "fc1.",
        "head.attention_block.attention.": "att_block.att.",
        "head.attention_block.classify.": "att_block.cla.",
    },
    "cnn": {"head.gem.power": "global_pool.p", "head.linear.": "head."},
}
"""By head: beginnings of names here, and what they are in the 2023 solution."""
_MARKS: dict[HeadName, tuple[str, ...]] = {"sed": ("bn0.", "fc1.", "att_block."), "cnn": ("backbone.", "global_pool.")}
"""Beginnings of names that only a checkpoint of the 2023 solution with this head has."""
_NUM_DROPPED_CHILDREN = 2
_EMA = "ema."
_MEL = "melspec_transform."
_WINDOW, _FILTERS = f"{_MEL}spectrogram.window", f"{_MEL}mel_scale.fb"
_RELATIVE_TOLERANCE, _ABSOLUTE_TOLERANCE = 1e-2, 1e-5
"""Largest differences of the same mel filters: rounded to half precision, or by another version of torchaudio."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names in a checkpoint, and the entries that a model does not need from it."""

    title: str
    names: Mapping[str, str]
    """Name in the checkpoint of each entry of the model's state dict."""
    not_needed: Mapping[str, str] = field(default_factory=dict)
    """Reason by beginning of the name."""
    spectrogram: Mapping[str, Tensor] = field(default_factory=dict)
    """Entries that follow from the settings of the spectrogram: if the checkpoint has them, they must be these."""

    def reason(self, name: str) -> str | None:
        """Return why an entry of the checkpoint is not needed; None if it is not known."""
        return next((why for beginning, why in self.not_needed.items() if name.startswith(beginning)), None)

    def spectrogram_problems(self, weights: Mapping[str, Tensor]) -> list[str]:
        """Return what the checkpoint's spectrogram has that the model's does not."""
        problems = []
        for name in self.spectrogram.keys() & weights.keys():
            own, other = self.spectrogram[name], weights[name].float()
            if own.shape != other.shape:
                problems.append(f"{name} is {tuple(other.shape)} and must be {tuple(own.shape)}")
            elif not torch.allclose(own, other, rtol=_RELATIVE_TOLERANCE, atol=_ABSOLUTE_TOLERANCE):
                problems.append(f"{name} has other values than the recipe's spectrogram (f_min_hz, f_max_hz)")
        return sorted(problems)


def layout_of(names: Collection[str], model: Detector) -> Layout:
    """Return the layout of a checkpoint with entries of these names, for weights of `model`, which may be on the meta device.

    Raises InputError when the checkpoint is of the 2023 solution and has another head, or that solution could not hold the encoder.
    """
    heads = [head for head, marks in _MARKS.items() if any(name.startswith(marks) for name in names)]
    if not heads:
        return Layout(title="this project", names={name: name for name in model.state_dict()})
    if model.config.head not in heads:
        raise InputError(
            f"The recipe must have the checkpoint's head, but the checkpoint is a {heads[0]} of the 2023 solution, and the recipe has "
            f"the head {model.config.head}. Give a recipe with the head {heads[0]} as --recipe."
        )
    return Layout(
        title="the 2023 solution",
        names=_names_of_2023(model),
        not_needed={
            _MEL: "the spectrogram, which is the recipe's",
            _EMA: "averaged weights, which the 2023 solution does not load either",
        },
        spectrogram={_WINDOW: model.spectrogram.window, _FILTERS: model.spectrogram.filters.T},
    )


def _names_of_2023(model: Detector) -> dict[str, str]:
    """Name in the 2023 solution of each entry of the model's state dict."""
    beginnings = dict(_HEADS[model.config.head])
    if model.config.head == "cnn":
        beginnings["encoder.model."] = "backbone."
    else:
        children = [name for name, _ in model.encoder.model.named_children()][:-_NUM_DROPPED_CHILDREN]
        beginnings |= {f"encoder.model.{name}.": f"encoder.{place}." for place, name in enumerate(children)}
    return {name: _renamed(name, beginnings, model) for name in model.state_dict()}


def _renamed(name: str, beginnings: Mapping[str, str], model: Detector) -> str:
    for here, there in beginnings.items():
        if name.startswith(here):
            return there + name.removeprefix(here)
    raise InputError(
        f"A SED of the 2023 solution holds the children of its encoder without the last {_NUM_DROPPED_CHILDREN}, so it cannot hold "
        f"{name} of {model.config.encoder!r}. Give the recipe or --set encoder=NAME that the checkpoint was trained with."
    )
