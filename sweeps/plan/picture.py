"""A plan as a picture: stages from left to right, each as tall as the number of trials that need it; what is shared is one box."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from birdclef_core.config import STAGE_NAMES
from birdclef_core.html.picture_page import box, page, picture
from sweeps.plan.plan import Plan, StageNode
from sweeps.plan.text import counted, hours_text, plan_lines

WIDTH = 1120.0
LABEL_WIDTH = 130.0
ROW_HEIGHT = 24.0
MAX_HEIGHT = 1600.0
GAP = 10.0


def plan_page(plan: Plan, name: str, price_per_hour: float | None = None) -> str:
    """A self-contained HTML page with the plan's picture, table and tree."""
    colours = (("stored", "in the store"), ("shared", "trained once and shared"), ("own", "trained for one trial"))
    keys = ", ".join(f'<i style="background:var(--{colour})"></i> {meaning}' for colour, meaning in colours)
    legend = f"<p>A box is a stage: wide by its epochs, tall by the trials that need it; {keys}.</p>"
    text = "\n".join(plan_lines(plan, price_per_hour))
    return page(f"Plan of {name}", f"{legend}{plan_svg(plan)}<pre>{escape(text)}</pre>")


def plan_svg(plan: Plan) -> str:
    """The tree of stages as an icicle."""
    columns = _columns(plan)
    rows = sum(node.trials for node in plan.recipes.values())
    unit = min(ROW_HEIGHT, (MAX_HEIGHT - GAP * len(plan.recipes)) / rows)
    parts = [f'<text class="muted" x="{column.x + 4:.1f}" y="14">{name}</text>' for name, column in columns.items()]
    y = 22.0
    for node in plan.recipes.values():
        parts.append(
            box(0, y, LABEL_WIDTH - 6, node.trials * unit, fill="line", lines=(node.stage, counted(node.trials, "trial")))
        )
        parts += _boxes(node, y, unit, columns)
        y += node.trials * unit + GAP
    return picture(WIDTH, y, parts, f"The stages of {counted(plan.trials, 'trial')}")


@dataclass(frozen=True)
class _Column:
    x: float
    width: float


def _columns(plan: Plan) -> dict[str, _Column]:
    """As wide as the longest schedule of the stage."""
    epochs: dict[str, int] = {}

    def visit(node: StageNode) -> None:
        for child in node.children.values():
            epochs[child.stage] = max(epochs.get(child.stage, 0), child.epochs)
            visit(child)

    for root in plan.recipes.values():
        visit(root)
    total, x, columns = sum(epochs.values()), LABEL_WIDTH, {}
    floor = 0.06 * (WIDTH - LABEL_WIDTH)
    spare = WIDTH - LABEL_WIDTH - floor * len(epochs)
    for name in sorted(epochs, key=lambda name: STAGE_NAMES.index(name)):
        columns[name] = _Column(x, floor + spare * epochs[name] / total)
        x += columns[name].width
    return columns


def _boxes(node: StageNode, y: float, unit: float, columns: dict[str, _Column]) -> Iterator[str]:
    """The boxes to the right of a node, from `y` down; stages of one trial each that are alike are one box with lines in it."""
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


def _single_boxes(nodes: list[StageNode], y: float, unit: float, columns: dict[str, _Column]) -> Iterator[str]:
    while nodes:
        yield _box(nodes[0], len(nodes), y, unit, columns)
        nodes = [child for node in nodes for child in node.children.values()]


def _box(node: StageNode, number: int, y: float, unit: float, columns: dict[str, _Column]) -> str:
    column = columns[node.stage]
    trials = node.trials * number
    fill = "stored" if node.is_stored else "shared" if node.trials > 1 else "own"
    what = f"once for {trials} trials" if node.trials > 1 else f"{number} x for a trial each"
    if node.is_stored:
        what = f"in the store, for {trials} trials"
    hours = f"{hours_text(node.hours)} each" if node.hours else ""
    lines = (what, f"{node.epochs} epochs", hours)
    return box(
        column.x,
        y,
        column.width - 2,
        trials * unit - 1,
        fill=fill,
        lines=lines,
        tip=f"{node.stage} {node.stage_id[:8]}: {', '.join(line for line in lines if line)}",
    )
