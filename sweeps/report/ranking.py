"""The trials of a sweep from the best to the worst, those of a Pareto front first: as a table for the terminal and in Markdown."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.markup import escape
from rich.table import Table

from birdclef_core.store.leakage import Leak
from sweeps.objective import COSTS, DEFAULT_ON_SOUNDSCAPES, STANDARD_ERROR, Objective, Score
from sweeps.replicates import stage_of
from sweeps.schedule.records import TrialRecord, best_trials
from sweeps.wording import counted, figure, format_duration

Leaks = Mapping[str, Leak]
"""The leaks into the scores of trials, by the names of the trials that have one."""
NO_LEAKS: Leaks = MappingProxyType({})

MAX_REASONS = 20
"""Beyond so many reasons for which trials did not finish, pruned trials are counted by the place where they stopped."""
MAX_NAMED = 8
"""At most this many trials are named in a line."""


def ranking(trials: list[TrialRecord], objective: Objective) -> list[TrialRecord]:
    """The finished trials from the best score to the worst, then the others in their order. Those of a Pareto front come first."""
    best = best_trials(trials, objective)
    is_best = {record.trial for record in best}
    finished = [record for record in trials if record.score is not None and record.trial not in is_best]
    behind = sorted(finished, key=lambda record: -(record.score or 0))
    return [*best, *behind, *(record for record in trials if record.score is None)]


def ranked_rows(trials: list[TrialRecord], objective: Objective, leaks: Leaks) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of the ranked table, for the terminal and for Markdown. Leaked scores have the stars of `leak_lines`, those
    of stopped trials have brackets."""
    beside = scores_beside(objective, trials)
    of_cost = [] if objective.cost is None else ["front", objective.cost.removeprefix("cost/")]
    columns = [
        "trial",
        "recipe",
        "status",
        "objective",
        *of_cost,
        *(name.removeprefix("val/") for name in beside),
        "spent",
        "saved",
    ]
    rows, stars = [], _stars(leaks)
    front = {record.trial for record in best_trials(trials, objective)}
    for record in ranking(trials, objective):
        mark = stars[leaks[record.trial]] if record.trial in leaks else ""
        finished = record.metrics if record.score is not None else {}
        scores = [Score(finished.get(name, math.nan), finished.get(f"{name}{STANDARD_ERROR}")) for name in beside]
        scores.insert(0, score_of(record, objective))
        cells = ["" if math.isnan(score.value) else f"{score}{mark}" for score in scores]
        if record.status == "pruned" and record.stopped:
            cells[0] = f"({Score(record.stopped.score)})"
        if objective.cost is not None:
            cells[1:1] = ["yes" if record.trial in front else "", cost_text(record, objective.cost)]
        costs = [format_duration(record.cost_s), format_duration(record.saved_s)]
        rows.append([record.trial, record.recipe, record.status, *cells, *costs])
    return columns, rows


def score_of(record: TrialRecord, objective: Objective) -> Score:
    """The objective of a trial with its standard error; NaN where it has not finished."""
    return Score(math.nan if record.score is None else record.score, objective.score(record.metrics).error)


def cost_text(record: TrialRecord, cost: str) -> str:
    """What the model of a finished trial costs, by the name of the cost; empty where that is not known."""
    value = math.inf if record.score is None else record.costs[cost]
    return figure(value) if math.isfinite(value) else ""


def scores_beside(objective: Objective, trials: Sequence[TrialRecord]) -> list[str]:
    """Tracked names of the scores that are shown beside the objective: its parts, cmAP without and with padding, AUROC on soundscapes."""
    space = "val" if objective.label_space == "target" else "val_all"
    shown = [*objective.names, f"{space}/cmap", f"{space}/cmap_pad5"]
    if any(record.score is not None and DEFAULT_ON_SOUNDSCAPES in record.metrics for record in trials):
        shown.append(DEFAULT_ON_SOUNDSCAPES)
    return [name for name in dict.fromkeys(shown) if name != objective.score_name]


def objective_line(objective: Objective) -> str:
    """What the column `objective` is, and the columns of a Pareto front."""
    score = f"Objective: {objective.score_name}, with its standard error where that is known."
    if objective.cost is None:
        return score
    return (
        f"{score} Front: no other trial has at least this score at no more {objective.cost} ({COSTS[objective.cost]}), and less of one. The "
        "first trial has the best score."
    )


