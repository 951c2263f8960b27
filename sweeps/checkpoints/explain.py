"""Compares two stages field by field, to show why one was not reused for the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birdclef_core.config import flatten
from birdclef_core.store.stage_store import StageRecord, StageStore
from sweeps.checkpoints.references import known_record

_MEANING = {
    "data": "the recordings, their labels, the split or the noise files",
    "code": "the code that trains and scores stages",
    "label_space": "the species",
    "sources": "which recording came in which source",
}

_BEFORE = {
    "parent": "they start from different stages",
    "teacher": "they learn from different predictions",
    "embeddings": "they are trained on different embeddings",
}


@dataclass(frozen=True)
class Difference:
    """A field with different values in two identities."""

    field: str
    first: Any
    second: Any


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return the fields with different values, by their dotted names. A field that one of them lacks is None there."""
    a, b = dict(flatten(first)), dict(flatten(second))
    return [Difference(key, a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def explain(store: StageStore, first_id: str, second_id: str) -> list[str]:
    """Return what to print of two stages: the fields in which they differ, and those in which their ancestors differ.

    Raises InputError when one has no record.
    """
    first, second = known_record(store, first_id), known_record(store, second_id)
    lines = [f"{_title(first)} and {_title(second)}"]
    if first_id == second_id:
        return [*lines, "  are the same stage."]
    for older, newer in ((first, second), (second, first)):
        if newer.adopted_from == older.stage_id:
            lines.append(f"  have the same weights: {newer.stage_id[:12]} was adopted from {older.stage_id[:12]}")
    pending, seen = [(first, second)], {(first_id, second_id)}
    for first, second in pending:  # it grows by the stages before these
        if (first, second) != pending[0]:
            lines.append(f"{_title(first)} and {_title(second)}")
        found = differences(first.identity, second.identity)
        before = [item for item in found if item.field in _BEFORE]
        lines += [
            f"  {item.field}: {_text(item.first)} against {_text(item.second)}{_why(item.field)}"
            for item in found
            if item not in before
        ]
        for item in before:
            is_parent = item.field == "parent"
            parents = (first.parent_id, second.parent_id) if is_parent else (item.first, item.second)
            if None in parents:
                starts = [_start(store, *pair) for pair in zip(parents, (item.first, item.second), strict=True)]
                said = f"start: {starts[0]} against {starts[1]}"
                lines.append(f"  {said if is_parent else f'{item.field}: {_text(item.first)} against {_text(item.second)}'}")
                continue
            lines.append(f"  {item.field}: {_BEFORE[item.field]}")
            ids = str(parents[0]), str(parents[1])
            records = [store.record(stage_id) for stage_id in ids]
            if records[0] is None or records[1] is None:
                gone = ", ".join(name[:12] for name, record in zip(ids, records, strict=True) if record is None)
                lines.append(f"  of which {gone} is no longer in the store.")
            elif ids not in seen:
                seen.add(ids)
                pending.append((records[0], records[1]))
    return lines


def _title(record: StageRecord) -> str:
    return f"{record.recipe} {record.stage} {record.stage_id[:12]}"


def _text(value: Any) -> str:
    return f"{value[:12]}..." if isinstance(value, str) and len(value) > 24 else repr(value)


def _why(field: str) -> str:
    return f" ({_MEANING[field]})" if field in _MEANING else ""


def _start(store: StageStore, parent_id: str | None, weights: Any) -> str:
    record = store.record(parent_id) if parent_id else None
    return _title(record) if record else f"{weights} weights"
