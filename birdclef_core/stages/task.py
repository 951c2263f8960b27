"""A stage to be made: by training, or by predictions of stages that were trained."""

from dataclasses import dataclass, field
from typing import Any

from birdclef_core.config import REPLICATE_MARK, ModelConfig, StageConfig
from birdclef_core.errors import InputError
from birdclef_core.models.encoders import PretrainedWeights

Teachers = tuple[tuple[str, float], ...]
"""Ids of the stages that predict together, each with the weight of its logits."""
_ID_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class StageTask:
    """A stage to be made: under which id, from which weights, with which settings."""

    stage_id: str
    parent_id: str | None
    """The stage whose weights it starts from; for predictions the only teacher; None: first or random weights, or several teachers."""
    recipe: str
    model: ModelConfig
    """For predictions the model of the teacher, or of one of them."""
    config: StageConfig
    pretrained: PretrainedWeights
    identity: dict[str, Any]
    """Everything that the stage id is the hash of."""
    predictions_id: str | None = None
    """The stage whose predictions it learns from."""
    embeddings_id: str | None = None
    """The stage on whose embeddings its head is trained."""
    teachers: Teachers = field(default=())
    """The stages whose predictions it makes; empty: it trains."""
    encoders: tuple[str, ...] = ()
    """The stages of embeddings that keep the encoders with which heads among the teachers hear."""
    encoder_work: str = ""
    """Where the (first) teacher is a head, the kind of work of its encoder (`work_of_embeddings`), which plans need."""
    replicate: str = ""
    """Name of the replicate of its trial that it belongs to, such as `fold1`; empty: it belongs to all of them, or there is only one."""
    fold: int | None = None
    """The fold of the recordings that validates; None: that of the data."""

    @property
    def name(self) -> str:
        """Its name among the stages of its trial: `train_ce`, or `train_ce@fold1`."""
        return f"{self.config.name}{REPLICATE_MARK}{self.replicate}" if self.replicate else self.config.name

    @property
    def needs(self) -> tuple[str, ...]:
        """The ids of the stages that must be in the store before it can be made."""
        teachers = (stage_id for stage_id, _ in self.teachers)
        own = (self.parent_id, self.predictions_id, self.embeddings_id, *teachers, *self.encoders)
        return tuple(dict.fromkeys(stage_id for stage_id in own if stage_id is not None))


def teachers_text(teachers: Teachers) -> str:
    """Return stages and their weights as a text: `ID`, or `ID*0.25+ID*0.75`."""
    if len(teachers) == 1:
        return teachers[0][0]
    return "+".join(f"{stage_id}*{weight:g}" for stage_id, weight in teachers)


def parse_teachers(text: str) -> Teachers:
    """Return what `teachers_text` has made a text of. Raises InputError for another text."""
    found = []
    for part in text.split("+"):
        stage_id, _, weight = part.partition("*")
        if len(stage_id) != _ID_DIGITS or not set(stage_id) <= set("0123456789abcdef"):
            raise InputError(f"Teachers must be ids of stored stages, such as ID or ID*0.25+ID*0.75, but got {text!r}.")
        try:
            found.append((stage_id, float(weight or 1)))
        except ValueError:
            raise InputError(f"The weight of a teacher must be a number, but is {weight!r} in {text!r}.") from None
    return tuple(found)