def stopped_line(trials: Sequence[TrialRecord]) -> str:
    """Why the score of a stopped trial may be higher than those above it; empty where no trial has stopped."""
    if not any(record.status == "pruned" and record.stopped for record in trials):
        return ""
    return (
        "In brackets: the score with which a trial stopped, of the stage where it stopped. It may be higher than final scores, because an "
        "earlier stage has other species or another loss. Only scores of the same stage are compared."
    )


def leak_lines(leaks: Leaks) -> list[str]:
    """Return a line for each kind of leak, with the stars of its scores."""
    return [f"{stars} {leak.sentence}" for leak, stars in _stars(leaks).items()]


def _stars(leaks: Leaks) -> dict[Leak, str]:
    return {leak: "*" * (number + 1) for number, leak in enumerate(dict.fromkeys(leaks.values()))}


def best_by_end(trials: list[TrialRecord], objective: Objective) -> str:
    """A sentence with the best trial for each last stage; empty when all chains end with the same stage."""
    best: dict[str, TrialRecord] = {}
    for record in ranking(trials, objective.of_score):
        if record.score is not None:
            best.setdefault(stage_of(record.stages[-1]), record)
    if len(best) < 2:
        return ""
    counts = Counter(stage_of(record.stages[-1]) for record in trials if record.score is not None)
    ends = "; ".join(f"{counts[end]} with {end}, best {item.trial} ({score_of(item, objective)})" for end, item in best.items())
    return f"Trials end with different stages: {ends}."


def ranked_table(trials: list[TrialRecord], objective: Objective, leaks: Leaks = NO_LEAKS) -> Table:
    """The ranked table for the terminal, as wide as its cells are."""
    columns, rows = ranked_rows(trials, objective, leaks)
    score = f"{objective.score_name} and {objective.cost}"
    title = f"\nTrials, best first by {objective}" if objective.cost is None else f"\nTrials, the Pareto front of {score} first"
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True)
    table.width = sum(widths) + len(widths) - 1
    for name in columns:
        table.add_column(name, justify="left" if name in ("trial", "recipe", "status") else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table


def ranked_markdown(trials: list[TrialRecord], objective: Objective, leaks: Leaks = NO_LEAKS) -> str:
    """The ranked table in Markdown, with the reason of each trial that has one; below it the objective and the leaks."""
    columns, rows = ranked_rows(trials, objective, leaks)
    reasons = [record.reason for record in ranking(trials, objective)]
    table = ([*columns, "reason"], ["---"] * (len(columns) + 1), *([*row, why] for row, why in zip(rows, reasons, strict=True)))
    lines = ["| " + " | ".join(_escaped(cell) for cell in cells) + " |" for cells in table]
    return "\n".join(
        [
            *lines,
            *(
                f"\n{_escaped(line)}"
                for line in filter(None, (objective_line(objective), stopped_line(trials), *leak_lines(leaks)))
            ),
        ]
    )


def _escaped(text: str) -> str:
    """Text that stands for itself in a table of Markdown."""
    return text.replace("|", "\\|").replace("*", "\\*")


def early_endings(trials: list[TrialRecord]) -> list[str]:
    """Why trials did not finish: a line for each reason with its trials; pruned ones by place where there are many reasons."""
    by_reason: dict[str, list[str]] = {}
    for record in trials:
        if record.score is None and record.reason:
            by_reason.setdefault(f"{record.status}: {record.reason}", []).append(record.trial)
    if len(by_reason) > MAX_REASONS:
        by_reason = {}
        for record in trials:
            if record.score is None and record.reason:
                where = f"at {record.stopped.rung.name}" if record.stopped else record.reason
                by_reason.setdefault(f"{record.status}: {where}", []).append(record.trial)
    lines = [f"  {_named(names)} {reason}" for reason, names in by_reason.items()]
    more = len(lines) - MAX_REASONS
    return lines if more <= 0 else [*lines[:MAX_REASONS], f"  and {more} more reasons, in result/ranking.md"]


def front_line(front: Sequence[TrialRecord], objective: Objective) -> str:
    """A sentence with the trials of the Pareto front; empty where there is none."""
    if objective.cost is None or not front:
        return ""
    few = [f"{record.trial} ({score_of(record, objective)}, {cost_text(record, objective.cost)})" for record in front]
    named = ", ".join(few if len(few) <= MAX_NAMED else [*few[: MAX_NAMED - 1], "...", few[-1]])
    return f"Pareto front of {objective.score_name} and {objective.cost}: {counted(len(front), 'trial')}, {named}."


def _named(names: list[str]) -> str:
    """A few trials by name, many by their number."""
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} trials ({', '.join(names[:3])}, ...)"
