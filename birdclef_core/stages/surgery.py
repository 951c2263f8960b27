"""Moves weights from one stage to the next: what depends on the label space by species, everything else exactly.

There is no list of the parameters that depend on the label space: the model is built twice, with different numbers of classes, and
the shapes are compared.
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
    """What was done with each entry of the parent's state."""

    exact: tuple[str, ...]
    """Entries that were copied."""
    by_species: tuple[str, ...]
    """Entries of which the rows of shared species were copied."""
    reinitialised: tuple[str, ...]
    """Entries of the new model that have their new values."""
    species_carried: int
    species_new: int

    def summary(self) -> str:
        """Return one line for the stage's record."""
        return (
            f"{len(self.exact)} entries carried over exactly, {len(self.by_species)} by species "
            f"({self.species_carried} species known, {self.species_new} new), {len(self.reinitialised)} re-initialised"
        )


def label_axes(build: Callable[[int], nn.Module]) -> dict[str, int]:
    """Return the axis of every state entry whose shape depends on the number of classes; `build(num_classes)` makes the model.

    The models are built on the meta device, which takes no memory and no random numbers.
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
    """Load `parent` into `model` in place.

    Rows of species that both label spaces have are copied. If `head_transfer` is `drop` and the label space changes, every entry that
    depends on it keeps its new values instead, as in the 2023 solution.

    Raises StoreError when the two models differ in anything but their label spaces.
    """
    state = model.state_dict()
    if state.keys() != parent.keys():
        odd = sorted(state.keys() ^ parent.keys())[:5]
        raise StoreError(f"Parent and child must have the same entries, but differ in {', '.join(odd)}; is it the same model?")
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
