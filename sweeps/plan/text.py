"""A plan as text for the terminal: a table of what sharing and pruning save, and the tree."""

from collections.abc import Iterator, Sequence

from birdclef_core.store.summary import Spread
from sweeps.plan.near_misses import lookalike_lines
from sweeps.plan.plan import Amount, Plan, StageNode
from sweeps.wording import bytes_text

MAX_TREE_LINES = 60


def plan_lines(plan: Plan, price_per_hour: float | None = None, *, with_tree: bool = True) -> list[str]:
    """What to print before a sweep."""
    stages = f"{plan.stages_asked} stages asked for, {plan.stages_unique} unique, {plan.stages_stored} of them in the store"
    lines = [f"Plan: {counted(plan.trials, 'trial')} on {_workers(plan)}: {stages} (merge rate {plan.merge_rate:.2f})."]
    rows = [
        ("each trial by itself", plan.alone),
        ("stages shared", plan.shared),
        ("shared and pruned", plan.pruned),
    ]
    titles = ["epochs"]
    if plan.shared.worker_hours is not None:
        titles += [f"{_unit(plan)} time", "wall time", *(["money"] if price_per_hour is not None else [])]
    lines.append(f"  {'':<22}" + _columns(titles))
    lines += [f"  {title:<22}" + _columns(_row(plan, amount, price_per_hour)[: len(titles)]) for title, amount in rows]
    lines += _notes(plan)
    if not with_tree:
        return lines
    tree = list(_tree(plan))
    lines += ["", *tree[:MAX_TREE_LINES]]
    if len(tree) > MAX_TREE_LINES:
        lines.append(f"... and {len(tree) - MAX_TREE_LINES} lines more; the picture has them all.")
    return lines


def spread_text(spread: Spread | None) -> str:
    """`12.3 (10.1-15.0)`; a dash when unknown."""
    return "-" if spread is None else f"{figure(spread.middle)} ({figure(spread.low)}-{figure(spread.high)})"


def hours_text(hours: Spread | None) -> str:
    """`12.3 h (10.1-15.0)`, in minutes when it is less than half an hour, in seconds below one; a dash when unknown."""
    if hours is None:
        return "-"
    unit, factor = ("h", 1.0) if hours.middle >= 0.5 else ("min", 60.0) if hours.middle >= 1 / 60 else ("s", 3600.0)
    interval = "" if hours.low == hours.high else f" ({figure(hours.low * factor)}-{figure(hours.high * factor)})"
    return f"{figure(hours.middle * factor)} {unit}{interval}"


def figure(value: float) -> str:
    """Three significant digits, and no exponent."""
    return (
        f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3g}"
    )


def counted(number: int, thing: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _workers(plan: Plan) -> str:
    kind = f"{plan.gpus_per_worker:g} x {plan.device}" if plan.gpus_per_worker else f"CPU cores ({plan.device})"
    return f"{plan.workers} workers of {kind}" if plan.gpus_per_worker else f"{plan.workers} workers on {kind}"


def _unit(plan: Plan) -> str:
    return "GPU" if plan.gpus_per_worker else "worker"


def device_hours(plan: Plan, amount: Amount) -> Spread | None:
    """Of GPUs; without any, of workers."""
    return amount.worker_hours and amount.worker_hours.scaled(plan.gpus_per_worker or 1.0)


def _columns(cells: Sequence[str]) -> str:
    return f"{cells[0]:>9}" + "".join(f"{cell:>29}" for cell in cells[1:])


def _row(plan: Plan, amount: Amount, price: float | None) -> list[str]:
    hours = device_hours(plan, amount)
    money = hours and hours.scaled(price or 0.0)
    return [f"{amount.epochs:,}", hours_text(hours), hours_text(amount.wall_hours), spread_text(money)]


def _notes(plan: Plan) -> Iterator[str]:
    yield from lookalike_lines(plan.lookalikes)
    if plan.unknown:
        yield (
            f"  What an epoch of {', '.join(plan.unknown)} costs on {plan.device} is not known yet: nothing like it is in the store. "
            "`--plan` measures it, on a machine that has the device."
        )
    if plan.bases:
        meaning = {"measured": "measured here", "scaled": "scaled from another clip length", "calibrated": "calibrated on noise"}
        bases = ", ".join(f"{number} {meaning[basis]}" for basis, number in sorted(plan.bases.items()))
        yield f"  Costs of the unique stages: {bases}. Pruning: as much as scores drawn at random would bring."
    if plan.stored_bytes is not None and plan.working_bytes is not None:
        yield (
            f"  Store: {bytes_text(plan.stored_bytes)} of new checkpoints without pruning, and up to "
            f"{bytes_text(plan.working_bytes)} of epoch checkpoints while it runs."
        )


def _tree(plan: Plan) -> Iterator[str]:
    for node in plan.recipes.values():
        yield f"{node.stage}: {counted(node.trials, 'trial')}"
        yield from _branches(node, "")


def _branches(node: StageNode, indent: str) -> Iterator[str]:
    """A line for each stage that trials share, one for those that share no more."""
    shared = [child for child in node.children.values() if child.trials > 1]
    single = [child for child in node.children.values() if child.trials == 1]
    last = len(shared) + bool(single) - 1
    for index, child in enumerate(sorted(shared, key=lambda child: -child.trials)):
        yield f"{indent}{'└─' if index == last else '├─'} {_describe(child)} for {child.trials} trials"
        yield from _branches(child, indent + ("   " if index == last else "│  "))
    if single:
        yield f"{indent}└─ {_describe_singles(single)}"


def _describe(node: StageNode) -> str:
    hours = f", {hours_text(node.hours)}" if node.hours else ""
    return f"{node.stage} {node.stage_id[:8]}: {counted(node.epochs, 'epoch')}{', in the store' if node.is_stored else hours}"


def _describe_singles(nodes: list[StageNode]) -> str:
    chain, epochs, new = [], 0, 0
    node: StageNode | None = nodes[0]
    while node is not None:
        chain.append(node.stage)
        epochs += node.epochs
        node = next(iter(node.children.values()), None)
    new = sum(not node.is_stored for node in nodes)
    stored = "" if new == len(nodes) else f", {len(nodes) - new} of them in the store"
    return f"{len(nodes)} x {' → '.join(chain)}: {counted(epochs, 'epoch')} each, shared with nobody{stored}"
