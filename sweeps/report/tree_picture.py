"""The tree of stages that a sweep went through, as a picture: from each recipe's first weights to the last stages of its trials.

Each stage has its score and its cost. A Pareto front of the trials is a second picture.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from markupsafe import Markup

from birdclef_core.html.front import Mark, front_svg
from birdclef_core.html.page import render
from birdclef_core.html.svg import box, drawing, path, text
from birdclef_core.html.table import Column, Table
from birdclef_core.store.summary import StageSummary
from sweeps.objective import COSTS, Objective, Score
from sweeps.report.ranking import cost_text, ranking, score_of
from sweeps.schedule.records import TrialRecord, best_trials
from sweeps.search.names import stage_order
from sweeps.wording import counted, figure, format_duration

WIDTH = 1120.0
ROOT_WIDTH = 160.0
ROOT_CHARACTERS = 22
GAP_X = 34.0
GAP_Y = 5.0
HEADER = 22.0
ROW_HEIGHT, SMALL_ROW_HEIGHT = 57.0, 25.0
MAX_TALL_ROWS = 60
"""Rows are lower when there are more."""
MAX_TRIALS = 200
"""Of more trials, the best are drawn."""
MAX_NAMED_TRIALS = 20
"""Trials that are named where a stage is described."""
NO_CARDS: Mapping[str, str] = MappingProxyType({})


@dataclass(kw_only=True)
class TreeStage:
    """A stage that at least one trial trained to its end, or took from the store."""

    stage_id: str
    stage: str
    score: Score
    """The objective, for the stage's own label space."""
    cost_s: float | None
    """Device seconds; None when no record has them any more."""
    is_stored: bool
    """Whether it is still in the store."""
    trained_here: bool
    trials: list[TrialRecord] = field(default_factory=list)
    """The trials that have it in their chain."""
    children: dict[str, "TreeStage"] = field(default_factory=dict)
    """The stages that were trained from it, by stage id."""


@dataclass(kw_only=True)
class TreeRoot:
    """A recipe and what its trials start from."""

    recipe: str
    start: str
    trials: int = 0
    """Number of its trials."""
    children: dict[str, TreeStage] = field(default_factory=dict)
    """The first stages, by stage id."""


def grow_tree(trials: Iterable[TrialRecord], summaries: Mapping[str, StageSummary], objective: Objective) -> list[TreeRoot]:
    """Return the tree of each recipe, from the records of its trials and the store's summaries of their stages."""
    roots: dict[str, TreeRoot] = {}
    records = list(trials)
    spent_s = {
        ids[name]: cost_s
        for record in records
        for ids in [_ids(record)]
        for name, cost_s in record.spent_s.items()
        if ids[name] in record.trained_ids
    }
    scores = {ids[name]: value for record in records for ids in [_ids(record)] for name, value in record.stage_scores.items()}
    for record in records:
        root = roots.setdefault(record.recipe, TreeRoot(recipe=record.recipe, start=_start(record, summaries)))
        root.trials += 1
        children = root.children
        for stage, stage_id in zip(record.stages, record.reached_ids(), strict=False):
            summary = summaries.get(stage_id)
            if stage_id not in children:
                children[stage_id] = TreeStage(
                    stage_id=stage_id,
                    stage=stage,
                    score=_score_of(summary, objective, scores.get(stage_id)),
                    cost_s=summary.cost_s if summary else spent_s.get(stage_id),
                    is_stored=summary is not None,
                    trained_here=stage_id in spent_s,
                )
            children[stage_id].trials.append(record)
            children = children[stage_id].children
    return list(roots.values())


def _score_of(summary: StageSummary | None, objective: Objective, known: float | None) -> Score:
    """The score that a trial's record has of a stage, else that of the store, which alone has the standard error."""
    stored = objective.of_record(summary.metrics, summary.label_space_name) if summary else Score(math.nan)
    return stored if known is None else Score(known, stored.error)


def _ids(record: TrialRecord) -> dict[str, str]:
    return dict(zip(record.stages, record.stage_ids, strict=True))


def _start(record: TrialRecord, summaries: Mapping[str, StageSummary]) -> str:
    first = summaries.get(record.stage_ids[0])
    if first is None:
        return "first weights"
    return f"stage {first.parent_id[:12]}" if first.parent_id else f"{first.start} weights"


