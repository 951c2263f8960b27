"""Weights from one stage to the next: whatever depends on the label space moves by species, the rest exactly.

Which parameters depend on the label space is not a list of names: it is seen by building the model twice with
different numbers of classes and comparing shapes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from birdclef_core.config import HeadTransfer
from birdclef_core.errors import StoreError
from birdclef_core.taxonomy import LabelSpace


@dataclass(frozen=True, kw_only=True)
class SurgeryReport:
    """What became of each entry of the parent's state."""

    exact: tuple[str, ...]
    by_species: tuple[str, ...]
    """Entries whose rows of shared species were carried over."""
    reinitialised: tuple[str, ...]
    """Entries of the new model that took nothing from the parent."""
    species_carried: int
    species_new: int

    def summary(self) -> str:
        return (
            f"{len(self.exact)} entries carried over exactly, {len(self.by_species)} by species "
            f"({self.species_carried} species known, {self.species_new} new), {len(self.reinitialised)} re-initialised"
        )


def label_axes(build: Callable[[int], nn.Module]) -> dict[str, int]:
    """Axis of every state entry whose shape follows the number of classes; `build(num_classes)` makes the model.

    The models are built on the meta device: no memory, no random numbers.
    """
    with torch.device("meta"):
        small, large = build(2).state_dict(), build(3).state_dict()
    axes: dict[str, int] = {}
    for name, tensor in small.items():
        differing = [axis for axis, (a, b) in enumerate(zip(tensor.shape, large[name].shape, strict=True)) if a != b]
        if differing:
            axes[name] = differing[0]
    return axes


def transfer(
    parent: dict[str, Tensor],
    model: nn.Module,
    *,
    axes: dict[str, int],
    parent_space: LabelSpace,
    space: LabelSpace,
    head_transfer: HeadTransfer,
) -> SurgeryReport:
    """Loads `parent` into `model` in place.

    Rows of species that both label spaces have are carried over, unless `head_transfer` is `drop` and the label space
    changes: then every label-dependent entry keeps its fresh values, as in the original solution.

    Raises StoreError when the two models differ in anything else than their label space.
    """
    state = model.state_dict()
    if state.keys() != parent.keys():
        odd = sorted(state.keys() ^ parent.keys())[:5]
        raise StoreError(f"Parent and child must have the same entries, but differ in {', '.join(odd)}; is the model the same?")
    shared = space.columns_in(parent_space)
    same_space = space.species == parent_space.species
    exact, by_species, reinitialised = [], [], []
    for name, new in state.items():
        old = parent[name]
        axis = axes.get(name)
        if axis is None or same_space:
            if old.shape != new.shape:
                raise StoreError(f"Shapes of {name!r} must agree, but got parent={list(old.shape)}, child={list(new.shape)}.")
            new.copy_(old)
            exact.append(name)
        elif head_transfer == "drop" or not shared:
            reinitialised.append(name)
        else:
            to_rows, from_rows = (torch.tensor(rows) for rows in zip(*shared, strict=True))
            new.index_copy_(axis, to_rows.to(new.device), old.index_select(axis, from_rows).to(new))
            by_species.append(name)
    carried = len(shared) if same_space or by_species else 0
    return SurgeryReport(
        exact=tuple(exact),
        by_species=tuple(by_species),
        reinitialised=tuple(reinitialised),
        species_carried=carried,
        species_new=len(space) - carried,
    )
