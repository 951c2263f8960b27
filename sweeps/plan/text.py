"""A plan as text for the terminal: a table of what sharing and pruning save, and the tree of stages."""

from collections.abc import Iterator, Sequence

from birdclef_core.store.summary import Spread
from sweeps.devices import device_list
from sweeps.plan.near_misses import lookalike_lines
from sweeps.plan.plan import Amount, Plan, StageNode
from sweeps.wording import aligned, bytes_text, counted, figure, format_duration

MAX_TREE_LINES = 60

PRUNING = " Pruning: as much as scores drawn at random would cause."
_BASES = {
    "measured": "measured here",
    "converted": "converted from another device",
    "scaled": "scaled from another clip length",
    "calibrated": "calibrated on noise",
}


def plan_lines(plan: Plan, *, with_tree: bool = True) -> list[str]:
    """Return what to print before a sweep."""
    stages = f"{plan.stages_asked} stages asked for, {plan.stages_unique} unique, {plan.stages_stored} of them in the store"
    lines = [f"Plan: {counted(plan.trials, 'trial')} on {_workers(plan)}: {stages} (merge rate {plan.merge_rate:.2f})."]
    lines += aligned(_table(plan))
    lines += _notes(plan)
    if not with_tree:
        return lines
    tree = list(_tree(plan))
    lines += ["", *tree[:MAX_TREE_LINES]]
    if len(tree) > MAX_TREE_LINES:
        lines.append(f"... and {counted(len(tree) - MAX_TREE_LINES, 'more line')}; the picture shows the whole tree.")
    return lines


def hours_text(hours: Spread | None) -> str:
    """Return hours as `2 h 05 min (1 h 40 min to 2 h 30 min)`, without the interval when they are exact, a dash when unknown."""
    if hours is None:
        return "-"
    low, middle, high = (format_duration(3600 * value) for value in (hours.low, hours.middle, hours.high))
    return middle if hours.low == hours.high else f"{middle} ({low} to {high})"


def device_hours(plan: Plan, amount: Amount) -> Spread | None:
    """Return the hours of GPUs, or of workers where these have none; None when unknown."""
    return amount.worker_hours and amount.worker_hours.scaled(plan.gpus_per_worker or 1.0)


def _workers(plan: Plan) -> str:
    workers = counted(plan.workers, "worker")
    if plan.devices:
        cards = " and ".join(f"{share.workers} of {plan.gpus_per_worker:g} x {share.device}" for share in plan.devices)
        return f"{workers}, {cards}"
    return (
        f"{workers} of {plan.gpus_per_worker:g} x {plan.device}"
        if plan.gpus_per_worker
        else f"{workers} on CPU cores ({plan.device})"
    )


def _table(plan: Plan) -> list[list[str]]:
    """Return title and cells of each row; without times when the cost of a stage is not known."""
    if plan.shared.worker_hours is None:
        return [["", "epochs"], *([title, f"{amount.epochs:,}"] for title, amount in _amounts(plan))]
    price_per_hour = plan.limits.price_per_hour
    titles = ["", "epochs", f"{'GPU' if plan.gpus_per_worker else 'worker'} time", "wall time"]
    rows = [row for title, amount in _amounts(plan) for row in _rows(title, amount, plan, price_per_hour or 0.0)]
    if price_per_hour is None:
        return [titles, *(row[:-1] for row in rows)]
    return [[*titles, "money"], *rows]


def _amounts(plan: Plan) -> Sequence[tuple[str, Amount]]:
    amounts = [("each trial by itself", plan.alone), ("stages shared", plan.shared)]
    return [*amounts, ("shared and pruned", plan.pruned)] if plan.prunes else amounts


def _rows(title: str, amount: Amount, plan: Plan, price_per_hour: float) -> Iterator[list[str]]:
    """Yield the row of an amount, and below it the ends of its intervals."""
    device, wall = device_hours(plan, amount), amount.wall_hours
    if device is None or wall is None:
        yield [title, f"{amount.epochs:,}", "-", "-", "-"]
        return
    yield [title, f"{amount.epochs:,}", *_ends(device.middle, wall.middle, price_per_hour)]
    if device.low != device.high:
        yield ["  at least", "", *_ends(device.low, wall.low, price_per_hour)]
        yield ["  at most", "", *_ends(device.high, wall.high, price_per_hour)]


def _ends(device_h: float, wall_h: float, price_per_hour: float) -> list[str]:
    return [format_duration(3600 * device_h), format_duration(3600 * wall_h), figure(price_per_hour * device_h)]


def _within_limits(plan: Plan) -> Iterator[str]:
    """Yield what the limits of the sweep buy."""
    within, price = plan.within, plan.limits.price_per_hour
    if not plan.limits.any_set:
        return
    if within is None:
        yield f"  What {plan.limits} buys is not known, because the cost of an epoch is not: the sweep measures it and ends in time."
        return
    hours = within.worker_hours * (plan.gpus_per_worker or 1.0)
    unit = "GPU hours" if plan.gpus_per_worker else "worker hours"
    money = "" if price is None else f" ({figure(hours * price)} in money)"
    end = f"The sweep ends at {within.limit}" if within.limit else "The sweep ends within its limits"
    yield (
        f"  {end}, after about {counted(within.trials, 'trial')} of which {within.finished} finish, and {figure(hours)} {unit}{money}."
    )


def _notes(plan: Plan) -> Iterator[str]:
    yield from _within_limits(plan)
    if plan.devices:
        yield f"  Speeds beside {plan.device}, of whose hours the tree is: {device_list(plan.devices)}."
    yield from lookalike_lines(plan.lookalikes)
    if plan.unknown:
        yield (
            f"  What an epoch of {', '.join(plan.unknown)} costs on {plan.device} is not known: the store has no such stage from that "
            "device. `--plan` measures it on a machine that has the device."
        )
    if plan.bases:
        bases = ", ".join(f"{number} {_BASES[basis]}" for basis, number in sorted(plan.bases.items()))
        yield f"  Costs of the unique stages: {bases}.{PRUNING if plan.prunes else ''}"
    if plan.stored_bytes is not None and plan.working_bytes is not None:
        yield (
            f"  Store: {bytes_text(plan.stored_bytes)} of new checkpoints without pruning, and up to "
            f"{bytes_text(plan.working_bytes)} of epoch checkpoints while the sweep runs."
        )


def _tree(plan: Plan) -> Iterator[str]:
    for node in plan.recipes.values():
        yield f"{node.stage}: {counted(node.trials, 'trial')}"
        yield from _branches(node, "")


def _branches(node: StageNode, indent: str) -> Iterator[str]:
    """Yield a line for each stage that trials share, and one for all those that belong to one trial each."""
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


def _describe_singles(nodes: Sequence[StageNode]) -> str:
    """Describe the chains that begin with `nodes`, each of one trial; the first stands for all."""
    chain, epochs = [], 0
    node: StageNode | None = nodes[0]
    while node is not None:
        chain.append(node.stage)
        epochs += node.epochs
        node = next(iter(node.children.values()), None)
    num_stored = sum(node.is_stored for node in nodes)
    stored = f", {num_stored} of them in the store" if num_stored else ""
    return f"{len(nodes)} x {' → '.join(chain)}: {counted(epochs, 'epoch')} each, not shared{stored}"
