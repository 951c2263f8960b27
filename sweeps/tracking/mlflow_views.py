"""The pages of a sweep in MLflow: their addresses, the experiment's description, and the views that compare trials."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from birdclef_core.errors import InputError
from sweeps.objective import Objective
from sweeps.tracking.events import FRONT_TAG, OBJECTIVE, OBJECTIVE_ERROR, OBJECTIVE_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

Trial = tuple[Mapping[str, str], Mapping[str, float]]
"""Parameters and metrics of one trial."""

EXPERIMENT_PREFIX = "birdclef/"
SWEEPS_EXPERIMENT = "birdclef/sweeps"
ENSEMBLES_EXPERIMENT = "birdclef/ensembles"
FRONT_PATH = "#/experiments?workflowType=machine_learning"

_NOTE_BEGIN, _NOTE_END = "<!-- sweep -->", "<!-- end of sweep -->"
_NOTE_CHARACTERS = 20_000
_SEARCHED, _SCORES = "Searched parameters", "Scores"
_SCORE_COLUMNS = 4
_VIEWED_TRIALS = 200
_COST_METRICS = ("cost/spent_s", "cost/saved_s")
_LINE: dict[str, Any] = {
    "type": "LINE",
    "lineSmoothness": 0,
    "xAxisScaleType": "linear",
    "scaleType": "linear",
    "range": {},
    "xAxisKey": "step",
    "selectedXAxisMetricKey": "",
    "yAxisKey": "metric",
    "yAxisExpressions": [],
    "ignoreOutliers": False,
    "useGlobalXaxisKey": True,
    "useGlobalLineSmoothing": True,
}


def equals(name: str, value: str) -> str:
    """Return the condition `name = value` in MLflow's filter language."""
    mark = '"' if "'" in value else "'"
    return f"{name} = {mark}{value}{mark}"


def sweep_filter(sweep: str) -> str:
    """Return the filter for the trials of a sweep and their stages."""
    return equals("tags.`birdclef.sweep`", sweep)


def trials_filter(sweep: str) -> str:
    """Return the filter for the trials of a sweep, without their stages."""
    return f"{sweep_filter(sweep)} and tags.`birdclef.kind` = 'trial'"


def comparison_path(experiment_id: str, sweep: str) -> str:
    """Return the path of the page that compares a sweep's trials, in the layout for training, with the sweep's saved view."""
    return _runs_path(experiment_id, "CHART", sweep)


def stages_path(experiment_id: str, sweep: str) -> str:
    """Return the path of the page that lists a sweep's trials with their stages below them."""
    return _runs_path(experiment_id, "TABLE", _with_stages(sweep))


