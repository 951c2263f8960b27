"""The page of a sweep, `report.html`: what was found, what mattered, what it cost, why trials stopped, and what to do next.

With several sweeps, it compares them. It is one file that asks nothing of the network: values and plotly are inside.
"""

import base64
import gzip
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import NormalDist
from typing import Any

from markupsafe import Markup

from birdclef_core.html.page import render
from birdclef_core.html.table import Column, Table, facts
from sweeps.objective import COSTS, CPU_SECONDS
from sweeps.options import storage_flag
from sweeps.plan.planner import PLANNED, load_plan, plan_rows
from sweeps.replicates import stage_of
from sweeps.report.changes import changes, flags
from sweeps.report.page.shown import ShownSweep, drawn
from sweeps.report.page.species import species_gain
from sweeps.report.ranking import leak_lines, ranking, score_of
from sweeps.report.results import card_links, leaks_of
from sweeps.report.tree_picture import grow_tree, tree_svg
from sweeps.schedule.records import TrialRecord
from sweeps.search.names import stage_order
from sweeps.wording import counted, figure, format_duration

Values = dict[str, object]
MAX_DRAWN = 40
"""The best trials, whose stages are drawn; `tree.html` has more."""
_NUM_LIKELY = 3
"""As many rivals of the best trial are named."""
_SECTIONS = {
    "found": "What was found",
    "best": "Best so far",
    "matters": "What matters",
    "parameters": "Parameters and scores",
    "cost": "What it cost",
    "soundscapes": "Recordings and soundscapes",
    "species": "Which species gain",
    "stopped": "What stopped, and why",
    "stages": "Stages",
    "trials": "All trials",
    "origin": "Where it comes from",
}


def report_page(sweeps: Sequence[ShownSweep], folder: Path) -> str:
    """Return the page as HTML. `folder`: where it will lie."""
    values = drawn(sweeps)
    one = sweeps[0] if len(sweeps) == 1 else None
    species = species_gain(one) if one else None
    values["species"] = species.rows if species else []
    importance_of = [
        (json.dumps([number, name]), f"{sweep['name']}: {name}" if one is None else name)
        for number, sweep in enumerate(values["sweeps"])
        for name in sweep["importances"]
    ]
    names = [param["name"] for param in values["params"]]
    by_importance = _most_important(values["sweeps"][0]["importances"], values["params"])
    options = [(number, names[number]) for number in by_importance]
    hidden = {
        *([] if importance_of else ["matters"]),
        *([] if values["soundscapes"] else ["soundscapes"]),
        *([] if species else ["species"]),
    }
    stopped = [record for sweep in sweeps for record in sweep.trials if record.status in ("pruned", "failed")]
    return render(
        "sweep_report",
        title=one.name if one else " and ".join(sweep.name for sweep in sweeps),
        sections={key: title for key, title in _SECTIONS.items() if key not in hidden},
        subtitle=_subtitle(sweeps),
        tiles=_tiles(sweeps),
        found=[*(text for sweep in sweeps for text in _found(sweep, named=one is None)), *_incomparable(sweeps)],
        leaks=[line for sweep in sweeps for line in leak_lines(leaks_of(sweep.record, sweep.trials))],
        compared=None if one else _compared(sweeps),
        caveat=_caveat(sweeps),
        next_steps=_next_steps(sweeps),
        over=_over(values["sweeps"]),
        importance_of=importance_of,
        num_params=len(names),
        param_names=names,
        contour=options,
        contour_up=[*options[1:], *options[:1]],
        costs=[
            (name, f"{COSTS[name]}" if name == CPU_SECONDS else "device hours of the whole chain") for name in values["costs"]
        ],
        cost_notes=[text for sweep in sweeps for text in _cost_notes(sweep, named=one is None)],
        plan=_plan(one) if one else None,
        soundscapes=values["soundscapes"],
        species={"what": species.what, "table": _species_table(species.rows)} if species else None,
        stops=_stops(stopped) if stopped else None,
        reasons=_reasons(stopped),
        trees=[_tree(sweep, folder) for sweep in sweeps],
        origins=[_origin(sweep) for sweep in sweeps],
        changes="\n".join(line for other in sweeps[1:] for line in changes(sweeps[0].record, other.record)),
        values=_json(values),
        plotly=_packed_plotly(),
    )


