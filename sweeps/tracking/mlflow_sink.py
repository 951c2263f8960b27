"""Writes the events of a sweep to an MLflow server; the only file that imports mlflow when it runs.

Experiment `birdclef/<search>`: each trial is a top-level run, because MLflow's comparison page shows no others, and each execution
of a stage is a run below the trial that trained it. A checkpoint is an external model: an output of the execution that made it, and
an input of every execution that starts from it and of every trial that has it in its chain, trained or reused.
Experiment `birdclef/sweeps`: one run per sweep, with its result and artifacts. An interrupted trial has the status SCHEDULED, because
it continues when the sweep is resumed. Experiment `birdclef/ensembles`: one run per ensemble; its inputs are the checkpoints that it has.
"""

import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, LoggedModelOutput, LoggedModelStatus, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from sweeps.tracking import mlflow_views as views
from sweeps.tracking.delivery import Denied, LoggedEvent, Rejected
from sweeps.tracking.events import (
    FRONT_TAG,
    OBJECTIVE,
    CheckpointUsed,
    EnsembleChosen,
    EpochFinished,
    Event,
    FrontFound,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)

_REFUSALS = {"BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "MALFORMED_REQUEST", "RESOURCE_DOES_NOT_EXIST"}
_NOT_KNOWN = {"UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}
_STAGE_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_TRIAL_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_NOTE = "mlflow.note.content"
_TAG_CHARACTERS = 8000
_PARAM_CHARACTERS = 6000
_NOT_IN_PARAM_NAMES = re.compile(r"[^\w.\- :/]")

_log = logging.getLogger(__name__)


@dataclass
class _Entries:
    """What will be written to one run with one call."""

    metrics: list[Metric] = field(default_factory=list)
    params: list[Param] = field(default_factory=list)
    tags: list[RunTag] = field(default_factory=list)


class MlflowSink:
    """A sink that writes events to an MLflow server; metrics, parameters and tags of many events need one call per run.

    `memory` is kept by the caller from one sink to the next. It holds ids of this server: `experiment/<name>`,
    `sweep/<name>`, `trial/<trial>`, `execution/<execution>`, `model/<stage_id>`, a trial's `open/` execution with its
    `open_stage/`, its `chain/` of models, the trials of the Pareto `front`, and the last epochs that were written.
    """

    def __init__(self, url: str, memory: dict[str, str], sweep_dir: Path) -> None:
        self._url = url
        self._client = MlflowClient(url)
        self._memory = memory
        self._sweep_dir = sweep_dir
        self._entries: dict[str, _Entries] = {}
        self._once_written: dict[str, str] = {}
        self._look_first = True

    def is_well(self) -> bool:
        self._client.search_experiments(max_results=1)
        return True

    def apply(self, events: Sequence[LoggedEvent], *, seen_before: bool) -> None:
        self._look_first = seen_before
        self._entries, self._once_written = {}, {}
        try:
            for event, time_ms in events:
                self._apply(event, time_ms)
            self._write_all()
            if any(isinstance(event, (SweepStarted, TrialFinished, SweepFinished)) for event, _ in events):
                views.save_views(self._client, self._experiment(self._search_experiment()), self._sweep(), events[-1][1])
        except MlflowException as error:
            if denial := _denial(error, [self._search_experiment(), views.SWEEPS_EXPERIMENT]):
                raise Denied(denial) from error
            if error.error_code in _REFUSALS:
                raise Rejected(str(error)) from error
            raise ConnectionError(f"{self._url}: {_reason(error)}") from error
        self._memory.update(self._once_written)

    def _apply(self, event: Event, time_ms: int) -> None:
        match event:
            case SweepStarted():
                self._sweep_started(event, time_ms)
            case TrialStarted():
                self._trial_started(event, time_ms)
            case StageStarted():
                self._stage_started(event, time_ms)
            case EpochFinished():
                self._epoch_finished(event)
            case StageFinished():
                self._stage_finished(event, time_ms)
            case CheckpointUsed():
                self._checkpoint_used(event, time_ms)
            case TrialFinished():
                self._trial_finished(event, time_ms)
            case FrontFound():
                self._mark_front(event.trials)
            case SweepFinished():
                self._sweep_finished(event, time_ms)
            case EnsembleChosen():
                self._ensemble_chosen(event, time_ms)

    # Events

    def _sweep_started(self, event: SweepStarted, time_ms: int) -> None:
        self._memory |= {"sweep": event.sweep, "search": event.search, "note": event.note}
        experiment_id = self._experiment(self._search_experiment())
        tags = {**event.tags, "birdclef.search": event.search, "birdclef.experiment_id": experiment_id, _NOTE: event.note}
        self._run("sweep", event.sweep, views.SWEEPS_EXPERIMENT, time_ms, name=event.sweep, tags=tags)
        self._describe_experiment("running", "")

    def _trial_started(self, event: TrialStarted, time_ms: int) -> None:
        run_id = self._run("trial", event.trial, self._search_experiment(), time_ms, name=event.trial, tags={})
        self._enter(run_id, params=event.params, tags={**event.tags, "birdclef.status": "running"})

    def _stage_started(self, event: StageStarted, time_ms: int) -> None:
        trial_run = self._known("trial", event.trial)
        tags = {"mlflow.parentRunId": trial_run, "birdclef.trial": event.trial, "birdclef.stage": event.stage}
        run_id = self._run("execution", event.execution, self._search_experiment(), time_ms, name=event.stage, tags=tags)
        if self._memory.get(f"open/{event.trial}") != run_id:
            self._end_open(event.trial, time_ms)
        self._memory |= {f"open/{event.trial}": run_id, f"open_stage/{event.trial}": event.stage}
        self._enter(run_id, params=event.params, tags=event.tags)
        if event.starts_from:
            self._enter(run_id, tags={"birdclef.starts_from": event.starts_from})
            if model_id := self._find_model(event.starts_from):
                self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])

    def _end_open(self, trial: str, time_ms: int) -> None:
        """End an execution that a crash interrupted and that no trial will continue."""
        if run_id := self._memory.pop(f"open/{trial}", None):
            self._enter(run_id, tags={"birdclef.status": "stopped"})
            self._end(run_id, _STAGE_STATUS["stopped"], time_ms)

    def _epoch_finished(self, event: EpochFinished) -> None:
        epoch_key = f"epoch/{event.execution}"
        stage_run, trial_run = self._known("execution", event.execution), self._known("trial", event.trial)
        if event.epoch <= int(self._last(epoch_key, "-1")):
            return
        time_ms = round(event.time_s * 1000)
        self._enter(stage_run, metrics=event.metrics, step=event.epoch, time_ms=time_ms)
        self._enter(trial_run, metrics=event.metrics, step=event.trial_epoch, time_ms=time_ms)
        self._once_written |= {epoch_key: str(event.epoch), f"trial_epoch/{event.trial}": str(event.trial_epoch)}
        self._memory["per_epoch"] = "\n".join(sorted({*self._per_epoch(), *event.metrics}))

    def _stage_finished(self, event: StageFinished, time_ms: int) -> None:
        run_id = self._known("execution", event.execution)
        step = int(self._last(f"epoch/{event.execution}", "0"))
        tags = {"birdclef.stage_id": event.stage_id, "birdclef.status": event.status}
        model_id = None
        if event.status == "finished":
            tags["birdclef.checkpoint_uri"] = event.checkpoint_uri
            model_id = self._link_output(event, run_id, step)
        self._enter(run_id, metrics=event.metrics, step=step, time_ms=time_ms, model_id=model_id, tags=tags)
        self._memory.pop(f"open/{event.trial}", None)
        self._end(run_id, _STAGE_STATUS[event.status], time_ms, event.artifacts)

    def _link_output(self, event: StageFinished, run_id: str, step: int) -> str:
        """Make the checkpoint a model, an output of its execution and an input of its trial; return the model's id."""
        self._write(run_id)
        run = self._client.get_run(run_id)
        model_id = self._find_model(event.stage_id) or self._create_model(
            event.stage_id, run.data.tags["birdclef.stage"], event.checkpoint_uri, source=run
        )
        if run.outputs is None or model_id not in {output.model_id for output in run.outputs.model_outputs}:
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
        self._link_to_trial(event.trial, model_id)
        return model_id

    def _link_to_trial(self, trial: str, model_id: str) -> None:
        """Make a checkpoint of the trial's chain, trained or reused, an input of the trial."""
        self._client.log_inputs(self._known("trial", trial), models=[LoggedModelInput(model_id)])
        self._memory[f"chain/{trial}"] = " ".join({**dict.fromkeys(self._chain(trial)), model_id: None})

    def _checkpoint_used(self, event: CheckpointUsed, time_ms: int) -> None:
        model_id = self._find_model(event.stage_id) or self._create_model(
            event.stage_id, event.stage or "checkpoint", event.checkpoint_uri, source=None
        )
        self._link_to_trial(event.trial, model_id)
        self._enter_last_metrics(event.trial, event.metrics, time_ms)
        if (
            self._memory.get(f"open_stage/{event.trial}") == event.stage
        ):  # another trial has finished the stage that this one had begun
            self._end_open(event.trial, time_ms)

    def _trial_finished(self, event: TrialFinished, time_ms: int) -> None:
        run_id = self._known("trial", event.trial)
        self._enter_last_metrics(event.trial, event.metrics, time_ms)
        if OBJECTIVE in event.metrics:
            # MLflow lists on a model's page the runs that have a metric for it: so the trials that use a checkpoint are found there.
            for model_id in self._chain(event.trial):
                self._enter(run_id, metrics={OBJECTIVE: event.metrics[OBJECTIVE]}, time_ms=time_ms, model_id=model_id)
        self._enter(run_id, tags={**event.tags, "birdclef.status": event.status, _NOTE: event.reason})
        if event.status == "interrupted":
            open_stage = self._memory.get(f"open/{event.trial}")
            for interrupted in (run_id, open_stage) if open_stage else (run_id,):
                self._client.update_run(interrupted, status="SCHEDULED")
        else:
            self._end_open(event.trial, time_ms)
            self._end(run_id, _TRIAL_STATUS[event.status], time_ms, event.artifacts)

    def _sweep_finished(self, event: SweepFinished, time_ms: int) -> None:
        run_id = self._known("sweep", self._sweep())
        note = f"{self._memory['note']}\n\n{event.table_markdown}"
        self._enter(run_id, tags={"birdclef.status": event.status, _NOTE: note})
        self._end(run_id, "FINISHED" if event.status == "finished" else "KILLED", time_ms, event.artifacts)
        self._describe_experiment(event.status, event.table_markdown)

    def _mark_front(self, trials: Sequence[str]) -> None:
        """Tag the trials of the Pareto front, and take the tag back from those that were on it when the sweep ended before."""
        before = self._last("front", "").split()
        for trial in dict.fromkeys([*before, *trials]):
            if run_id := self._memory.get(f"trial/{trial}"):  # this server may not have all trials of an extended sweep
                self._enter(run_id, tags={FRONT_TAG: "true" if trial in trials else "false"})
        self._once_written["front"] = " ".join(trials)

    def _ensemble_chosen(self, event: EnsembleChosen, time_ms: int) -> None:
        self._memory |= {"sweep": event.sweep, "search": event.search}
        tags = {**event.tags, _NOTE: event.note}
        run_id = self._run("ensemble", event.ensemble, views.ENSEMBLES_EXPERIMENT, time_ms, name=event.name, tags=tags)
        for stage_id, stage in event.stages.items():
            model_id = self._find_model(stage_id) or self._create_model(
                stage_id, stage, event.checkpoint_uris[stage_id], source=None
            )
            self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
        self._enter(run_id, metrics=event.metrics, time_ms=time_ms, params=event.params)
        self._end(run_id, "FINISHED", time_ms, event.artifacts)

    # Runs

    def _run(self, kind: str, key: str, experiment: str, time_ms: int, *, name: str, tags: Mapping[str, str]) -> str:
        """Return the run of a sweep, trial or execution: remembered, found by its tags, or created. Its status is RUNNING afterwards."""
        memory_key = f"{kind}/{key}"
        identity = {"birdclef.sweep": self._sweep(), f"birdclef.{kind}": key, "birdclef.kind": kind}
        experiment_id = self._experiment(experiment)
        if memory_key not in self._memory and self._look_first:
            query = " and ".join(views.equals(f"tags.`{tag}`", value) for tag, value in identity.items())
            if found := self._client.search_runs([experiment_id], query, max_results=1):
                self._memory[memory_key] = found[0].info.run_id
        if memory_key in self._memory:
            self._client.update_run(self._memory[memory_key], status="RUNNING")
        else:
            all_tags = {name: value[:_TAG_CHARACTERS] for name, value in {**tags, **identity}.items()}
            run = self._client.create_run(experiment_id, start_time=time_ms, tags=all_tags, run_name=name)
            self._memory[memory_key] = run.info.run_id
        return self._memory[memory_key]

    def _enter(
        self,
        run_id: str,
        *,
        metrics: Mapping[str, float] | None = None,
        step: int = 0,
        time_ms: int = 0,
        model_id: str | None = None,
        params: Mapping[str, str | int | float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add to what will be written to a run. A metric that is not finite becomes a tag, because MLflow would draw it as 1e308."""
        entries = self._entries.setdefault(run_id, _Entries())
        for name, value in (metrics or {}).items():
            if math.isfinite(value):
                entries.metrics.append(Metric(name, value, time_ms, step, model_id=model_id))
            else:
                entries.tags.append(RunTag(f"birdclef.not_finite.{name}", f"{value} at step {step}"))
        entries.params += [Param(_param_name(name), str(value)[:_PARAM_CHARACTERS]) for name, value in (params or {}).items()]
        entries.tags += [RunTag(name, str(value)[:_TAG_CHARACTERS]) for name, value in (tags or {}).items()]

    def _enter_last_metrics(self, trial: str, metrics: Mapping[str, float], time_ms: int) -> None:
        """Add a trial's metrics at its last epoch. A metric that no epoch has gets step 0, so that MLflow draws it as a bar."""
        step = int(self._last(f"trial_epoch/{trial}", "0"))
        for name, value in metrics.items():
            at = step if name in self._per_epoch() else 0
            self._enter(self._known("trial", trial), metrics={name: value}, step=at, time_ms=time_ms)

    def _write(self, run_id: str) -> None:
        if entries := self._entries.pop(run_id, None):
            self._client.log_batch(run_id, entries.metrics, entries.params, entries.tags)

    def _write_all(self) -> None:
        for run_id in list(self._entries):
            self._write(run_id)

    def _end(self, run_id: str, status: str, time_ms: int, artifacts: str | None = None) -> None:
        """End a run, then upload its folder: a failed upload affects nothing else."""
        path = self._sweep_dir / artifacts if artifacts else None
        if path and not path.is_dir():
            _log.warning("The folder %s with pictures and tables no longer exists, so MLflow does not get them.", path)
            self._enter(run_id, tags={"birdclef.artifacts_missing": str(path)})
            path = None
        self._write(run_id)
        self._client.set_terminated(run_id, status, end_time=time_ms)
        if path:
            # client.log_artifacts remembers the address of the server that a run was first uploaded to, so it is not used.
            uri = self._client.get_run(run_id).info.artifact_uri
            get_artifact_repository(uri, tracking_uri=self._url).log_artifacts(str(path))

    # Checkpoints

    def _find_model(self, stage_id: str) -> str | None:
        """Return the id of a checkpoint's model, which is in the experiment of the search that came first; None if there is none."""
        key = f"model/{stage_id}"
        if key not in self._memory:
            experiments = self._client.search_experiments(filter_string=f"name LIKE '{views.EXPERIMENT_PREFIX}%'")
            found = self._client.search_logged_models(
                [experiment.experiment_id for experiment in experiments],
                filter_string=views.equals("tags.`birdclef.stage_id`", stage_id),
                max_results=1,
            )
            if found:
                self._memory[key] = found[0].model_id
        return self._memory.get(key)

    def _create_model(self, stage_id: str, stage: str, checkpoint_uri: str, source: Run | None) -> str:
        """Create an external model and return its id, as mlflow.create_external_model does but without its global state.

        The weights stay in the stage store.
        """
        model = self._client.create_logged_model(
            self._experiment(self._search_experiment()),
            name=f"{stage}-{stage_id[:8]}",
            source_run_id=source.info.run_id if source else None,
            tags={
                "birdclef.stage_id": stage_id,
                "birdclef.checkpoint_uri": checkpoint_uri,
                "birdclef.sweep": self._sweep(),
                "mlflow.model.isExternal": "true",
                _NOTE: f"Weights: `{checkpoint_uri}`\n\nstage_id: `{stage_id}`",
            },
            params=source.data.params if source else {},
            model_type="checkpoint",
        )
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self._memory[f"model/{stage_id}"] = model.model_id
        return model.model_id

    # Experiments

    def _experiment(self, name: str) -> str:
        key = f"experiment/{name}"
        if key not in self._memory:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                self._memory[key] = _create_experiment(self._client, name)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._memory[key] = found.experiment_id
        return self._memory[key]

    def _describe_experiment(self, status: str, table_markdown: str) -> None:
        experiment_id = self._experiment(self._search_experiment())
        old = self._client.get_experiment(experiment_id).tags.get(_NOTE, "")
        note = views.describe_experiment(
            old,
            sweep=self._sweep(),
            status=status,
            trials_id=experiment_id,
            sweep_run=(self._experiment(views.SWEEPS_EXPERIMENT), self._known("sweep", self._sweep())),
            body=f"{self._memory['note']}\n\n{table_markdown}",
        )
        self._client.set_experiment_tag(experiment_id, _NOTE, note)

    # Memory

    def _sweep(self) -> str:
        return self._recalled("sweep", "SweepStarted")

    def _search_experiment(self) -> str:
        return views.EXPERIMENT_PREFIX + self._recalled("search", "SweepStarted")

    def _known(self, kind: str, key: str) -> str:
        return self._recalled(f"{kind}/{key}", f"the start of the {kind}")

    def _recalled(self, key: str, event: str) -> str:
        """Return what the server calls a thing. Raises Rejected when the event that creates it has not been delivered."""
        if key not in self._memory:
            raise Rejected(f"{event} must be recorded first, but {key!r} is unknown.")
        return self._memory[key]

    def _chain(self, trial: str) -> list[str]:
        """Return the ids of the models of the checkpoints that a trial has trained or reused so far."""
        return self._memory.get(f"chain/{trial}", "").split()

    def _per_epoch(self) -> set[str]:
        """Return the names of the metrics that epochs have."""
        return set(self._memory.get("per_epoch", "").splitlines())

    def _last(self, key: str, default: str) -> str:
        return self._once_written.get(key) or self._memory.get(key, default)


def check_access(url: str, search: str, sweep: str) -> None:
    """Find out whether a sweep's events will be taken: the server must know the user, who must be allowed to change both experiments.

    Creates the experiments that do not exist, and writes a tag into each. Raises Denied; a server that is away is asked again later.
    """
    client = MlflowClient(url)
    for name in (views.EXPERIMENT_PREFIX + search, views.SWEEPS_EXPERIMENT):
        try:
            found = client.get_experiment_by_name(name)
            experiment_id = found.experiment_id if found else _create_experiment(client, name)
            client.set_experiment_tag(experiment_id, "birdclef.last_sweep", sweep)
        except MlflowException as error:
            if denial := _denial(error, [name]):
                raise Denied(denial) from error


def _create_experiment(client: MlflowClient, name: str) -> str:
    try:
        # The kind opens it in the layout for training instead of that for generative AI.
        return client.create_experiment(name, tags={"mlflow.experimentKind": "custom_model_development"})
    except MlflowException as error:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise error
        return found.experiment_id  # another sweep was faster


def _denial(error: MlflowException, experiments: Sequence[str]) -> str:
    """Return what the user lacks, if the server refuses the user; else an empty text."""
    user = os.environ.get("MLFLOW_TRACKING_USERNAME", "")
    if error.error_code in _NOT_KNOWN:
        who = f"user {user!r} or the password is wrong" if user else "it asks for a user and a password, and none is given"
        return (
            f"{who} (401). They are read from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or from ~/.mlflow/credentials"
        )
    if error.error_code != "PERMISSION_DENIED":
        return ""
    if "Host header" in str(error):
        return f"{_reason(error)} (403): its --allowed-hosts must have the host of --tracking-uri"
    names = " and ".join(repr(name) for name in experiments)
    return (
        f"user {user!r} needs the right EDIT on the experiment {names} (403), because another user has made it. Its owner or an "
        "administrator can give it (mlflow/README.md)"
    )


def _param_name(name: str) -> str:
    """The name of a parameter as MLflow takes it: `train.noise.*.prob` is `train.noise.all.prob` there."""
    return _NOT_IN_PARAM_NAMES.sub("_", name.replace("*", "all"))


def describe(error: MlflowException) -> str:
    """Return why the server did not do what it was asked for, in one line."""
    return _denial(error, [views.SWEEPS_EXPERIMENT]) or _reason(error)


def _reason(error: MlflowException) -> str:
    """Return the reason at the end of MLflow's long message about a server that cannot be reached; else the message's beginning."""
    message = str(error)
    return re.sub(r"['\"]\)+$", "", message.rpartition(": ")[2]) if "Caused by" in message else message[:300]
