"""Finds stored stages that were configured like those asked for but made of something else, to say why they are not reused."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from birdclef_core.identity import fingerprint
from birdclef_core.stages.task import StageTask
from birdclef_core.store.summary import StageSummary

MEANING = {
    "code": "made by other code",
    "data": "trained on other data (recordings, labels, split or noise)",
    "sources": "trained on recordings of other sources",
    "label_space": "trained for other species",
    "start": "started from other weights",
}
"""What an identity holds beside the configuration, as it is said to the user."""
SHOWN_DIGITS = 12

Difference = tuple[str, str, str]
"""What differs (a key of MEANING), its value in the store, and the value asked for."""


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """A stage in the store, or one that is asked for."""

    needs: tuple[str, ...]
    """The ids of all stages that it is made from: its parent, predictions, embeddings, teachers."""
    config: str
    """Hash of the configuration of model and stage."""
    origin: Mapping[str, str]
    """What it was made of, by the keys of MEANING."""


def find_lookalikes(tasks: Mapping[str, StageTask], stored: Mapping[str, StageSummary]) -> Counter[tuple[Difference, ...]]:
    """Count the tasks that the store has a like stage for, but not the stage itself, by the differences between the two.

    `tasks`: what is asked for, by stage id. Two stages are alike when they have the same configuration and were made from stages
    that are alike. Of several stages that are like a task, the one with the fewest differences counts. A stage with the data of another
    task, such as that of another fold, is no such stage. O(n log n) for n stages.
    """
    if not stored:
        return Counter()
    known = {stage_id: _stored(item) for stage_id, item in stored.items()}
    asked = known | {stage_id: _asked(task) for stage_id, task in tasks.items() if stage_id not in known}
    alike: defaultdict[str, list[str]] = defaultdict(list)
    memory: dict[str, str] = {}
    for stage_id in known:
        alike[_likeness(stage_id, asked, memory)].append(stage_id)
    own_data = {str(task.identity.get("data", "")) for task in tasks.values()}
    found: Counter[tuple[Difference, ...]] = Counter()
    for stage_id in asked.keys() - known.keys():
        pairs = [_differences(other, stage_id, asked, memory) for other in alike.get(_likeness(stage_id, asked, memory), ())]
        pairs = [pair for pair in pairs if not any(name == "data" and before in own_data for name, before, _ in pair)]
        if pairs:
            found[min(pairs, key=lambda differences: (len(differences), differences))] += 1
    return found


def lookalike_lines(found: Mapping[tuple[Difference, ...], int]) -> Iterator[str]:
    """Yield what to print of the stages that `find_lookalikes` has counted."""
    for differences, number in sorted(found.items(), key=lambda item: -item[1]):
        what = " and ".join(f"{MEANING[name]} ({_short(before)}, now {_short(now)})" for name, before, now in differences)
        stages = "1 stage asked for is" if number == 1 else f"{number} of the stages asked for are"
        yield f"  {stages} in the store as {what}: trained again, not reused."
        if [name for name, _, _ in differences] == ["code"]:
            yield f"    `birdclef store adopt --from {_short(differences[0][1])}` reuses them if this code still trains the same weights."


def _short(text: str) -> str:
    return text[:SHOWN_DIGITS] or "those of a stage"


def _stored(item: StageSummary) -> _Stage:
    origin = {name: getattr(item, name) for name in MEANING} | {"start": "" if item.needs else item.start}
    return _Stage(needs=tuple(item.needs), config=item.config, origin=origin)


def _asked(task: StageTask) -> _Stage:
    identity = task.identity
    origin = {name: str(identity.get(name, "")) for name in MEANING} | {"start": "" if task.needs else str(identity["parent"])}
    # The encoder of a head that teaches is a need of the head already.
    needs = tuple(needed for needed in task.needs if needed not in task.encoders)
    return _Stage(needs=needs, config=fingerprint([identity["model"], identity["stage"]])[:16], origin=origin)


def _likeness(stage_id: str, stages: Mapping[str, _Stage], memory: dict[str, str]) -> str:
    """A hash that is equal for stages that are alike. A stage that was made from one that is not known is like no other."""
    if stage_id not in memory:
        stage = stages.get(stage_id)
        memory[stage_id] = (
            fingerprint([stage.config, sorted(_likeness(needed, stages, memory) for needed in stage.needs)])
            if stage
            else stage_id
        )
    return memory[stage_id]


def _differences(stored_id: str, asked_id: str, stages: Mapping[str, _Stage], memory: dict[str, str]) -> tuple[Difference, ...]:
    """The differences between two stages that are alike and between all that they were made from."""
    found: dict[str, Difference] = {}
    pending, seen = [(stored_id, asked_id)], set()
    for pair in pending:
        first, second = map(stages.get, pair)
        if pair in seen or pair[0] == pair[1] or first is None or second is None:
            continue
        seen.add(pair)
        for name in MEANING:
            if first.origin[name] != second.origin[name]:
                found.setdefault(name, (name, first.origin[name], second.origin[name]))
        both = (sorted(stage.needs, key=lambda needed: _likeness(needed, stages, memory)) for stage in (first, second))
        pending.extend(zip(*both, strict=True))
    return tuple(found[name] for name in MEANING if name in found)
