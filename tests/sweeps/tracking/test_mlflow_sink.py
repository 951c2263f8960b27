"""A sweep's records as MLflow keeps them: read back from a database of its own, without a server."""

import hashlib
import itertools
import math
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.tracking.connect import _import_mlflow_sink
from sweeps.tracking.delivery import Rejected
from sweeps.tracking.events import (
    LEARNS_FROM,
    CheckpointUsed,
    EnsembleChosen,
    EpochFinished,
    FrontFound,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from sweeps.tracking.mlflow_views import find_page


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A database; MLflow puts artifacts beside it in the current folder."""
    folder, before = tmp_path_factory.mktemp("mlflow"), Path.cwd()
    os.chdir(folder)
    yield f"sqlite:///{folder / 'mlflow.db'}"
    os.chdir(before)


@pytest.fixture(scope="module")
def client(uri):
    _import_mlflow_sink()
    from mlflow import MlflowClient

    return MlflowClient(uri)


class Driver:
    """Applies events as a delivery thread would, and looks at what came of them."""

    clock_ms = itertools.count(10_000)

    def __init__(self, uri, client, folder, sweep):
        self.uri, self.client, self.folder, self.sweep = uri, client, folder, sweep
        self.memory = {}
        self.search = f"search-{sweep}"
        self.apply(SweepStarted(sweep=sweep, search=self.search, note="What it is."))

    def apply(self, *events, seen_before=False):
        self.deliver(self.journal(*events), seen_before=seen_before)

    def journal(self, *events):
        return [(event, next(self.clock_ms)) for event in events]

    def deliver(self, records, *, seen_before=False):
        _import_mlflow_sink().MlflowSink(self.uri, self.memory, self.folder).apply(records, seen_before=seen_before)

    def stage_id(self, execution):
        return hashlib.sha256(f"{self.sweep}/{execution}".encode()).hexdigest()

    def stage(self, trial, name, starts_from=None, first_epoch=0, status="finished", learns_from=None, **finished):
        """The events of one execution of two epochs; `starts_from` and `learns_from` are executions before."""
        execution = f"{trial}/{name}"
        parent = self.stage_id(starts_from) if starts_from else None
        tags = {LEARNS_FROM: self.stage_id(learns_from)} if learns_from else {}
        yield StageStarted(trial=trial, execution=execution, stage=name, params={"lr": 0.1}, tags=tags, starts_from=parent)
        for epoch in (1, 2):
            yield EpochFinished(
                trial=trial,
                execution=execution,
                epoch=epoch,
                trial_epoch=first_epoch + epoch,
                metrics={"val/cmap": 0.1 * epoch},
                time_s=float(epoch),
            )
        yield StageFinished(
            **{"trial": trial, "execution": execution, "stage_id": self.stage_id(execution), "status": status, **finished}
        )

    def runs(self, **tags):
        experiment = self.client.get_experiment_by_name(f"birdclef/{self.search}")
        wanted = {"sweep": self.sweep, **tags}
        query = " and ".join(f"tags.`birdclef.{name}` = '{value}'" for name, value in wanted.items())
        return self.client.search_runs([experiment.experiment_id], query)

    def run(self, **tags):
        (run,) = self.runs(**tags)
        return run

    def model(self, run):
        (output,) = run.outputs.model_outputs
        return self.client.get_logged_model(output.model_id)

    def inputs(self, run):
        return {item.model_id for item in self.client.get_run(run.info.run_id).inputs.model_inputs}


@pytest.fixture
def driver(uri, client, tmp_path, request):
    return Driver(uri, client, tmp_path, request.node.name)


def test_a_trial_is_a_top_level_run_and_its_stages_are_below_it(driver):
    driver.apply(
        TrialStarted(trial="t", params={"recipe": "sed_b3ns"}, tags={"birdclef.recipe": "sed_b3ns"}),
        *driver.stage("t", "train_ce"),
        TrialFinished(trial="t", status="finished", metrics={"objective": 0.2}),
    )
    trial, execution = driver.run(kind="trial"), driver.run(kind="execution")
    assert "mlflow.parentRunId" not in trial.data.tags
    assert execution.data.tags["mlflow.parentRunId"] == trial.info.run_id
    assert (trial.info.run_name, execution.info.run_name) == ("t", "train_ce")
    assert trial.data.params == {"recipe": "sed_b3ns"}
    assert (trial.info.status, execution.info.status) == ("FINISHED", "FINISHED")


def test_names_of_parameters_that_mlflow_does_not_take_are_changed(driver):
    driver.apply(TrialStarted(trial="t", params={"train.noise.*.prob": 0.5, "train.noise.rain+wind.prob": 0.25}, tags={}))
    assert driver.run(kind="trial").data.params == {"train.noise.all.prob": "0.5", "train.noise.rain_wind.prob": "0.25"}


def test_an_epoch_is_kept_by_its_number_in_the_stage_and_in_the_trial(driver):
    """Once, also the last one, whose metrics are those of the stage at its end."""
    driver.apply(TrialStarted(trial="t"), *driver.stage("t", "train_bce", first_epoch=10, metrics={"val/cmap": 0.2}))
    for kind, steps in (("execution", [1, 2]), ("trial", [11, 12])):
        history = driver.client.get_metric_history(driver.run(kind=kind).info.run_id, "val/cmap")
        assert [(point.step, point.value, point.timestamp) for point in history] == [
            (steps[0], 0.1, 1_000),
            (steps[1], 0.2, 2_000),
        ]


def test_a_checkpoint_is_output_of_its_stage_and_input_of_what_starts_from_it(driver):
    first = "t/pretrain_ce"
    driver.apply(TrialStarted(trial="t"), *driver.stage("t", "pretrain_ce", checkpoint_uri="s3://b/1"))
    driver.apply(*driver.stage("t", "train_ce", starts_from=first))
    producer, consumer = driver.run(execution=first), driver.run(execution="t/train_ce")
    model = driver.model(producer)
    assert model.source_run_id == producer.info.run_id
    assert (model.status.value, model.model_type, model.params) == ("READY", "checkpoint", {"lr": "0.1"})
    assert model.tags["birdclef.checkpoint_uri"] == "s3://b/1"
    assert driver.inputs(consumer) == {model.model_id}
    assert driver.inputs(driver.run(kind="trial")) == {model.model_id, driver.model(consumer).model_id}


def test_the_predictions_that_a_student_learns_from_are_an_input_too(driver):
    driver.apply(TrialStarted(trial="t"), *driver.stage("t", "train"), *driver.stage("t", "labels", starts_from="t/train"))
    driver.apply(*driver.stage("t", "student", starts_from="t/train", learns_from="t/labels"))
    made = {driver.model(driver.run(execution=f"t/{name}")).model_id for name in ("train", "labels")}
    assert driver.inputs(driver.run(execution="t/student")) == made


def test_a_trial_that_takes_a_checkpoint_is_its_consumer(driver):
    driver.apply(TrialStarted(trial="a"), *driver.stage("a", "pretrain_ce"))
    driver.apply(
        TrialStarted(trial="b"),
        CheckpointUsed(trial="b", stage_id=driver.stage_id("a/pretrain_ce"), metrics={"val/cmap": 0.2}),
        TrialFinished(trial="b", status="finished", metrics={"objective": 0.9}),
    )
    model = driver.model(driver.run(execution="a/pretrain_ce"))
    trial = driver.run(trial="b", kind="trial")
    assert driver.inputs(trial) == {model.model_id}
    assert trial.data.metrics == {"val/cmap": 0.2, "objective": 0.9}
    of_trials = {metric.run_id: metric.value for metric in model_metrics(driver, model) if metric.key == "objective"}
    assert of_trials == {trial.info.run_id: 0.9}, "the model's page lists the trials that have it"


def model_metrics(driver, model):
    return driver.client.get_logged_model(model.model_id).metrics


def test_a_checkpoint_that_the_server_has_never_seen_is_described(driver):
    stage_id = "of-another-server"
    driver.apply(TrialStarted(trial="t"), CheckpointUsed(trial="t", stage_id=stage_id, stage="train_ce", checkpoint_uri="gs://x"))
    (model_id,) = driver.inputs(driver.run(kind="trial"))
    model = driver.client.get_logged_model(model_id)
    assert model.name == "train_ce-of-anoth"
    assert model.tags["birdclef.checkpoint_uri"] == "gs://x"
    assert not model.source_run_id


def test_a_checkpoint_of_another_search_is_found(driver, uri, client, tmp_path):
    other = Driver(uri, client, tmp_path, "the-other-search")
    other.apply(TrialStarted(trial="o"), *other.stage("o", "pretrain_ce", stage_id="5ha2ed"))
    driver.apply(TrialStarted(trial="t"), CheckpointUsed(trial="t", stage_id="5ha2ed"))
    assert driver.inputs(driver.run(kind="trial")) == {other.model(other.run(kind="execution")).model_id}


def test_the_trials_of_the_pareto_front_are_tagged_and_those_that_were_beaten_since_are_not(driver):
    def tags() -> list[str | None]:
        return [driver.run(trial=trial, kind="trial").data.tags.get("birdclef.pareto_front") for trial in "abc"]

    driver.apply(*(TrialStarted(trial=trial) for trial in "abc"))
    driver.apply(FrontFound(trials=("a", "b")))
    assert tags() == ["true", "true", None]
    # In the extension. A trial that this server has never heard of is passed over.
    driver.apply(FrontFound(trials=("a", "c", "of another server")))
    assert tags() == ["true", "false", "true"]


def everything(driver):
    events = [
        TrialStarted(trial="t", params={"lr": 0.1}),
        *driver.stage("t", "pretrain_ce"),
        *driver.stage("t", "train_ce", starts_from="t/pretrain_ce", first_epoch=2),
        TrialFinished(trial="t", status="finished", metrics={"objective": 0.4}),
        SweepFinished(status="finished", table_markdown="| 1 | t |"),
    ]
    return [SweepStarted(sweep=driver.sweep, search=driver.search, note="What it is."), *events]


def snapshot(driver):
    experiment = driver.client.get_experiment_by_name(f"birdclef/{driver.search}")
    models = driver.client.search_logged_models([experiment.experiment_id])
    runs = driver.runs()
    points = {
        (run.info.run_id, name): len(driver.client.get_metric_history(run.info.run_id, name))
        for run in runs
        for name in run.data.metrics
    }
    inputs = {run.info.run_id: driver.inputs(run) for run in runs}
    return {run.info.run_id for run in runs}, {model.model_id for model in models}, points, inputs


@pytest.mark.parametrize("forgotten", ["nothing", "all"])
def test_what_is_delivered_again_changes_nothing(uri, client, tmp_path, forgotten):
    """A crash between delivery and the note of it: the records come again, and the ids may be forgotten."""
    driver = Driver(uri, client, tmp_path, f"again-{forgotten}")
    records = driver.journal(*everything(driver))
    driver.deliver(records)
    before = snapshot(driver)
    if forgotten == "all":
        driver.memory.clear()
    driver.deliver(records, seen_before=True)
    assert snapshot(driver) == before


def test_everything_at_once_is_the_same_as_one_event_after_the_other(uri, client, tmp_path):
    """Also with several requests at a time: each run and each model once, with what belongs to it."""
    found = []
    for name, threads in (("one-by-one", 1), ("at-once", 4)):
        driver = Driver(uri, client, tmp_path, f"same-{name}")
        events = [
            *itertools.chain(*(driver.stage(trial, "pretrain_ce") for trial in "ab")),
            *itertools.chain(*(driver.stage(t, "train_ce", starts_from=f"{t}/pretrain_ce", first_epoch=2) for t in "ab")),
            CheckpointUsed(trial="g", stage_id=driver.stage_id("a/train_ce"), stage="train_ce", metrics={"val/cmap": 0.2}),
            *(TrialFinished(trial=trial, status="finished", metrics={"objective": 0.4}) for trial in "abg"),
        ]
        records = driver.journal(*(TrialStarted(trial=trial, params={"lr": 0.1}) for trial in "abg"), *events)
        if threads == 1:
            for record in records:
                driver.deliver([record])
        else:
            _import_mlflow_sink().MlflowSink(uri, driver.memory, tmp_path, threads).apply(records, seen_before=False)
        runs, models, points, _ = snapshot(driver)
        made = [driver.model(run) for run in driver.runs(kind="execution")]
        assert {model.model_id for model in made} == models and {model.params["lr"] for model in made} == {"0.1"}
        kinds = sorted(
            (run.info.run_name, run.info.status, len(driver.inputs(run)), run.data.params["lr"]) for run in driver.runs()
        )
        found.append((len(runs), len(models), sorted(points.values()), kinds))
    assert found[0] == found[1]


def test_a_batch_takes_one_request_for_the_entries_of_a_run(driver, monkeypatch):
    """Forty epochs of two trials, in two stages each: four runs of executions and two of trials."""
    trials = [driver.journal(TrialStarted(trial=t), StageStarted(trial=t, execution=f"{t}/e", stage="train_ce")) for t in "ab"]
    driver.deliver([*trials[0], *trials[1]])
    calls = []
    log_batch = type(driver.client).log_batch
    monkeypatch.setattr(type(driver.client), "log_batch", lambda self, *given: (calls.append(given[0]), log_batch(self, *given)))
    epochs = [
        EpochFinished(trial=t, execution=f"{t}/e", epoch=n, trial_epoch=n, metrics={"val/cmap": n / 100}, time_s=float(n))
        for n in range(1, 41)
        for t in "ab"
    ]
    driver.apply(*epochs)
    assert len(calls) == len(set(calls)) == 4
    assert len(driver.client.get_metric_history(driver.run(trial="a", kind="trial").info.run_id, "val/cmap")) == 40


def test_views_are_made_anew_now_and_then_and_at_the_end(driver, monkeypatch):
    made = []
    sink = _import_mlflow_sink()
    monkeypatch.setattr(sink.views, "save_views", lambda *given: made.append(given[-1]))
    mlflow = sink.MlflowSink(driver.uri, driver.memory, driver.folder)
    for trial in "abc":
        mlflow.apply(driver.journal(TrialStarted(trial=trial), TrialFinished(trial=trial, status="failed")), seen_before=False)
    assert len(made) == 1
    monkeypatch.setattr(sink, "_VIEWS_EVERY_S", 0.0)
    mlflow.apply(driver.journal(FrontFound(trials=())), seen_before=False)
    assert len(made) == 2, "what was put off is made up for"
    monkeypatch.setattr(sink, "_VIEWS_EVERY_S", 60.0)
    mlflow.apply(driver.journal(SweepFinished(status="finished", table_markdown="")), seen_before=False)
    assert len(made) == 3


def test_statuses(driver):
    driver.apply(
        *(TrialStarted(trial=trial) for trial in ("pruned", "failed")),
        *driver.stage("failed", "train_ce", status="failed"),
        *driver.stage("pruned", "train_ce", status="stopped"),
        TrialFinished(trial="pruned", status="pruned", reason="below the others"),
        TrialFinished(trial="failed", status="failed", reason="the loss is NaN"),
    )
    found = {run.info.run_name: run for run in driver.runs(kind="trial")}
    assert {name: run.info.status for name, run in found.items()} == {"pruned": "KILLED", "failed": "FAILED"}
    assert found["failed"].data.tags["mlflow.note.content"] == "the loss is NaN"
    assert driver.run(execution="failed/train_ce").info.status == "FAILED"
    assert driver.run(execution="pruned/train_ce").info.status == "KILLED"


def test_an_interrupted_trial_waits_and_goes_on_as_the_same_run(driver):
    events = list(driver.stage("t", "train_ce"))
    driver.apply(TrialStarted(trial="t"), *events[:2], TrialFinished(trial="t", status="interrupted", reason="Ctrl-C"))
    trial = driver.run(kind="trial")
    assert [run.info.status for run in driver.runs()] == ["SCHEDULED", "SCHEDULED"]
    trained_again = replace(events[1], time_s=9.0)
    driver.apply(TrialStarted(trial="t"), events[0], trained_again, *events[2:], TrialFinished(trial="t", status="finished"))
    assert driver.run(kind="trial").info.run_id == trial.info.run_id
    assert [run.info.status for run in driver.runs()] == ["FINISHED", "FINISHED"]
    assert len(driver.client.get_metric_history(trial.info.run_id, "val/cmap")) == 2, "an epoch told twice is kept once"


def test_single_figures_are_at_step_0_and_scores_at_the_last_epoch(driver):
    driver.apply(
        TrialStarted(trial="t"),
        *driver.stage("t", "train_ce"),
        TrialFinished(trial="t", status="finished", metrics={"cost/spent_s": 12.0, "val/cmap": 0.7}),
    )
    run = driver.run(kind="trial")
    assert run.data.metrics["val/cmap"] == 0.7, "the final score is the one that the table shows"
    assert [point.step for point in driver.client.get_metric_history(run.info.run_id, "cost/spent_s")] == [0]


def test_a_metric_that_is_no_number_is_told_and_not_drawn(driver):
    epoch = EpochFinished(
        trial="t", execution="t/e", epoch=1, trial_epoch=1, metrics={"loss": math.nan, "val/cmap": 0.1}, time_s=1
    )
    driver.apply(TrialStarted(trial="t"), StageStarted(trial="t", execution="t/e", stage="train_ce"), epoch)
    run = driver.run(kind="execution")
    assert run.data.metrics == {"val/cmap": 0.1}
    assert run.data.tags["birdclef.not_finite.loss"] == "nan at step 1"


def test_artifacts_are_uploaded_and_missing_ones_are_told(driver):
    (driver.folder / "report").mkdir()
    (driver.folder / "report" / "species.csv").write_text("species,ap\n")
    driver.apply(
        TrialStarted(trial="t"),
        *driver.stage("t", "train_ce", artifacts="report"),
        *driver.stage("t", "train_bce", artifacts="not-there"),
        TrialFinished(trial="t", status="pruned", artifacts="report"),
    )
    assert [item.path for item in driver.client.list_artifacts(driver.run(kind="trial").info.run_id)] == ["species.csv"]
    run = driver.run(execution="t/train_ce")
    assert [item.path for item in driver.client.list_artifacts(run.info.run_id)] == ["species.csv"]
    run = driver.run(execution="t/train_bce")
    assert run.info.status == "FINISHED"
    assert run.data.tags["birdclef.artifacts_missing"].endswith("not-there")


def test_artifacts_that_are_being_copied_are_waited_for(driver, monkeypatch):
    monkeypatch.setattr("sweeps.tracking.to_mlflow.outbox._COPY_S", 0.5)
    (driver.folder / "never.part").mkdir()
    (driver.folder / "soon.part").mkdir()
    (driver.folder / "soon.part" / "species.csv").write_text("species,ap")
    coming = threading.Timer(0.2, lambda: (driver.folder / "soon.part").rename(driver.folder / "soon"))
    coming.start()
    driver.apply(
        TrialStarted(trial="t"),
        *driver.stage("t", "train_ce", artifacts="soon"),
        *driver.stage("t", "train_bce", artifacts="never"),
    )
    run = driver.run(execution="t/train_ce")
    assert [item.path for item in driver.client.list_artifacts(run.info.run_id)] == ["species.csv"]
    assert driver.run(execution="t/train_bce").data.tags["birdclef.artifacts_missing"].endswith("never")


def test_a_refusal_is_told_from_an_outage(driver):
    with pytest.raises(Rejected, match="length"):
        driver.apply(TrialStarted(trial="t", params={"long" * 100: 1}))
    driver.apply(TrialStarted(trial="u", params={"lr": 1}))
    with pytest.raises(Rejected, match="lr"):
        driver.apply(TrialStarted(trial="u", params={"lr": 2}))


def test_an_epoch_of_an_unknown_trial_is_refused(driver):
    with pytest.raises(Rejected, match="must be recorded first"):
        driver.apply(*list(driver.stage("never-started", "train_ce"))[1:])


def test_epochs_of_an_attempt_that_failed_are_not_taken_for_delivered(driver, monkeypatch):
    started = [TrialStarted(trial="t"), *list(driver.stage("t", "train_ce"))[:2]]

    def away(*arguments, **named):
        raise ConnectionError("away")

    with monkeypatch.context() as outage:
        outage.setattr(type(driver.client), "log_batch", away)
        with pytest.raises(ConnectionError):
            driver.apply(*started)
    driver.apply(*started, seen_before=True)
    assert driver.run(kind="trial").data.metrics == {"val/cmap": 0.1}


def test_a_sweep_has_a_record_a_description_and_views(driver):
    driver.apply(*everything(driver))
    experiment = driver.client.get_experiment_by_name(f"birdclef/{driver.search}")
    assert "| 1 | t |" in experiment.tags["mlflow.note.content"]
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert f"mlflow.sharedViewState.{driver.sweep}" in experiment.tags
    sweeps = driver.client.get_experiment_by_name("birdclef/sweeps")
    (record,) = driver.client.search_runs([sweeps.experiment_id], f"tags.`birdclef.sweep` = '{driver.sweep}'")
    assert record.info.status == "FINISHED"
    assert record.data.tags["mlflow.note.content"] == "What it is.\n\n| 1 | t |"
    assert all(run.data.tags["birdclef.kind"] != "sweep" for run in driver.runs()), "the comparison shows trials only"


def test_the_page_of_a_sweep_is_found(driver):
    experiment = driver.client.get_experiment_by_name(f"birdclef/{driver.search}")
    path = find_page(driver.client, sweep=driver.sweep, search=None)
    assert f"#/experiments/{experiment.experiment_id}/runs" in path
    assert f"viewStateShareKey={driver.sweep}" in path
    assert find_page(driver.client, sweep=None, search=driver.search) == path
    assert find_page(driver.client, sweep=None, search="never-run") == "#/experiments?workflowType=machine_learning"


def test_an_unknown_sweep_is_told_with_those_that_exist(driver):
    with pytest.raises(Exception, match=f"no sweep 'nope'.*{driver.sweep}"):
        find_page(driver.client, sweep="nope", search=None)


def test_a_deleted_experiment_is_restored(driver):
    experiment = driver.client.get_experiment_by_name(f"birdclef/{driver.search}")
    driver.client.delete_experiment(experiment.experiment_id)
    driver.memory.clear()
    driver.apply(SweepStarted(sweep=driver.sweep, search=driver.search), TrialStarted(trial="t"), seen_before=True)
    assert driver.client.get_experiment(experiment.experiment_id).lifecycle_stage == "active"


def test_an_execution_that_a_crash_cut_short_and_nobody_goes_on_with_is_ended(driver):
    """Of three trials one takes the stage from elsewhere, one trains another stage, and one ends."""
    for trial in "abc":
        driver.apply(TrialStarted(trial=trial), *list(driver.stage(trial, "train_ce"))[:2])
    driver.apply(CheckpointUsed(trial="a", stage_id=driver.stage_id("b/train_ce"), stage="train_ce"))
    driver.apply(*list(driver.stage("b", "train_bce"))[:1])
    driver.apply(TrialFinished(trial="c", status="pruned"))
    assert {trial: driver.run(execution=f"{trial}/train_ce").info.status for trial in "abc"} == dict.fromkeys("abc", "KILLED")
    driver.apply(*list(driver.stage("b", "train_bce"))[1:])
    assert driver.run(execution="b/train_bce").info.status == "FINISHED"


def test_an_ensemble_is_a_run_whose_inputs_are_its_stages(driver, client, uri, tmp_path):
    """One stage is known to the server from its sweep, the other is not; delivered twice, it is one run."""
    driver.apply(
        TrialStarted(trial="t"),
        *driver.stage("t", "finetune"),
        TrialFinished(trial="t", status="finished", metrics={"objective": 0.2}),
    )
    known, other = driver.stage_id("t/finetune"), f"{driver.sweep}-other"
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "ensemble.json").write_text("{}")
    event = EnsembleChosen(
        ensemble=f"e-{driver.sweep}",
        name="night",
        sweep=driver.sweep,
        search=driver.search,
        stages={known: "finetune", other: "train_bce"},
        checkpoint_uris={known: "/s/known", other: "/s/other"},
        params={"weight/abc": 0.5},
        metrics={"cross_fitted/auroc": 0.8},
        note="What it is worth.",
        artifacts="artifacts",
    )
    memory: dict[str, str] = {}
    for seen_before in (False, True):
        sink = _import_mlflow_sink().MlflowSink(uri, {} if seen_before else memory, tmp_path)
        sink.apply([(event, 1)], seen_before=seen_before)
    experiment = client.get_experiment_by_name("birdclef/ensembles")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`birdclef.ensemble` = '{event.ensemble}'")
    assert (run.info.run_name, run.info.status) == ("night", "FINISHED")
    assert run.data.metrics == {"cross_fitted/auroc": 0.8} and run.data.params == {"weight/abc": "0.5"}
    assert run.data.tags["mlflow.note.content"] == "What it is worth."
    models = [client.get_logged_model(model_id) for model_id in driver.inputs(run)]
    assert {model.tags["birdclef.stage_id"] for model in models} == {known, other}
    assert driver.model(driver.run(execution="t/finetune")).model_id in driver.inputs(run)
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["ensemble.json"]
