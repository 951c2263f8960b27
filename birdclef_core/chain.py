"""How the stages of a chain hang together: whose weights a stage starts from, whose predictions it learns from.

A chain is a list of stages of which each needs only earlier ones. Most need the one before; with teachers it is a graph.
"""

from collections.abc import Sequence

from birdclef_core.config import FIRST_WEIGHTS, StageConfig
from birdclef_core.errors import InputError


def weights_from(stages: Sequence[StageConfig], index: int) -> int | None:
    """Return the index of the stage whose weights a stage starts from; None: it starts from the encoder's first weights, and a head on
    embeddings from random ones.

    Raises InputError when there is no such stage before it.
    """
    stage, trained = stages[index], [place for place in range(index) if not (stages[place].predicts or stages[place].embeddings)]
    if stage.embeddings:
        return _head_from(stages, index) if stage.starts_from else None
    if stage.starts_from == FIRST_WEIGHTS:
        return None
    if not stage.starts_from:
        return trained[-1] if trained else None
    found = next((place for place in trained if stages[place].name == stage.starts_from), None)
    if found is None:
        is_head = any(other.name == stage.starts_from and other.embeddings for other in stages[:index])
        raise InputError(
            f"starts_from of stage {stage.name} must be {FIRST_WEIGHTS} or an earlier stage that trains, but is {stage.starts_from!r}"
            f"{', a head on embeddings, which has no encoder' if is_head else ''}{_before([stages[place].name for place in trained])}"
        )
    return found


def _head_from(stages: Sequence[StageConfig], index: int) -> int:
    """The index of the head from whose weights a head on embeddings starts."""
    stage = stages[index]
    heads = [place for place in range(index) if stages[place].embeddings == stage.embeddings]
    found = next((place for place in heads if stages[place].name == stage.starts_from), None)
    if found is None:
        raise InputError(
            f"starts_from of stage {stage.name}, a head on the embeddings of {stage.embeddings}, must be an earlier head on these, or empty for "
            f"random weights, but is {stage.starts_from!r}{_before([stages[place].name for place in heads])}"
        )
    if stages[found].head_hidden != stage.head_hidden:
        raise InputError(
            f"A head must have the hidden layer of the head that it starts from, but head_hidden of stage {stage.name} is {stage.head_hidden} and "
            f"that of {stages[found].name} is {stages[found].head_hidden}."
        )
    return found


def predictions_from(stages: Sequence[StageConfig], index: int) -> int | None:
    """Return the index of the stage whose predictions a stage learns from; None where it has no teacher.

    Raises InputError when there is no such stage before it.
    """
    stage, name = stages[index], stages[index].teacher.predictions
    if not name:
        return None
    made = [place for place in range(index) if stages[place].predicts and not stages[place].embeds]
    found = next((place for place in made if stages[place].name == name), None)
    if found is None:
        raise InputError(
            f"teacher.predictions of stage {stage.name} must be an earlier stage that predicts, but is {name!r}"
            f"{_before([stages[place].name for place in made])}"
        )
    return found


def embeddings_from(stages: Sequence[StageConfig], index: int) -> int | None:
    """Return the index of the stage on whose embeddings a stage is trained; None where it hears sound.

    Raises InputError when there is no such stage before it.
    """
    stage = stages[index]
    if not stage.embeddings:
        return None
    made = [place for place in range(index) if stages[place].embeds]
    found = next((place for place in made if stages[place].name == stage.embeddings), None)
    if found is None:
        raise InputError(
            f"embeddings of stage {stage.name} must be an earlier stage that keeps embeddings, but is {stage.embeddings!r}"
            f"{_before([stages[place].name for place in made])}"
        )
    return found


def teacher_in_chain(stages: Sequence[StageConfig], index: int) -> int | None:
    """Return the index of the stage whose predictions a stage makes; None: they are those of a stored stage or an ensemble."""
    wanted = stages[index].predicts
    return next((place for place in range(index) if stages[place].name == wanted and not stages[place].predicts), None)


def check_teaches(loss: str, stage: str, teacher: str) -> None:
    """Raise InputError for the loss of a teacher that gives no probabilities. `stage`: the name of the stage that makes its predictions."""
    if loss == "soft_auc":
        raise InputError(
            f"Stage {stage} cannot make predictions of {teacher}, whose loss 'soft_auc' orders clips and gives no probabilities: let a stage with "
            "another loss teach."
        )


def check_chain(stages: Sequence[StageConfig]) -> None:
    """Raise InputError for stages that cannot be trained in their order, or of which one is of no use to a later one."""
    used = {len(stages) - 1}
    for index, stage in enumerate(stages):
        if stage.predicts:
            needed = [teacher := teacher_in_chain(stages, index)]
            if any(other.name == stage.predicts and other.embeds for other in stages[:index]):
                raise InputError(
                    f"Stage {stage.name} cannot make predictions of {stage.predicts}, which keeps embeddings and knows no species: name a head "
                    "on them."
                )
            if teacher is not None:
                check_teaches(stages[teacher].loss, stage.name, stages[teacher].name)
            if teacher is not None and stages[teacher].label_space != stage.label_space:
                raise InputError(
                    f"Stage {stage.name} must have the label space of stage {stage.predicts}, whose predictions it makes "
                    f"({stages[teacher].label_space!r}), but has {stage.label_space!r}."
                )
        else:
            needed = [weights_from(stages, index), predictions_from(stages, index), embeddings_from(stages, index)]
        used |= {place for place in needed if place is not None}
    if stages[-1].predicts:
        raise InputError(f"The last stage must train, but {stages[-1].name} makes predictions.")
    if idle := [stage.name for index, stage in enumerate(stages) if index not in used]:
        raise InputError(
            f"Every stage but the last must be of use to a later one, which starts from it or learns from its predictions, but "
            f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} not. Leave it out, or name it in starts_from, predicts or "
            "teacher.predictions of a later stage. Chains of different stages are different recipes of a search."
        )


def _before(names: Sequence[str]) -> str:
    return f"; before it there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}."