def _subtitle(sweeps: Sequence[ShownSweep]) -> str:
    now = time.strftime("%Y-%m-%d %H:%M")
    state = {"running": "running", "interrupted": "stopped before its end", "finished": "finished", "failed": "failed"}
    states = "; ".join(f"{sweep.name} is {state[sweep.record.state]}" for sweep in sweeps)
    objective = "; ".join(dict.fromkeys(str(sweep.objective) for sweep in sweeps))
    return f"As of {now}: {states}. Trials are compared by {objective}."


def _tiles(sweeps: Sequence[ShownSweep]) -> list[tuple[str, str]]:
    trials = [record for sweep in sweeps for record in sweep.trials]
    states = Counter(record.status for record in trials)
    spent_s, saved_s = (sum(amounts) for amounts in ([t.cost_s for t in trials], [t.saved_s for t in trials]))
    best = sweeps[0].best if len(sweeps) == 1 else None
    running = len(trials) - states["finished"] - states["pruned"] - states["failed"]
    tiles = [(str(score_of(best, sweeps[0].objective)), f"best {sweeps[0].objective.score_name}, {best.trial}")] if best else []
    tiles += [
        (f"{states['finished']:,}", f"of {counted(len(trials), 'trial')} finished"),
        (f"{states['pruned']:,}", "stopped early"),
        *([(f"{states['failed']:,}", "failed")] if states["failed"] else []),
        *([(f"{running:,}", "not ended")] if running else []),
        (format_duration(spent_s), "device time spent"),
        (format_duration(saved_s), "device time saved by sharing stages"),
    ]
    if len(sweeps) == 1 and sweeps[0].record.ran_s:
        tiles.append((format_duration(sweeps[0].record.ran_s), "in which it ran"))
    return tiles


def _found(sweep: ShownSweep, *, named: bool) -> list[str]:
    where = f"{sweep.name}: " if named else ""
    best, objective = sweep.best, sweep.objective
    if best is None:
        return [f"{where}No trial has finished yet." if sweep.record.state == "running" else f"{where}No trial has finished."]
    score = score_of(best, objective)
    settings = ", ".join(f"{key} {_shown(value)}" for key, value in best.params.items())
    texts = [
        f"{where}The best trial is {best.trial} ({best.recipe}) with {objective.score_name} {score}: {settings or 'as in its recipe'}."
    ]
    finished = [record for record in sweep.trials if record.score is not None]
    if score.error:
        rivals = [
            record
            for record in ranking(finished, objective.of_score)
            if record is not best and (record.score or 0) >= score.value - score.error
        ]
        if rivals:
            some = ", ".join(record.trial for record in rivals[:_NUM_LIKELY])
            more = f" and {len(rivals) - _NUM_LIKELY} more" if len(rivals) > _NUM_LIKELY else ""
            texts.append(f"{where}Within one standard error of it, and so perhaps as good: {some}{more}.")
    if objective.cost is not None:
        texts.append(f"{where}Trials are compared by {objective.cost} too ({COSTS[objective.cost]}): see what it cost.")
    return texts


def _incomparable(sweeps: Sequence[ShownSweep]) -> list[str]:
    """Why the scores of these sweeps cannot be compared; nothing where they can."""
    texts = []
    if len({sweep.objective.score_name for sweep in sweeps}) > 1:
        texts.append(
            "These sweeps have different objectives: their scores cannot be compared, although charts show them together."
        )
    if len({(sweep.record.data_fingerprint, sweep.record.options.folds) for sweep in sweeps}) > 1:
        texts.append("These sweeps have different recordings or folds: a higher score may come from easier data alone.")
    return texts


def _caveat(sweeps: Sequence[ShownSweep]) -> str:
    finished = [record for sweep in sweeps for record in sweep.trials if record.score is not None]
    if not finished:
        return "This will hold once trials have finished: a trial that is chosen by its score on the validation data has a score that is too good."
    best = max(finished, key=lambda record: record.score or 0.0)
    error = score_of(best, sweeps[0].objective).error
    chosen = f"It was chosen among {counted(len(finished), 'finished trial')} by the same data that it is scored on."
    luck = ""
    if error and len(finished) > 1:
        lead = error * NormalDist().inv_cdf((len(finished) - 0.375) / (len(finished) + 0.25))
        luck = (
            f" If all of them were equally good, the best of so many would still lead by up to about {lead:.3f} by luck (by less, because "
            "trials are scored on the same recordings and err together)."
        )
    return (
        f"{chosen}{luck} An honest score needs data by which nothing was chosen: labelled soundscapes if the objective is on recordings, or "
        "another year's recordings. Of an ensemble, birdclef ensemble gives such a score."
    )


