"""Summaries of published stages, kept beside their pointers: plans, listings and garbage collection read one small file a stage."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birdclef_core.identity import fingerprint

IMPORTED = "imported"
"""Code version of an imported stage; also the beginning of the name of its first weights."""


ENCODER_PARTS = 3
"""How many parts of `embeds` in the identity of embeddings say what their timm encoder is: name, axes, spectrogram; the random seed of random
weights comes after them."""
FREEZING = ("freeze_encoder", "frozen_blocks", "thaw_every", "embeddings")
"""Fields of a stage that say what of the model is not trained."""
DROPOUTS = ("drop_rate", "drop_path_rate", "head_dropout")
"""Fields of a model that do not change how long it takes."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Range of a figure over the epochs of a stage."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return lowest, median and highest value; None when there is none.

        Of more than two values the first is left out: in the first epoch kernels are chosen and caches are cold.
        """
        values = values[1:] if len(values) > 2 else values
        return cls(low=min(values), middle=statistics.median(values), high=max(values)) if values else None

    def scaled(self, factor: float) -> "Spread":
        """Return the same range in another unit."""
        return Spread(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """What plans, listings and garbage collection need to know of a published stage."""

    stage_id: str
    parent_id: str | None
    recipe: str
    stage: str
    metrics: dict[str, float]
    """All scores in its record: sweeps with different objectives share the stage."""
    epochs: int
    """Number of epochs it was trained for."""
    cost_s: float
    """Device seconds of training and evaluation."""
    num_bytes: int
    """Size of the stage's files."""
    device: str
    """Name of the GPU or CPU that trained it."""
    finished_at: str
    """Time of publication, ISO 8601."""
    work: str
    """Hash of what the time for one clip depends on, apart from device and clip length: model, precision, what is frozen; of embeddings
    their encoder."""
    clip_s: float
    """Length of a training clip in seconds."""
    config: str
    """Hash of the configuration of model and stage."""
    label_space: str
    """Hash of the label space."""
    label_space_name: str
    """`all` or `target`; empty when the record does not say."""
    data: str
    """Fingerprint of the recordings."""
    code: str
    """Code version."""
    start: str
    """Name of the first weights of a stage without a parent, else empty."""
    clips_per_s: Spread | None
    """Clips trained per second, evaluation not included."""
    evaluate_s: Spread | None
    """Seconds of one evaluation."""
    device_type: str = ""
    """`cuda` or `cpu`; empty when the record does not say."""
    adopted_from: str = ""
    """The stage of an older code version that it was adopted from, if it was."""
    learned_from: list[str] = field(default_factory=list)
    """The stages besides the parent that it was made from: predictions, or the teachers of predictions."""
    is_predictions: bool = False
    """Whether it is predictions of other stages, and was not trained."""
    sources: str = ""
    """Hash of which recording came in which source, of a stage that draws by sources; else empty."""
    is_linked: bool = False
    """Whether its files are hard links to those of that stage, so that both together take the space of one."""

    @property
    def is_refit(self) -> bool:
        """Whether it was trained on all recordings, so that it has no score."""
        return not (self.metrics or self.is_predictions)

    @property
    def needs(self) -> list[str]:
        """The ids of all stages that it was made from."""
        return [*([self.parent_id] if self.parent_id else []), *self.learned_from]


def original_of(stage_id: str, summaries: Mapping[str, StageSummary]) -> str:
    """Return the stage whose training a stage is: itself, or where its adoption began, as far back as `summaries` go."""
    while (item := summaries.get(stage_id)) and item.adopted_from in summaries:
        stage_id = item.adopted_from
    return stage_id


def files_of(stage_id: str, summaries: Mapping[str, StageSummary]) -> str:
    """Return whose files a stage has: the same for stages that share theirs as hard links."""
    return original_of(stage_id, summaries) if summaries[stage_id].is_linked else stage_id


def total_bytes(summaries: Mapping[str, StageSummary]) -> int:
    """Return the space that stages take together: files that they share count once."""
    return sum({files_of(stage_id, summaries): item.num_bytes for stage_id, item in summaries.items()}.values())


def work_of(model: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the value of `StageSummary.work` for the canonical forms of a ModelConfig and a StageConfig.

    Dropout takes no time that counts, so stages that differ in it alone do the same work.
    """
    model = {name: value for name, value in model.items() if name not in DROPOUTS}
    frozen = {name: config[name] for name in FREEZING if name in config}
    return fingerprint([model, config.get("precision"), frozen])[:16]


def work_of_embeddings(identity: Mapping[str, Any]) -> str:
    """Return the value of `StageSummary.work` for embeddings with this identity: their own encoder counts, with what it hears.

    First weights take no time that counts, and neither does the random seed.
    """
    stage, embeds = identity["stage"], identity["stage"]["embeds"]
    encoder = embeds[:ENCODER_PARTS] if isinstance(embeds, list) else identity.get("parent")
    heard = [stage.get(name) for name in ("precision", "encoder_rate_hz", "encoder_output")]
    return fingerprint(["embeddings", encoder, *heard])[:16]
