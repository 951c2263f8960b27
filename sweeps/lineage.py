"""Where a checkpoint comes from: every stage from the first weights on, with its configuration, data, code, score and cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from birdclef_core.errors import InputError
from birdclef_core.stages.catalogue import SCORE
from birdclef_core.stages.store import StageRecord, StageStore
from sweeps.console import format_duration
from sweeps.pages import box, page, picture

NODE_WIDTH, NODE_HEIGHT, ARROW = 190.0, 92.0, 26.0
_SHOWN = ("epochs", "learning_rate", "clip_s", "batch_size", "loss", "label_space", "seed", "precision")


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """One stage of a lineage."""

    stage_id: str
    record: StageRecord | None
    """None when it is not in the store any more."""
    is_whole: bool | None
    """Whether its files have the hashes that they were written with; None: not looked at."""


def lineage(store: StageStore, stage_id: str, *, verify: bool) -> list[Ancestor]:
    """From the first stage to `stage_id`. Raises InputError when that one has no record; ancestors may be gone."""
    if store.record(stage_id) is None:
        raise InputError(f"Stage {stage_id[:16]} must be in the store, but has no record there.")
    found: list[Ancestor] = []
    next_id: str | None = stage_id
    while next_id is not None:
        record = store.record(next_id)
        is_whole = store.check(next_id) == "" if verify and record else None
        found.append(Ancestor(stage_id=next_id, record=record, is_whole=is_whole))
        next_id = record.parent_id if record else None
    return found[::-1]


def lineage_lines(ancestors: Sequence[Ancestor]) -> list[str]:
    """What to print of a lineage."""
    first = ancestors[0].record
    lines = [f"starts from {first.identity.get('parent', '?')} weights" if first else "starts from a stage that is gone"]
    for ancestor in ancestors:
        lines += _lines(ancestor)
    spent_s = sum(ancestor.record.cost_s for ancestor in ancestors if ancestor.record)
    return [*lines, f"in all {format_duration(spent_s)} of device time"]


def _lines(ancestor: Ancestor) -> list[str]:
    record = ancestor.record
    if record is None:
        return [f"{ancestor.stage_id[:16]}: no longer in the store"]
    config: dict[str, Any] = record.identity.get("stage", {})
    shown = ", ".join(f"{key}={config[key]}" for key in _SHOWN if key in config)
    whole = {True: "hashes verified", False: "DAMAGED: hashes differ", None: "hashes not verified"}[ancestor.is_whole]
    scores = ", ".join(f"{name} {value:.4f}" for name, value in sorted(record.metrics.items()))
    return [
        f"{record.stage} {record.stage_id[:16]} ({record.recipe}, {record.identity.get('model', {}).get('encoder', '')})",
        f"    config  {shown}",
        f"    from    data {str(record.identity.get('data', ''))[:16]}, code {record.identity.get('code', '')}, {record.surgery}",
        f"    made    {record.finished_at} on {record.environment.get('device', '?')} in {format_duration(record.cost_s)}",
        f"    scores  {scores or 'none'}",
        f"    files   {whole}",
    ]


def lineage_page(ancestors: Sequence[Ancestor], title: str) -> str:
    """A self-contained HTML page with the lineage's picture and text."""
    text = "\n".join(lineage_lines(ancestors))
    return page(title, f"{lineage_svg(ancestors)}<pre>{escape(text)}</pre>")


def lineage_svg(ancestors: Sequence[Ancestor]) -> str:
    """Boxes from the first weights to the last stage, with score and cost."""
    first = ancestors[0].record
    weights = str(first.identity.get("parent", "?")) if first else "?"
    nodes: list[tuple[str, tuple[str, ...], str]] = [("line", ("first weights", weights[:26]), weights)]
    for ancestor in ancestors:
        record = ancestor.record
        if record is None:
            nodes.append(("line", (ancestor.stage_id[:12], "no longer in the store"), ancestor.stage_id))
            continue
        score = record.metrics.get(SCORE, float("nan"))
        lines = (
            record.stage,
            f"{SCORE} {score:.3f}",
            f"{len(record.history)} epochs, {format_duration(record.cost_s)}",
            record.stage_id[:12],
        )
        nodes.append(("best" if ancestor is ancestors[-1] else "stored", lines, record.stage_id))
    step = NODE_WIDTH + ARROW
    parts = []
    for index, (fill, text, tip) in enumerate(nodes):
        x = index * step
        parts.append(box(x, 4, NODE_WIDTH, NODE_HEIGHT, fill=fill, lines=text, tip=tip))
        if index:
            middle = 4 + NODE_HEIGHT / 2
            parts.append(f'<path d="M{x - ARROW + 3} {middle} H{x - 5} m-6 -5 l6 5 l-6 5" fill="none" stroke="var(--muted)"/>')
    return picture(max(1120.0, len(nodes) * step), NODE_HEIGHT + 10, parts, "From the first weights to the last stage")


def write_page(path: Path, ancestors: Sequence[Ancestor], title: str) -> None:
    """`lineage_page` as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lineage_page(ancestors, title))