def _next_steps(sweeps: Sequence[ShownSweep]) -> str:
    name, flag = sweeps[0].name, storage_flag(sweeps[0].record.options.storage)
    lines = (
        (f"birdclef predict my.wav --model {name} -o birds/{flag}", "find species in a recording with the best trial"),
        (f"birdclef ensemble {name}{flag}", "choose stages that hear better together"),
        (f"birdclef lineage {name}{flag}", "show and verify all that the best trial was trained from"),
        (f"birdclef ui {name}", "look at all runs in MLflow"),
        (f"python tune_main.py --extend {name} --samples 16{flag}", "add trials; trained stages are used again"),
    )
    return "\n".join(f"{command}\n    {meaning}" for command, meaning in lines)


def _over(sweeps: Sequence[Mapping[str, Sequence[object]]]) -> list[tuple[str, str]]:
    timed = any(hour is not None for sweep in sweeps for hour in sweep["hours"])
    return [("trials", "trials"), ("device", "device hours"), *([("wall", "time")] if timed else [])]


def _most_important(importances: Mapping[str, Any], params: Sequence[Mapping[str, Any]]) -> list[int]:
    """The numbers of the parameters, the most important first; where that is not known, those with the most different values."""
    ranked = [row[0] for found in list(importances.values())[:1] for row in found["parameters"]]

    def place(number: int) -> tuple[int, int]:
        param = params[number]
        known = ranked.index(param["name"]) if param["name"] in ranked else len(ranked)
        return known, -len(set(param["column"]) - {None})

    return sorted(range(len(params)), key=place)


def _compared(sweeps: Sequence[ShownSweep]) -> Table:
    columns = [
        Column("sweep", [sweep.name for sweep in sweeps]),
        Column("state", [sweep.record.state for sweep in sweeps]),
        Column("objective", [str(sweep.objective) for sweep in sweeps]),
        Column("trials", [len(sweep.trials) for sweep in sweeps], is_number=True),
        Column("finished", [sum(t.score is not None for t in sweep.trials) for sweep in sweeps], is_number=True),
        Column("best", [str(score_of(sweep.best, sweep.objective)) if sweep.best else None for sweep in sweeps]),
        Column("device hours", [sum(t.cost_s for t in sweep.trials) / 3600 for sweep in sweeps], is_number=True, shown=figure),
        Column("hours saved", [sum(t.saved_s for t in sweep.trials) / 3600 for sweep in sweeps], is_number=True, shown=figure),
    ]
    return Table("the sweeps", columns, is_sortable=True)


def _cost_notes(sweep: ShownSweep, *, named: bool) -> list[str]:
    where = f"{sweep.name}: " if named else ""
    spent_s, saved_s = sum(t.cost_s for t in sweep.trials), sum(t.saved_s for t in sweep.trials)
    asked, trained = sum(len(t.reached_ids()) for t in sweep.trials), sum(len(t.trained_ids) for t in sweep.trials)
    share = saved_s / (spent_s + saved_s) if spent_s + saved_s else 0.0
    texts = [
        f"{where}Trials needed {counted(asked, 'stage')}, of which {trained:,} were trained here. The others were shared: that saved "
        f"{format_duration(saved_s)} of {format_duration(spent_s + saved_s)} of device time ({share:.0%})."
    ]
    if not any(math.isfinite(record.costs[CPU_SECONDS]) for record in sweep.trials):
        texts.append(
            f"{where}How long the models take to hear was not measured. An objective such as '{sweep.objective.score_name}, {CPU_SECONDS}' "
            "measures it for each trial and compares by it too."
        )
    return texts


def _plan(sweep: ShownSweep) -> Table | None:
    """Plan and actual of a sweep's start; None if no plan was kept, or extensions have changed what it was a plan of."""
    planned = load_plan(sweep.storage, "plan.json")
    if planned is None or len(sweep.record.parts) > 1:
        return None
    rows = plan_rows(planned, sweep.trials, sweep.record.ran_s)
    return Table(
        "plan against actual", [Column(title, cells) for title, cells in zip(PLANNED, zip(*rows, strict=True), strict=True)]
    )


