"""Writes the events of a sweep to an MLflow server; the only file that imports mlflow when it runs.

Experiment `birdclef/<search>`: each trial is a top-level run, because MLflow's comparison page shows no others, and each execution
of a stage is a run below the trial that trained it. A checkpoint is an external model: an output of the execution that made it, and
an input of every execution that starts from it and of every trial that has it in its chain, trained or reused.
Experiment `birdclef/sweeps`: one run per sweep, with its result and artifacts. An interrupted trial has the status SCHEDULED, because
it continues when the sweep is resumed. Experiment `birdclef/ensembles`: one run per ensemble; its inputs are the checkpoints that it has.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

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
    part_of,
)
from sweeps.tracking.to_mlflow.checkpoints import Checkpoints
from sweeps.tracking.to_mlflow.outbox import TAG_CHARACTERS, Outbox, param_name
from sweeps.tracking.to_mlflow.refusals import denial_of, meaning

_STAGE_STATUS = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_TRIAL_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
_NOTE = "mlflow.note.content"
_VIEWS_EVERY_S = 60.0
"""The views that compare trials are made anew at most this often: each time, two hundred trials are read."""

_log = logging.getLogger(__name__)


class MlflowSink:
    """A sink that writes events to an MLflow server, as few requests as a batch of events allows.

    What needs an answer comes first, for all events of the batch and several requests at a time: runs are created, and the models of
    checkpoints found or created. Then the events are gone through in order, which only collects what each run gets, and that is sent.

    `memory` is kept by the caller from one sink to the next. It holds ids of this server: `experiment/<name>`,
    `sweep/<name>`, `trial/<trial>`, `execution/<execution>`, `model/<stage_id>`, a trial's `open/` execution with its
    `open_stage/`, its `chain/` of models, the trials of the Pareto `front`, and the last epochs that were written.
    """

    def __init__(self, url: str, memory: dict[str, str], sweep_dir: Path, threads: int = 1) -> None:
        """`threads`: how many requests are under way at the same time; a local server, which shares the trials' CPUs, gets one."""
        self._url = url
        self._client = MlflowClient(url)
        self._memory = memory
        self._sweep_dir = sweep_dir
        self._outbox = Outbox(self._client, url, threads)
        self._checkpoints = Checkpoints(self._client, memory)
        self._started: dict[str, StageStarted] = {}
        """The executions that this process has seen to start, and not to end."""
        self._once_written: dict[str, str] = {}
        self._created: set[str] = set()
        """Keys of the runs that this batch has created: they run already."""
        self._look_first = True
        self._views_due, self._views_at = False, 0.0

    @property
    def rest(self) -> Callable[[float], object]:
        return self._outbox.rest

    @rest.setter
    def rest(self, rest: Callable[[float], object]) -> None:
        self._outbox.rest = rest

    @property
    def steps(self) -> int:
        return self._outbox.steps

    def is_well(self) -> bool:
        self._client.search_experiments(max_results=1)
        return True

    def apply(self, events: Sequence[LoggedEvent], *, seen_before: bool) -> None:
        self._look_first, self._once_written, self._created = seen_before, {}, set()
        self._outbox.clear()
        self._checkpoints.look_again()
        try:
            self._prepare(events)
            for event, time_ms in events:
                self._apply(event, time_ms)
            self._outbox.send(look_first=seen_before)
            self._save_views([event for event, _ in events], events[-1][1])
        except MlflowException as error:
            raise meaning(error, self._url, [self._search_experiment(), views.SWEEPS_EXPERIMENT]) from error
        self._memory.update(self._once_written)

    def _save_views(self, events: Sequence[Event], time_ms: int) -> None:
        """Make the views of the sweep anew if trials have ended, at the sweep's start and end at once."""
        at_once = any(isinstance(event, (SweepStarted, SweepFinished)) for event in events)
        self._views_due |= at_once or any(isinstance(event, TrialFinished) for event in events)
        if self._views_due and (at_once or time.monotonic() - self._views_at > _VIEWS_EVERY_S):
            views.save_views(self._client, self._experiment(self._search_experiment()), self._sweep(), time_ms)
            self._views_due, self._views_at = False, time.monotonic()

    def _prepare(self, events: Sequence[LoggedEvent]) -> None:
        """Create the runs of the trials and executions that start, and find or create the models of checkpoints.

        The sweep itself comes first, because all of them need its name.
        """
        for event, time_ms in events if "search" not in self._memory else ():
            if isinstance(event, SweepStarted):
                self._sweep_started(event, time_ms)
        if "search" not in self._memory:
            return
        trials = {event.trial: (event, time_ms) for event, time_ms in events[::-1] if isinstance(event, TrialStarted)}
        executions = {event.execution: (event, time_ms) for event, time_ms in events[::-1] if isinstance(event, StageStarted)}
        used = {event.stage_id: event for event, _ in events if isinstance(event, CheckpointUsed)}
        made = {event.stage_id: event for event, _ in events if isinstance(event, StageFinished) and event.status == "finished"}
        starts = {stage_id for event, _ in executions.values() for stage_id in event.inputs}
        if trials or executions:
            self._experiment(self._search_experiment())  # once, before several threads need it
        self._outbox.at_once(lambda item: self._trial_run(*item), trials.values())
        known = [(event, time_ms) for event, time_ms in executions.values() if f"trial/{event.trial}" in self._memory]
        self._outbox.at_once(lambda item: self._execution_run(*item), known)
        if unknown := [stage_id for stage_id in {*used, *made, *starts} if f"model/{stage_id}" not in self._memory]:
            self._checkpoints.experiments()
            self._outbox.at_once(self._checkpoints.find, unknown)
        run_of = {event.execution: self._memory.get(f"execution/{event.execution}") for event in made.values()}
        self._outbox.at_once(self._made_checkpoint, [event for event in made.values() if run_of[event.execution]])
        self._outbox.at_once(self._used_checkpoint, [event for stage_id, event in used.items() if stage_id not in made])

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
        run_id = self._trial_run(event, time_ms)
        self._outbox.enter(run_id, params=event.params, tags={**event.tags, "birdclef.status": "running"})

    def _stage_started(self, event: StageStarted, time_ms: int) -> None:
        run_id = self._execution_run(event, time_ms)
        if self._memory.get(f"open/{event.trial}") != run_id:
            self._end_open(event.trial, time_ms)
        self._memory |= {f"open/{event.trial}": run_id, f"open_stage/{event.trial}": event.stage}
        self._outbox.enter(run_id, params=event.params, tags=event.tags)
        if event.starts_from:
            self._outbox.enter(run_id, tags={"birdclef.starts_from": event.starts_from})
        for stage_id in event.inputs:
            if model_id := self._checkpoints.find(stage_id):
                self._outbox.use(run_id, model_id)

    def _end_open(self, trial: str, time_ms: int) -> None:
        """End an execution that a crash interrupted and that no trial will continue."""
        if run_id := self._memory.pop(f"open/{trial}", None):
            self._outbox.enter(run_id, tags={"birdclef.status": "stopped"})
            self._end(run_id, _STAGE_STATUS["stopped"], time_ms)

    def _epoch_finished(self, event: EpochFinished) -> None:
        epoch_key = f"epoch/{event.execution}"
        stage_run, trial_run = self._known("execution", event.execution), self._known("trial", event.trial)
        if event.epoch <= self._last_point(epoch_key)[0]:
            return
        time_ms = round(event.time_s * 1000)
        self._outbox.enter(stage_run, metrics=event.metrics, step=event.epoch, time_ms=time_ms)
        self._outbox.enter(trial_run, metrics=event.metrics, step=event.trial_epoch, time_ms=time_ms)
        self._once_written |= {epoch_key: f"{event.epoch} {time_ms}", f"trial_epoch/{event.trial}": str(event.trial_epoch)}
        self._memory["per_epoch"] = "\n".join(sorted({*self._per_epoch(), *event.metrics}))

    def _stage_finished(self, event: StageFinished, time_ms: int) -> None:
        run_id = self._known("execution", event.execution)
        # The same points as those of the last epoch, of which MLflow keeps one, here with the checkpoint that they are the scores of.
        step, at_ms = self._last_point(f"epoch/{event.execution}", time_ms)
        tags = {"birdclef.stage_id": event.stage_id, "birdclef.status": event.status}
        model_id = None
        if event.status == "finished":
            tags["birdclef.checkpoint_uri"] = event.checkpoint_uri
            model_id = self._made_checkpoint(event)
            self._outbox.make(run_id, model_id, step)
            self._link_to_trial(event.trial, model_id)
        self._outbox.enter(run_id, metrics=event.metrics, step=step, time_ms=at_ms, model_id=model_id, tags=tags)
        self._memory.pop(f"open/{event.trial}", None)
        self._started.pop(event.execution, None)
        self._end(run_id, _STAGE_STATUS[event.status], time_ms, event.artifacts)

    def _made_checkpoint(self, event: StageFinished) -> str:
        """Return the id of the model of a checkpoint that an execution has made."""
        if model_id := self._checkpoints.find(event.stage_id):
            return model_id
        run_id = self._known("execution", event.execution)
        if (started := self._started.get(event.execution)) is not None:
            stage, params = started.stage, {param_name(name): str(value) for name, value in started.params.items()}
        else:
            data = self._client.get_run(run_id).data  # another process has seen it start
            stage, params = data.tags["birdclef.stage"], data.params
        return self._create_model(event.stage_id, stage, event.checkpoint_uri, run_id, params)

    def _used_checkpoint(self, event: CheckpointUsed) -> str:
        return self._checkpoints.find(event.stage_id) or self._create_model(
            event.stage_id, event.stage or "checkpoint", event.checkpoint_uri
        )

    def _create_model(
        self, stage_id: str, stage: str, uri: str, source_run: str | None = None, params: Mapping[str, str] | None = None
    ) -> str:
        experiment_id, sweep = self._experiment(self._search_experiment()), self._sweep()
        return self._checkpoints.create(
            stage_id, stage, uri, experiment_id=experiment_id, sweep=sweep, source_run=source_run, params=params
        )

    def _link_to_trial(self, trial: str, model_id: str) -> None:
        """Make a checkpoint of the trial's chain, trained or reused, an input of the trial."""
        self._outbox.use(self._known("trial", trial), model_id)
        self._memory[f"chain/{trial}"] = " ".join({**dict.fromkeys(self._chain(trial)), model_id: None})

    def _checkpoint_used(self, event: CheckpointUsed, time_ms: int) -> None:
        self._link_to_trial(event.trial, self._used_checkpoint(event))
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
                self._outbox.enter(run_id, metrics={OBJECTIVE: event.metrics[OBJECTIVE]}, time_ms=time_ms, model_id=model_id)
        self._outbox.enter(run_id, tags={**event.tags, "birdclef.status": event.status, _NOTE: event.reason})
        if event.status == "interrupted":
            open_stage = self._memory.get(f"open/{event.trial}")
            for interrupted in (run_id, open_stage) if open_stage else (run_id,):
                self._outbox.set_status(interrupted, "SCHEDULED")
        else:
            self._end_open(event.trial, time_ms)
            self._end(run_id, _TRIAL_STATUS[event.status], time_ms, event.artifacts)

    def _sweep_finished(self, event: SweepFinished, time_ms: int) -> None:
        run_id = self._known("sweep", self._sweep())
        note = f"{self._memory['note']}\n\n{event.table_markdown}"
        self._outbox.enter(run_id, tags={"birdclef.status": event.status, _NOTE: note})
        self._end(run_id, "FINISHED" if event.status == "finished" else "KILLED", time_ms, event.artifacts)
        self._describe_experiment(event.status, event.table_markdown)

    def _mark_front(self, trials: Sequence[str]) -> None:
        """Tag the trials of the Pareto front, and take the tag back from those that were on it when the sweep ended before."""
        before = self._last("front", "").split()
        for trial in dict.fromkeys([*before, *trials]):
            if run_id := self._memory.get(f"trial/{trial}"):  # this server may not have all trials of an extended sweep
                self._outbox.enter(run_id, tags={FRONT_TAG: "true" if trial in trials else "false"})
        self._once_written["front"] = " ".join(trials)

    def _ensemble_chosen(self, event: EnsembleChosen, time_ms: int) -> None:
        self._memory |= {"sweep": event.sweep, "search": event.search}
        tags = {**event.tags, _NOTE: event.note}
        run_id = self._run("ensemble", event.ensemble, views.ENSEMBLES_EXPERIMENT, time_ms, name=event.name, tags=tags)
        for stage_id, stage in event.stages.items():
            model_id = self._checkpoints.find(stage_id) or self._create_model(stage_id, stage, event.checkpoint_uris[stage_id])
            self._outbox.use(run_id, model_id)
        self._outbox.enter(run_id, metrics=event.metrics, time_ms=time_ms, params=event.params)
        self._end(run_id, "FINISHED", time_ms, event.artifacts)

    # Runs

    def _trial_run(self, event: TrialStarted, time_ms: int) -> str:
        return self._run("trial", event.trial, self._search_experiment(), time_ms, name=event.trial, tags={})

    def _execution_run(self, event: StageStarted, time_ms: int) -> str:
        trial_run = self._known("trial", event.trial)
        self._started[event.execution] = event
        tags = {"mlflow.parentRunId": trial_run, "birdclef.trial": event.trial, "birdclef.stage": event.stage}
        return self._run("execution", event.execution, self._search_experiment(), time_ms, name=event.stage, tags=tags)

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
            if memory_key not in self._created:
                self._outbox.set_status(self._memory[memory_key], "RUNNING")
        else:
            all_tags = {name: value[:TAG_CHARACTERS] for name, value in {**tags, **identity}.items()}
            run = self._client.create_run(experiment_id, start_time=time_ms, tags=all_tags, run_name=name)
            self._memory[memory_key] = run.info.run_id
            self._outbox.artifact_uris[run.info.run_id] = run.info.artifact_uri
            self._created.add(memory_key)
        return self._memory[memory_key]

    def _enter_last_metrics(self, trial: str, metrics: Mapping[str, float], time_ms: int) -> None:
        """Add a trial's metrics at its last epoch. A metric that no epoch has gets step 0, so that MLflow draws it as a bar."""
        step = int(self._last(f"trial_epoch/{trial}", "0"))
        for name, value in metrics.items():
            at = step if name in self._per_epoch() else 0
            self._outbox.enter(self._known("trial", trial), metrics={name: value}, step=at, time_ms=time_ms)

    def _end(self, run_id: str, status: str, time_ms: int, artifacts: str | None = None) -> None:
        """End a run, then upload its folder."""
        path = self._sweep_dir / artifacts if artifacts else None
        if path and not (path.is_dir() or part_of(path).is_dir()):
            _log.warning("The folder %s with pictures and tables no longer exists, so MLflow does not get them.", path)
            self._outbox.enter(run_id, tags={"birdclef.artifacts_missing": str(path)})
            path = None
        self._outbox.end(run_id, status, time_ms, path)

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

    def _last_point(self, key: str, time_ms: int = 0) -> tuple[int, int]:
        """Return step and Unix time in ms of the last epoch that was written; 0 and `time_ms` if there was none."""
        step, _, at_ms = self._last(key, "0").partition(" ")
        return int(step), int(at_ms or time_ms)

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
            if denial := denial_of(error, [name]):
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
