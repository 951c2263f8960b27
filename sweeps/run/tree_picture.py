"""The tree of stages that a sweep went through, as a picture: from each recipe's first weights to its trials' last stages, with score
and cost at each node."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from birdclef_core.config import STAGE_NAMES
from birdclef_core.html.picture_page import box, page, picture
from birdclef_core.store.summary import SCORE, StageSummary
from sweeps.run.ranking import ranking
from sweeps.schedule.records import TrialRecord
from sweeps.wording import cost_text

WIDTH = 1120.0
ROOT_WIDTH = 160.0
ROOT_CHARACTERS = 22
GAP_X = 34.0
GAP_Y = 5.0
HEADER = 22.0
ROW_HEIGHT, SMALL_ROW_HEIGHT = 42.0, 25.0
MAX_TALL_ROWS = 60
MAX_TRIALS = 200
"""Beyond so many, the best are drawn."""


@dataclass(kw_only=True)
class TreeStage:
    """A stage that one or more trials came to the end of."""

    stage_id: str
    stage: str
    score: float
    cost_s: float | None
    """None when nobody knows any more."""
    is_stored: bool
    """Whether it is in the store still."""
    trained_here: bool
    trials: list[TrialRecord] = field(default_factory=list)
    """All that have it in their chain."""
    children: dict[str, "TreeStage"] = field(default_factory=dict)


@dataclass(kw_only=True)
class TreeRoot:
    """A recipe and what its trials start from."""

    recipe: str
    start: str
    trials: int = 0
    children: dict[str, TreeStage] = field(default_factory=dict)


def grow_tree(trials: Iterable[TrialRecord], summaries: Mapping[str, StageSummary]) -> list[TreeRoot]:
    """The tree of each recipe, from what the trials came to and what the store says of their stages."""
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
                    score=scores.get(stage_id, summary.score if summary else float("nan")),
                    cost_s=summary.cost_s if summary else spent_s.get(stage_id),
                    is_stored=summary is not None,
                    trained_here=stage_id in spent_s,
                )
            children[stage_id].trials.append(record)
            children = children[stage_id].children
    return list(roots.values())


def _ids(record: TrialRecord) -> dict[str, str]:
    return dict(zip(record.stages, record.stage_ids, strict=True))


def _start(record: TrialRecord, summaries: Mapping[str, StageSummary]) -> str:
    first = summaries.get(record.stage_ids[0])
    if first is None:
        return "first weights"
    return f"stage {first.parent_id[:12]}" if first.parent_id else f"{first.start} weights"


def tree_page(trials: Sequence[TrialRecord], summaries: Mapping[str, StageSummary], name: str) -> str:
    """A self-contained HTML page with the picture, for the sweep `name`."""
    shown = ranking(list(trials))[:MAX_TRIALS]
    best = next((record for record in shown if record.score is not None), None)
    colours = [("best", "the best trial"), ("shared", "trained here, for several trials"), ("own", "trained here, for one trial")]
    colours += [("stored", "taken from the store"), ("line", "where trials were pruned")]
    keys = ", ".join(f'<i style="background:var(--{colour})"></i> {meaning}' for colour, meaning in colours)
    legend_end = "; removed: it is not in the store any more"
    some = f" The best {MAX_TRIALS} of {len(trials)} trials are shown." if len(trials) > MAX_TRIALS else ""
    legend = f"<p>A box is a stage with its {SCORE} (in the stage's own label space) and what it cost in device time; {keys}{legend_end}.{some}</p>"
    return page(f"Stages of {name}", legend + tree_svg(grow_tree(shown, summaries), best))


def tree_svg(roots: Sequence[TreeRoot], best: TrialRecord | None) -> str:
    """The trees, one below the other; the children of a stage from the best down."""
    return _Drawing(roots, set(best.stage_ids) if best else set()).svg()


class _Drawing:
    """Places the leaves one below the other, and what they come from in the middle of them."""

    def __init__(self, roots: Sequence[TreeRoot], best_ids: set[str]) -> None:
        self._roots, self._best_ids = roots, best_ids
        names = {node.stage for root in roots for node in _walk(root.children)}
        self._columns = {name: index for index, name in enumerate(sorted(names, key=lambda name: STAGE_NAMES.index(name)))}
        self._step = (WIDTH - ROOT_WIDTH) / max(1, len(self._columns))
        leaves = sum(not node.children for root in roots for node in _walk(root.children))
        self._row = ROW_HEIGHT if leaves <= MAX_TALL_ROWS else SMALL_ROW_HEIGHT
        self._y = HEADER
        self._parts: list[str] = []

    def svg(self) -> str:
        for name, index in self._columns.items():
            self._parts.append(f'<text class="muted" x="{ROOT_WIDTH + index * self._step + GAP_X + 4:.1f}" y="14">{name}</text>')
        for root in self._roots:
            middles = self._children(root.children)
            y = sum(middles) / len(middles) if middles else self._take_row()
            lines = (root.recipe, *_wrapped(root.start), f"{root.trials} trials")
            height = 15 * len(lines) + 8
            tip = f"{root.recipe}: {root.trials} trials from {root.start}"
            self._parts.append(box(0, y - height / 2, ROOT_WIDTH, height, fill="line", lines=lines, tip=tip))
            self._links(ROOT_WIDTH, y, root.children, middles)
            self._y += 4 * GAP_Y
        return picture(WIDTH, self._y, self._parts, "The stages of a sweep, from first weights to last stages")

    def _children(self, children: Mapping[str, TreeStage]) -> list[float]:
        """Draws them; their middles."""
        return [self._stage(node) for node in _in_order(children)]

    def _stage(self, node: TreeStage) -> float:
        middles = self._children(node.children)
        y = sum(middles) / len(middles) if middles else self._take_row()
        x, width = self._x(node), self._step - GAP_X
        height = self._row - GAP_Y
        lines = _text(node) if self._row == ROW_HEIGHT else (f"{node.score:.3f} {_who(node).partition(',')[0]}",)
        self._parts.append(box(x, y - height / 2, width, height, fill=self._fill(node), lines=lines, tip=_tip(node)))
        self._links(x + width, y, node.children, middles)
        return y

    def _links(self, x: float, y: float, children: Mapping[str, TreeStage], middles: Sequence[float]) -> None:
        for node, middle in zip(_in_order(children), middles, strict=True):
            to = self._x(node)
            bend = to - GAP_X / 2
            is_best = node.stage_id in self._best_ids
            stroke, width = ("var(--best)", 2.5) if is_best else ("var(--muted)", 1)
            self._parts.append(
                f'<path d="M{x:.1f} {y:.1f} H{to - GAP_X:.1f} C{bend:.1f} {y:.1f} {bend:.1f} {middle:.1f} {to:.1f} {middle:.1f}" '
                f'fill="none" stroke="{stroke}" stroke-width="{width}"/>'
            )

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
    for node in children.values():
        yield node
        yield from _walk(node.children)


def _in_order(children: Mapping[str, TreeStage]) -> list[TreeStage]:
    """The one that leads to the best trial first."""
    return sorted(children.values(), key=lambda node: (-_best_score(node), node.stage_id))


def _best_score(node: TreeStage) -> float:
    return max((record.score for record in node.trials if record.score is not None), default=-1.0)


def _wrapped(text: str) -> list[str]:
    return [text[start : start + ROOT_CHARACTERS] for start in range(0, len(text), ROOT_CHARACTERS)]


def _text(node: TreeStage) -> tuple[str, ...]:
    cost = "" if node.cost_s is None else f" in {cost_text(node.cost_s)}"
    return f"{node.score:.3f}{cost}", _who(node)


def _who(node: TreeStage) -> str:
    if len(node.trials) == 1:
        only = node.trials[0]
        return f"{only.trial} {only.status}{'' if node.is_stored else ', removed'}"
    ends = sum(record.status == "pruned" and record.reached_ids()[-1:] == [node.stage_id] for record in node.trials)
    what = ", removed" if not node.is_stored else f", {ends} pruned" if ends else ""
    return f"{len(node.trials)} trials{what}"


def _tip(node: TreeStage) -> str:
    where = "trained here" if node.trained_here else "from the store"
    trials = ", ".join(record.trial for record in node.trials[:20])
    return f"{node.stage} {node.stage_id[:16]}: {SCORE} {_text(node)[0]}, {where}; {_who(node)}: {trials}"