def _species_table(rows: Sequence[tuple[str, int, float, float]]) -> Table:
    return Table(
        "species by their gain",
        [
            Column("species", [row[0] for row in rows]),
            Column("recordings", [row[1] for row in rows], is_number=True),
            Column("before", [row[2] for row in rows], is_number=True, shown="{:.3f}".format),
            Column("best trial", [row[3] for row in rows], is_number=True, shown="{:.3f}".format),
            Column("gain", [row[3] - row[2] for row in rows], is_number=True, shown="{:+.3f}".format),
        ],
        is_sortable=True,
    )


def _stops(stopped: Sequence[TrialRecord]) -> Table:
    by_place: defaultdict[tuple[int, str], list[TrialRecord]] = defaultdict(list)
    order_of = {
        name: place
        for place, name in enumerate(stage_order([*dict.fromkeys(map(stage_of, record.stages))] for record in stopped))
    }
    for record in stopped:
        stage = record.stopped.rung.stage if record.stopped else record.stage
        order = order_of.get(stage_of(stage), -1)
        place = record.stopped.rung.name if record.stopped else f"in {stage}" if stage else "before its first stage"
        by_place[(order, place)].append(record)
    groups = [(place, by_place[order, place]) for order, place in sorted(by_place)]
    return Table(
        "where trials stopped",
        [
            Column("where", [place for place, _ in groups]),
            Column("stopped", [sum(t.status == "pruned" for t in group) for _, group in groups], is_number=True),
            Column("failed", [sum(t.status == "failed" for t in group) for _, group in groups], is_number=True),
            Column(
                "device hours they took",
                [sum(t.cost_s for t in group) / 3600 for _, group in groups],
                is_number=True,
                shown=figure,
            ),
        ],
        is_sortable=True,
    )


def _reasons(stopped: Sequence[TrialRecord]) -> Table:
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for record in stopped:
        by_reason[f"{record.status}: {record.reason}"].append(record.trial)
    return Table(
        "reasons",
        [
            Column("reason", list(by_reason)),
            Column("trials", [len(names) for names in by_reason.values()], is_number=True),
            Column("which", [", ".join(names[:8]) + (", ..." if len(names) > 8 else "") for names in by_reason.values()]),
        ],
        is_sortable=True,
    )


def _tree(sweep: ShownSweep, folder: Path) -> Values:
    ranked = ranking(list(sweep.trials), sweep.objective)[:MAX_DRAWN]
    stage_ids = {stage_id for record in ranked for stage_id in record.reached_ids()}
    summaries = sweep.store.summaries(stage_ids)
    best = next((record for record in ranked if record.score is not None), None)
    return {
        "name": sweep.name,
        "num_shown": len(ranked),
        "num_trials": len(sweep.trials),
        "picture": tree_svg(grow_tree(ranked, summaries, sweep.objective), best, card_links(sweep.store, summaries, folder)),
    }


def _origin(sweep: ShownSweep) -> Table:
    record, part = sweep.record, sweep.record.parts[-1]
    return facts(
        f"where {sweep.name} comes from",
        {
            "sweep": record.name,
            "search": f"{record.search}: {', '.join(recipe.name for recipe in part.search.recipes)}",
            "objective": str(sweep.objective),
            "data": f"{part.options.data or 'the synthetic demo set'} ({record.data_fingerprint[:12]})",
            "tags": " ".join(f"{key}={value}" for key, value in record.options.tags.items()) or "-",
            "note": record.options.note or "-",
            "started": record.started_at,
            "parts": f"{len(record.parts)}: " + ", ".join(f"from t{item.first_trial:04d}" for item in record.parts),
            "options": " ".join(flags(record)) or "none but the defaults",
            "code": f"{record.code_version[:12]} {part.git_commit[:13]}".strip(),
            "versions": ", ".join(f"{name} {version}" for name, version in part.versions.items()),
        },
    )


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _json(values: Values) -> Markup:
    """JSON that can stand in a script element: nothing in it ends the element."""
    return Markup(json.dumps(values, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"))


@cache
def _packed_plotly() -> str:
    """plotly.js as base64 of gzip, which a browser unpacks by itself: 2 MB in place of 5."""
    return base64.b64encode(gzip.compress(files("plotly").joinpath("package_data/plotly.min.js").read_bytes(), mtime=0)).decode()
