"""Builds the model that a stage starts with: with its parent's weights, an encoder's first weights, or random ones."""

from functools import cache, partial

import torch

from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.models.detector import Detector
from birdclef_core.models.encoders import RANDOM, PretrainedWeights
from birdclef_core.stages.schedule import initial_seed
from birdclef_core.stages.surgery import label_axes, transfer
from birdclef_core.store.stage_store import StageEntry
from birdclef_core.taxonomy import LabelSpace


def initial_model(
    config: ModelConfig,
    stage: StageConfig,
    space: LabelSpace,
    device: torch.device,
    *,
    pretrained: PretrainedWeights = RANDOM,
    parent: StageEntry | None = None,
) -> tuple[Detector, str]:
    """Return the model on its device, frozen if the stage says so, and one line on where its weights come from.

    Raises StoreError when the parent is another model, and as `Detector` does.
    """
    torch.manual_seed(initial_seed(stage))
    model = Detector(config, len(space), pretrained if parent is None else RANDOM)
    origin = f"started from {pretrained.name} weights"
    if parent is not None:
        report = transfer(
            parent.weights(),
            model,
            axes=_label_axes(config),
            parent_space=LabelSpace.of("parent", parent.record.species),
            space=space,
            head_transfer=stage.head_transfer,
        )
        origin = report.summary()
    model.to(device)
    # Convolutions are faster in this memory layout, on CPUs and on GPUs: docs/benchmarks/train.md.
    model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if stage.freeze_encoder:
        model.freeze()
    elif stage.frozen_blocks:
        model.freeze_blocks(stage.frozen_blocks)
    return model, origin


@cache
def _label_axes(config: ModelConfig) -> dict[str, int]:
    """`label_axes` of a model, cached: a trial needs it for every stage, and all trials of a recipe have the same."""
    return label_axes(partial(Detector, config))
