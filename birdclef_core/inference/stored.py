"""Makes members of a detector from stored stages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from birdclef_core.config import ModelConfig
from birdclef_core.errors import InputError, StoreError
from birdclef_core.identity import restore
from birdclef_core.inference.deployed import SHOWN_DIGITS, Member, soup_id
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.models.detector import Detector
from birdclef_core.store.stage_store import StageEntry


def load_member(
    entry: StageEntry, device: torch.device, *, weight: float = 1.0, souped_with: Sequence[StageEntry] = ()
) -> Member:
    """Return a stored stage as a member that runs in plain torch; raises as `load_model` does."""
    model = load_model(entry, souped_with=souped_with)
    return Member(
        model_id=soup_id([item.record.stage_id for item in (entry, *souped_with)]),
        config=model.config,
        species=tuple(entry.record.species),
        runtime=TorchRuntime(model, device),
        weight=weight,
    )


def load_model(entry: StageEntry, *, souped_with: Sequence[StageEntry] = ()) -> Detector:
    """Return the model of a stored stage. `souped_with`: stages whose weights are averaged with its own.

    Raises InputError when the stage's model is not one of this version of the code or the stages differ in model or species, StoreError
    when its weights are of another model.
    """
    record = entry.record
    record.require_weights()
    config = restore(ModelConfig, record.identity.get("model", {}))
    for other in souped_with:
        if (other.record.identity.get("model"), other.record.species) != (record.identity.get("model"), record.species):
            raise InputError(
                f"Stages whose weights are averaged must have one model and the same species, but {other.record.stage_id[:SHOWN_DIGITS]} "
                f"differs from {record.stage_id[:SHOWN_DIGITS]}."
            )
    with torch.random.fork_rng(devices=[]):
        model = Detector(config, len(record.species))
    try:
        model.load_state_dict(_mean_weights([entry, *souped_with]))
    except (RuntimeError, KeyError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise StoreError(
            f"The weights of stage {record.stage_id[:SHOWN_DIGITS]} must be those of the model of its record, but: {problem}"
        ) from None
    return model


def _mean_weights(entries: Sequence[StageEntry]) -> dict[str, Tensor]:
    """Return the mean of the weights and BatchNorm statistics of stages; counters are those of the first."""
    first, *others = [entry.weights() for entry in entries]
    if not others:
        return first
    return {
        name: torch.stack([tensor, *(other[name] for other in others)]).mean(dim=0) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }
