"""A plan as a picture: stages from left to right, each as tall as the number of trials that need it; a shared stage is one box."""

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from birdclef_core.html.page import render
from birdclef_core.html.svg import box, drawing, text
from sweeps.plan.plan import Plan, StageNode
from sweeps.plan.text import hours_text, plan_lines
from sweeps.search.names import stage_order
from sweeps.wording import counted, format_duration

WIDTH = 1120.0
LABEL_WIDTH = 130.0
HEADER = 22.0
ROW_HEIGHT = 24.0
MAX_HEIGHT = 1600.0
GAP = 10.0


def plan_page(plan: Plan, name: str) -> str:
    """Return a self-contained HTML page with the plan's picture, table and tree. `name` is the sweep's."""
    lines = plan_lines(plan)
    return render("plan", name=name, picture=plan_svg(plan), text="\n".join(lines))


def plan_svg(plan: Plan) -> Markup:
    """Return the tree of stages as an icicle: the stages that follow a stage lie within its height."""
    columns = _columns(plan)
    rows = sum(node.trials for node in plan.recipes.values())
    unit = min(ROW_HEIGHT, (MAX_HEIGHT - GAP * len(plan.recipes)) / rows) if rows else ROW_HEIGHT
    parts = [text(column.x + 4, 14, name, colour="muted") for name, column in columns.items()]
    y = HEADER
    for node in plan.recipes.values():
        lines = (node.stage, counted(node.trials, "trial"))
        parts.append(box(0, y, LABEL_WIDTH - 6, node.trials * unit, fill="line", lines=lines, tip=", ".join(lines)))
        parts += _boxes(node, y, unit, columns)
        y += node.trials * unit + GAP
    return drawing(WIDTH, y, parts, f"The stages of {counted(plan.trials, 'trial')}; the tree below has the same as text")


@dataclass(frozen=True)
class _Column:
    """Where the boxes of a stage begin, and how wide they are."""

    x: float
    width: float


def _columns(plan: Plan) -> dict[str, _Column]:
    """Return the column of each stage, as wide as its longest schedule."""
    epochs: dict[str, int] = {}
    chains: list[tuple[str, ...]] = []

    def visit(node: StageNode, before: tuple[str, ...]) -> None:
        if not node.children:
            chains.append(before)
        for child in node.children.values():
            epochs[child.stage] = max(epochs.get(child.stage, 0), child.epochs)
            visit(child, (*before, child.stage))

    for root in plan.recipes.values():
        visit(root, ())
    total, x, columns = sum(epochs.values()), LABEL_WIDTH, {}
    floor = 0.13 * (WIDTH - LABEL_WIDTH)
    spare = WIDTH - LABEL_WIDTH - floor * len(epochs)
    for name in stage_order(chains):
        columns[name] = _Column(x, floor + spare * epochs[name] / total)
        x += columns[name].width
    return columns


def _boxes(node: StageNode, y: float, unit: float, columns: dict[str, _Column]) -> Iterator[Markup]:
    """Yield the boxes to the right of a node, from `y` downwards; stages of one trial each that are alike share a box."""
    for child in sorted(node.children.values(), key=lambda child: -child.trials):
        if child.trials > 1:
            yield _box(child, 1, y, unit, columns)
            yield from _boxes(child, y, unit, columns)
            y += child.trials * unit
    singles = [child for child in node.children.values() if child.trials == 1]
    for is_stored in (True, False):
        chains = [child for child in singles if child.is_stored == is_stored]
        yield from _single_boxes(chains, y, unit, columns)
        y += len(chains) * unit


def _single_boxes(nodes: list[StageNode], y: float, unit: float, columns: dict[str, _Column]) -> Iterator[Markup]:
    while nodes:
        yield _box(nodes[0], len(nodes), y, unit, columns)
        nodes = [child for node in nodes for child in node.children.values()]


def _box(node: StageNode, number: int, y: float, unit: float, columns: dict[str, _Column]) -> Markup:
    """Return the box of `number` stages like `node`."""
    column = columns[node.stage]
    trials = node.trials * number
    fill = "stored" if node.is_stored else "shared" if node.trials > 1 else "own"
    what = f"once for {node.trials} trials" if node.trials > 1 else f"{number} x for one trial"
    if node.is_stored:
        what = f"stored, for {counted(trials, 'trial')}"
    epochs = counted(node.epochs, "epoch")
    lines = (what, epochs, f"{format_duration(3600 * node.hours.middle)} each" if node.hours else "")
    tip = f"{node.stage} {node.stage_id[:8]}: {what}, {epochs}{f', {hours_text(node.hours)} each' if node.hours else ''}"
    return box(column.x, y, column.width - 2, trials * unit - 1, fill=fill, lines=lines, tip=tip)