def _runs_path(experiment_id: str, mode: str, view: str) -> str:
    """Return the path of an experiment's runs in a saved view. The view has the filter: one in the path would make MLflow ignore the view."""
    query = {"workflowType": "machine_learning", "compareRunsMode": mode, "viewStateShareKey": view}
    return f"#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def run_path(experiment_id: str, run_id: str) -> str:
    """Return the path of the page of one run."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?workflowType=machine_learning"


def find_page(client: "MlflowClient", *, sweep: str | None, search: str | None) -> str:
    """Return the path of the page that compares a sweep's trials, as in `sweeps.tracking.connect.open_ui`.

    Raises InputError when the server has no such sweep.
    """
    sweeps = client.get_experiment_by_name(SWEEPS_EXPERIMENT)
    wanted = [equals(f"tags.`birdclef.{tag}`", value) for tag, value in (("sweep", sweep), ("search", search)) if value]
    found = client.search_runs([sweeps.experiment_id], " and ".join(wanted), max_results=1) if sweeps else []
    if found:
        tags = found[0].data.tags
        experiment_id = tags["birdclef.experiment_id"]
        save_views(client, experiment_id, tags["birdclef.sweep"], time.time_ns() // 1_000_000)
        return comparison_path(experiment_id, tags["birdclef.sweep"])
    if sweep is None:
        return FRONT_PATH
    known = client.search_runs([sweeps.experiment_id], max_results=10) if sweeps else []
    names = ", ".join(run.data.tags["birdclef.sweep"] for run in known)
    raise InputError(f"The tracking server at {client.tracking_uri} has no sweep {sweep!r}; the newest are: {names or 'none'}.")


def save_views(client: "MlflowClient", experiment_id: str, sweep: str, time_ms: int) -> None:
    """Write the views of a sweep to its experiment, made from the parameters and metrics that its trials have now."""
    trials = [run.data for run in client.search_runs([experiment_id], trials_filter(sweep), max_results=_VIEWED_TRIALS)]
    objective = Objective.of(next((data.tags[OBJECTIVE_TAG] for data in trials if OBJECTIVE_TAG in data.tags), None))
    reported = [(data.params, data.metrics) for data in trials]
    for tag, view in saved_views(sweep, objective, reported, time_ms).items():
        client.set_experiment_tag(experiment_id, tag, view)


def saved_views(sweep: str, objective: Objective, trials: Sequence[Trial], time_ms: int) -> dict[str, str]:
    """Return the tags of an experiment that MLflow offers as saved views of a sweep, in the format of MLflow 3.17.

    One view has the trials, best first. Its charts begin with parallel coordinates, the trials' scores as bars and their learning
    curves; MLflow adds all other metrics. The other view has each trial's stages below it, which MLflow shows only in order of time.
    The columns of both are the objective and its standard error, scores, costs and the parameters that differ between trials. Where
    trials are compared by a cost too, it has a column, and a chart of the objective against it.
    """
    compared = [trial for trial in trials if OBJECTIVE in trial[1]]
    scores = _scores(objective, _known_metrics(trials))
    cost = [objective.cost] if objective.cost else []
    columns = [f"metrics.`{name}`" for name in (OBJECTIVE, OBJECTIVE_ERROR, *cost, *scores[:_SCORE_COLUMNS], *_COST_METRICS)]
    columns += [f"params.`{name}`" for name in _searched_params(trials, of_every_trial=False)]
    columns += [f"tags.`{tag}`" for tag in ("birdclef.status", *([FRONT_TAG] if cost else []))]
    table: dict[str, Any] = {"selectedColumns": columns, "runsHiddenMode": "FIRST_20_RUNS"}
    comparison = {
        **table,
        "searchFilter": trials_filter(sweep),
        "orderByKey": f"metrics.`{OBJECTIVE}`",
        "orderByAsc": False,
        "compareRunSections": [_section(_SEARCHED, columns=1, height_px=380), _section(_SCORES, columns=2, height_px=360)],
        "compareRunCharts": _charts(_searched_params(compared, of_every_trial=True), scores, objective.cost),
        "isAccordionReordered": True,
    }
    stages = {**table, "searchFilter": sweep_filter(sweep), "orderByKey": "attributes.start_time", "orderByAsc": False}
    return {
        f"mlflow.sharedViewState.{view}": json.dumps(
            {"name": name, "createdAt": time_ms, "updatedAt": time_ms, "state": json.dumps(state)}
        )
        for view, name, state in (
            (sweep, f"Sweep {sweep}", comparison),
            (_with_stages(sweep), f"Sweep {sweep}, trials with their stages", stages),
        )
    }


def _with_stages(sweep: str) -> str:
    return f"{sweep}.stages"


def _searched_params(trials: Sequence[Trial], *, of_every_trial: bool) -> list[str]:
    """Return the parameters that differ between trials; if asked for, only those that every trial has.

    Parallel coordinates leave out a trial that lacks one: a recipe without a stage, or a parameter whose condition does not hold. Of several
    that divide the trials in the same way, only the first by name is returned.
    """
    sets = [set(params) for params, _ in trials]
    names = (set.intersection(*sets) if of_every_trial else set.union(*sets)) if sets else set()
    by_signature: dict[tuple[object, ...], str] = {}
    for name in sorted(names, key=lambda name: (name != "recipe", name)):
        values = [params.get(name, "") for params, _ in trials]
        if len(set(values)) > 1:
            by_signature.setdefault(_signature(values), name)
    return list(by_signature.values())


def _signature(values: Sequence[str]) -> tuple[object, ...]:
    """Return what makes two parameters the same: numbers as they are, texts only by which trials share one.

    So a recipe and its encoder are the same, because every trial of the recipe has that encoder.
    """
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        return ("words", *(values.index(value) for value in values))


def _known_metrics(trials: Sequence[Trial]) -> set[str]:
    return set().union(*(metrics for _, metrics in trials))


def _scores(objective: Objective, known: Iterable[str]) -> list[str]:
    """Return the scores of the objective's recordings and species: those that it is made of, cmAP without and with padding, the others."""
    kinds = ("val_all/",) if objective.label_space == "all" else ("val/", "val_soundscapes/")
    first = [*objective.names, f"{kinds[0]}cmap", f"{kinds[0]}cmap_pad5"]
    scores = {name for name in known if name.startswith(kinds)}
    return [*(name for name in dict.fromkeys(first) if name in scores), *sorted(scores.difference(first))]