def tree_page(
    trials: Sequence[TrialRecord],
    summaries: Mapping[str, StageSummary],
    objective: Objective,
    name: str,
    cards: Mapping[str, str] = NO_CARDS,
) -> str:
    """Return a self-contained HTML page with the picture and a table of the stages, for the sweep `name`. `cards`: see `tree_svg`."""
    shown = ranking(list(trials), objective)[:MAX_TRIALS]
    best = next((record for record in shown if record.score is not None), None)
    roots = grow_tree(shown, summaries, objective)
    return render(
        "tree",
        name=name,
        objective=objective.score_name,
        objective_all=objective.named_in("all"),
        num_shown=len(shown),
        num_trials=len(trials),
        picture=tree_svg(roots, best, cards),
        table=_table(roots),
        front=_front(list(trials), objective, objective.cost) if objective.cost else None,
    )


def _front(trials: Sequence[TrialRecord], objective: Objective, cost: str) -> dict[str, object]:
    """Return what the page says of the Pareto front: the cost, a picture of all finished trials, and a table of those on the front."""
    front = best_trials(trials, objective)
    on_front = {record.trial for record in front}
    marks = [
        Mark(
            cost=record.costs[cost],
            score=score.value,
            error=score.error,
            on_front=record.trial in on_front,
            tip=f"{record.trial} {record.recipe}: {score}, {cost_text(record, cost)}",
        )
        for record in trials
        if record.score is not None and 0 < record.costs[cost] < math.inf
        for score in [score_of(record, objective)]
    ]
    columns = [
        Column("trial", [record.trial for record in front]),
        Column("recipe", [record.recipe for record in front]),
        Column(objective.score_name, [str(score_of(record, objective)) for record in front]),
        Column(cost, [record.costs[cost] for record in front], is_number=True, shown=figure),
        Column("last stage", [record.stage_ids[-1][:16] for record in front]),
    ]
    return {
        "cost": cost,
        "meaning": COSTS[cost],
        "picture": front_svg(marks, cost_title=cost, score_title=objective.score_name, shown=figure),
        "table": Table("Pareto front", columns, is_sortable=True),
    }


def _table(roots: Sequence[TreeRoot]) -> Table:
    """Return what the picture shows as a table, stages in the order of the picture."""
    nodes = [(root, node) for root in roots for node in _walk(root.children)]
    columns = [
        Column("stage", [node.stage for _, node in nodes]),
        Column("id", [node.stage_id[:16] for _, node in nodes]),
        Column("recipe", [root.recipe for root, _ in nodes]),
        Column("objective", [str(node.score) for _, node in nodes]),
        Column("device time", [node.cost_s for _, node in nodes], is_number=True, shown=format_duration),
        Column("from", [_where(node) for _, node in nodes]),
        Column("needed by", [_who(node) for _, node in nodes]),
        Column("trials", [_names(node) for _, node in nodes]),
    ]
    return Table("all stages", columns, is_sortable=True)


def tree_svg(roots: Sequence[TreeRoot], best: TrialRecord | None, cards: Mapping[str, str] = NO_CARDS) -> Markup:
    """Return the trees one below the other; of the stages that follow a stage, the best is at the top.

    `cards`: addresses of the stages' cards by stage id; a box leads there.
    """
    return _Drawing(roots, set(best.stage_ids) if best else set(), cards).svg()


