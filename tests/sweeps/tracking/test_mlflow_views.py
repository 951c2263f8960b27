"""What a sweep's pages in MLflow are made of."""

import json
from urllib.parse import parse_qs

from sweeps.objective import Objective
from sweeps.tracking.mlflow_views import comparison_path, describe_experiment, equals, saved_views, stages_path

TRIALS = [
    (
        {"recipe": "sed_b3ns", "lr": "0.1", "seed": "0"},
        {
            "objective": 0.7,
            "val/cmap_pad5": 0.5,
            "val/lrap": 0.7,
            "val/cmap": 0.1,
            "val/cmap_se": 0.01,
            "val_soundscapes/auroc": 0.7,
            "train/loss": 1,
        },
    ),
    ({"recipe": "sed_v2s", "lr": "0.2", "seed": "0", "rare": "1"}, {"objective": 0.6}),
]


def views(sweep="s", trials=TRIALS, objective="val_soundscapes/auroc"):
    return {
        tag: {**json.loads(value), "state": json.loads(json.loads(value)["state"])}
        for tag, value in saved_views(sweep, Objective.of(objective), trials, 7).items()
    }


def query(path):
    return {name: values[0] for name, values in parse_qs(path.partition("?")[2]).items()}


def test_the_address_opens_the_saved_view_in_the_layout_for_training():
    address = query(comparison_path("3", "my sweep"))
    assert address == {"workflowType": "machine_learning", "compareRunsMode": "CHART", "viewStateShareKey": "my sweep"}
    assert f"mlflow.sharedViewState.{address['viewStateShareKey']}" in views("my sweep")
    assert f"mlflow.sharedViewState.{query(stages_path('3', 'my sweep'))['viewStateShareKey']}" in views("my sweep")


def test_the_comparison_has_trials_only_best_first():
    state = views()["mlflow.sharedViewState.s"]["state"]
    assert state["searchFilter"] == "tags.`birdclef.sweep` = 's' and tags.`birdclef.kind` = 'trial'"
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`objective`", False)


def test_columns_are_scores_costs_and_what_differs():
    columns = views()["mlflow.sharedViewState.s"]["state"]["selectedColumns"]
    shown = [
        "objective",
        "objective_se",
        "val_soundscapes/auroc",
        "val/cmap",
        "val/cmap_pad5",
        "val/cmap_se",
        "cost/spent_s",
        "cost/saved_s",
    ]
    assert [name for name in columns if name.startswith("metrics")] == [f"metrics.`{name}`" for name in shown]
    assert [name for name in columns if name.startswith("params")] == ["params.`recipe`", "params.`lr`"]


def test_parallel_coordinates_lead_from_what_was_searched_to_the_objective():
    charts = views()["mlflow.sharedViewState.s"]["state"]["compareRunCharts"]
    assert charts[0]["type"] == "PARALLEL"
    assert charts[0]["selectedParams"] == ["recipe", "lr"]
    assert charts[0]["selectedMetrics"] == ["objective"]
    assert [chart["metricKey"] for chart in charts[1:]] == ["objective", "val/cmap", "val_soundscapes/auroc", "val/cmap"]
    assert len({chart["uuid"] for chart in charts}) == len(charts)


def test_with_a_cost_there_is_a_column_for_it_a_mark_of_the_front_and_a_chart_of_both():
    state = views(objective="val_soundscapes/auroc, cost/cpu_seconds_10min")["mlflow.sharedViewState.s"]["state"]
    assert state["selectedColumns"][:3] == ["metrics.`objective`", "metrics.`objective_se`", "metrics.`cost/cpu_seconds_10min`"]
    assert state["selectedColumns"][-2:] == ["tags.`birdclef.status`", "tags.`birdclef.pareto_front`"]
    (chart,) = [chart for chart in state["compareRunCharts"] if chart["type"] == "SCATTER"]
    assert (chart["xaxis"]["key"], chart["yaxis"]["key"]) == ("cost/cpu_seconds_10min", "objective")
    assert {chart[axis]["type"] for axis in ("xaxis", "yaxis")} == {"METRIC"}


def test_of_parameters_that_say_the_same_one_is_shown():
    """A recipe tells its encoder; two stages told to have one clip length have one axis; other numbers are never merged."""
    values = [("a", "x", "5", "5.0", "1"), ("b", "y", "9", "9.0", "2"), ("a", "x", "9", "9.0", "3")]
    names = ("recipe", "encoder", "train.clip_s", "train_ce.clip_s", "seed")
    trials = [(dict(zip(names, row, strict=True)), {"objective": 0.5}) for row in values]
    charts = views(trials=trials)["mlflow.sharedViewState.s"]["state"]["compareRunCharts"]
    assert charts[0]["selectedParams"] == ["recipe", "seed", "train.clip_s"]


def test_a_parameter_that_some_trials_lack_has_a_column_and_no_axis():
    """It exists only under a condition; MLflow's parallel coordinates would hide the trials without it."""
    trials = [
        ({"prob": "0"}, {"objective": 0.5}),
        ({"prob": "1", "beta": "2.0"}, {"objective": 0.5}),
        ({"prob": "1", "beta": "3.0"}, {"objective": 0.5}),
    ]
    state = views(trials=trials)["mlflow.sharedViewState.s"]["state"]
    assert state["compareRunCharts"][0]["selectedParams"] == ["prob"]
    assert [name for name in state["selectedColumns"] if name.startswith("params")] == ["params.`beta`", "params.`prob`"]


def test_what_only_trials_without_a_score_have_tried_gets_no_axis():
    trials = [({"lr": "1", "variant": "0"}, {"objective": 0.5}), ({"lr": "2", "variant": "0"}, {"objective": 0.5})]
    charts = views(trials=[*trials, ({"lr": "1", "variant": "1"}, {})])["mlflow.sharedViewState.s"]["state"]["compareRunCharts"]
    assert charts[0]["selectedParams"] == ["lr"]


def test_every_chart_is_in_a_section_of_the_view():
    state = views()["mlflow.sharedViewState.s"]["state"]
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} == sections


def test_a_sweep_without_trials_yet_has_its_views():
    assert len(views(trials=[])) == 2


def test_quotes_in_a_name_do_not_end_the_condition():
    assert equals("tags.a", "it's") == 'tags.a = "it\'s"'


def describe(old, body="table", sweep="new"):
    return describe_experiment(old, sweep=sweep, status="finished", trials_id="1", sweep_run=("2", "r"), body=body)


def test_the_latest_sweep_replaces_the_one_before_and_nothing_else():
    note = describe(f"Mine, above.\n\n{describe('', sweep='old')}\n\nMine, below.")
    assert note.startswith("Mine, above.")
    assert note.endswith("Mine, below.")
    assert "Sweep new" in note
    assert "Sweep old" not in note
    assert describe(note) == note


def test_too_long_a_table_is_cut_between_rows():
    note = describe("", body="\n".join(f"| {row} |" for row in range(5000)))
    assert len(note) <= 20_000
    assert "cut here" in note
    rows = [line for line in note.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