def _charts(params: list[str], scores: list[str], cost: str | None) -> list[dict[str, Any]]:
    parallel: dict[str, Any] = {"type": "PARALLEL", "selectedParams": params, "selectedMetrics": [OBJECTIVE], "showAllRuns": True}
    charts = [{**parallel, "metricSectionId": _SEARCHED}]
    if cost is not None:
        x, y = ({"key": name, "type": "METRIC", "index": 0} for name in (cost, OBJECTIVE))
        charts.append({"type": "SCATTER", "xaxis": x, "yaxis": y, "metricSectionId": _SCORES})
    charts += [{"type": "BAR", "metricKey": name, "metricSectionId": _SCORES} for name in (OBJECTIVE, *scores[1:2])]
    charts += [{**_LINE, "metricKey": name, "metricSectionId": _SCORES} for name in scores[:2]]
    common = {"runsCountToCompare": 20, "deleted": False, "isGenerated": False}
    return [{**common, **chart, "uuid": f"sweep-{index}"} for index, chart in enumerate(charts)]


def _section(name: str, columns: int, height_px: int) -> dict[str, Any]:
    shown = {"display": True, "isReordered": True, "deleted": False}
    return {"uuid": name, "name": name, "columns": columns, "cardHeight": height_px, **shown}


def describe_experiment(old: str, *, sweep: str, status: str, trials_id: str, sweep_run: tuple[str, str], body: str) -> str:
    """Return the experiment's description with the latest sweep in it; text that a user wrote around it stays.

    `trials_id` is the id of the trials' experiment, `sweep_run` the ids of the experiment and the run of the sweep itself. A table
    that is too long is cut between rows.
    """
    pages = {
        "its trials": comparison_path(trials_id, sweep),
        "with their stages": stages_path(trials_id, sweep),
        "the sweep's own run": run_path(*sweep_run),
    }
    links = " · ".join(f"[{name}]({path})" for name, path in pages.items())
    heading = f"### Sweep {sweep}: {status}\n{links}"
    before, _, rest = old.partition(_NOTE_BEGIN)
    after = rest.partition(_NOTE_END)[2] if rest else ""
    around = before.strip(), after.strip()
    room = _NOTE_CHARACTERS - sum(len(text) for text in around) - len(heading) - 200
    if len(body) > room:
        body = body[:room].rpartition("\n")[0] + "\n\n(cut here; the complete table is in the sweep's own run)"
    ours = f"{_NOTE_BEGIN}\n{heading}\n\n{body.strip()}\n{_NOTE_END}"
    return "\n\n".join(text for text in (around[0], ours, around[1]) if text)