class _Drawing:
    """Places the last stages one below the other, and every other stage in the middle of those that follow it."""

    def __init__(self, roots: Sequence[TreeRoot], best_ids: set[str], cards: Mapping[str, str]) -> None:
        self._roots, self._best_ids, self._cards = roots, best_ids, cards
        order = stage_order(chain for root in roots for chain in _chains(root.children))
        self._columns = {name: index for index, name in enumerate(order)}
        self._step = (WIDTH - ROOT_WIDTH) / max(1, len(self._columns))
        leaves = sum(not node.children for root in roots for node in _walk(root.children))
        self._row = ROW_HEIGHT if leaves <= MAX_TALL_ROWS else SMALL_ROW_HEIGHT
        self._y = HEADER
        self._parts: list[Markup] = []

    def svg(self) -> Markup:
        for name, index in self._columns.items():
            self._parts.append(text(ROOT_WIDTH + index * self._step + GAP_X + 4, 14, name, colour="muted"))
        for root in self._roots:
            self._root(root)
        num_stages = sum(1 for root in self._roots for _ in _walk(root.children))
        label = f"A tree of {num_stages} stages, from first weights to last stages; the table below has the same"
        return drawing(WIDTH, self._y, self._parts, label)

    def _root(self, root: TreeRoot) -> None:
        lines = (root.recipe, *_wrapped(root.start), counted(root.trials, "trial"))
        height = 15 * len(lines) + 8
        top = self._y
        middles = self._children(root.children)
        y = sum(middles) / len(middles) if middles else self._take_row()
        y = max(y, top + height / 2)
        self._y = max(self._y, y + height / 2)
        tip = f"{root.recipe}: {root.trials} trials from {root.start}"
        self._parts.append(box(0, y - height / 2, ROOT_WIDTH, height, fill="line", lines=lines, tip=tip))
        self._links(ROOT_WIDTH, y, root.children, middles)
        self._y += 4 * GAP_Y

    def _children(self, children: Mapping[str, TreeStage]) -> list[float]:
        """Draw stages and all that follow them, and return the middle of each."""
        return [self._stage(node) for node in _in_order(children)]

    def _stage(self, node: TreeStage) -> float:
        middles = self._children(node.children)
        y = sum(middles) / len(middles) if middles else self._take_row()
        x, width = self._x(node), self._step - GAP_X
        height = self._row - GAP_Y
        lines = _lines(node) if self._row == ROW_HEIGHT else (f"{node.score} {_who(node).partition(',')[0]}",)
        card = self._cards.get(node.stage_id, "")
        self._parts.append(box(x, y - height / 2, width, height, fill=self._fill(node), lines=lines, tip=_tip(node), link=card))
        self._links(x + width, y, node.children, middles)
        return y

    def _links(self, x: float, y: float, children: Mapping[str, TreeStage], middles: Sequence[float]) -> None:
        for node, middle in zip(_in_order(children), middles, strict=True):
            to = self._x(node)
            bend = to - GAP_X / 2
            stroke, width = ("best", 2.5) if node.stage_id in self._best_ids else ("muted", 1)
            steps = f"M{x:.1f} {y:.1f} H{to - GAP_X:.1f} C{bend:.1f} {y:.1f} {bend:.1f} {middle:.1f} {to:.1f} {middle:.1f}"
            self._parts.append(path(steps, stroke=stroke, width=width))

    def _x(self, node: TreeStage) -> float:
        return ROOT_WIDTH + self._columns[node.stage] * self._step + GAP_X

    def _take_row(self) -> float:
        self._y += self._row
        return self._y - self._row / 2

    def _fill(self, node: TreeStage) -> str:
        if node.stage_id in self._best_ids:
            return "best"
        if not node.children and all(record.status == "pruned" for record in node.trials):
            return "line"
        if not node.trained_here:
            return "stored"
        return "shared" if len(node.trials) > 1 else "own"


def _walk(children: Mapping[str, TreeStage]) -> Iterator[TreeStage]:
    """Yield stages and all that follow them, in the order of the picture."""
    for node in _in_order(children):
        yield node
        yield from _walk(node.children)


def _chains(children: Mapping[str, TreeStage], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the names of the stages from each first stage to each last one."""
    for node in children.values():
        names = (*before, node.stage)
        yield from _chains(node.children, names) if node.children else (names,)


def _in_order(children: Mapping[str, TreeStage]) -> list[TreeStage]:
    """Return the stages in the order of their best trials."""
    return sorted(children.values(), key=lambda node: (-_best_score(node), node.stage_id))


def _best_score(node: TreeStage) -> float:
    return max((record.score for record in node.trials if record.score is not None), default=-1.0)


def _wrapped(line: str) -> list[str]:
    return [line[start : start + ROOT_CHARACTERS] for start in range(0, len(line), ROOT_CHARACTERS)]


def _lines(node: TreeStage) -> tuple[str, ...]:
    cost = "" if node.cost_s is None else f"in {format_duration(node.cost_s)}"
    return str(node.score), cost, _who(node)


def _where(node: TreeStage) -> str:
    return "trained here" if node.trained_here else "from the store"


def _who(node: TreeStage) -> str:
    """Say which trial needs a stage, or how many do."""
    if len(node.trials) == 1:
        only = node.trials[0]
        return f"{only.trial} {only.status}{'' if node.is_stored else ', removed'}"
    ends = sum(record.status == "pruned" and record.reached_ids()[-1:] == [node.stage_id] for record in node.trials)
    what = ", removed" if not node.is_stored else f", {ends} pruned" if ends else ""
    return f"{len(node.trials)} trials{what}"


def _names(node: TreeStage) -> str:
    names = ", ".join(record.trial for record in node.trials[:MAX_NAMED_TRIALS])
    more = len(node.trials) - MAX_NAMED_TRIALS
    return f"{names} and {more} more" if more > 0 else names


def _tip(node: TreeStage) -> str:
    return f"{node.stage} {node.stage_id[:16]}: {' '.join(_lines(node)[:2])}, {_where(node)}; {_who(node)}: {_names(node)}"
