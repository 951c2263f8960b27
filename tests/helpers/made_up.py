"""A sweep without training: made-up scores through the real chains, sampler, coordinator and store."""

import math
import random
from dataclasses import replace

from birdclef_core.config import Recipe
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import predictions, sed_b3ns, sed_v2s, small_budget
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageRecord
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import StageSummary
from birdclef_core.taxonomy import LabelSpace
from birdclef_core.teacher_config import TeacherConfig
from sweeps.plan.simulate import SimulatedStore, SimulatedView, even_score
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.records import SweepRecords
from sweeps.schedule.trial_log.writer import RecordWriter
from sweeps.schedule.trials import Trial, TrialBook
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import ChainBuilder
from sweeps.search.space import Choice, Range, Search


def make_search(pools=None) -> Search:
    return Search(
        name="made-up",
        recipes=(small_budget(sed_v2s()), small_budget(sed_b3ns())),
        space={
            "pretrain_ce.learning_rate": Range(1e-4, 1e-2, log=True),
            "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
            "train.clip_s": Choice((3.0, 5.0)),
        },
        pools={"pretrain": 2} if pools is None else pools,
        sampler="tpe",
    )


def make_students() -> Search:
    """Eight students of two teachers, whose predictions are a stage."""
    first = sed_v2s().stages[2]
    stages = (
        replace(first, name="train", epochs=4),
        predictions("labels", of="train"),
        replace(first, name="student", starts_from="first_weights", epochs=2, teacher=TeacherConfig(predictions="labels")),
    )
    space = {
        "train.learning_rate": Choice((1e-4, 1e-3)),
        "student.teacher.power": Choice((1.0, 2.0)),
        "student.teacher.threshold": Choice((0.1, 0.3)),
    }
    recipe = Recipe(name="noisy", model=sed_v2s().model, stages=stages)
    return Search(name="students", recipes=(recipe,), space=space, sampler="grid")


def make_chain_builder(search: Search | None = None, **changes) -> ChainBuilder:
    search = search or make_search()
    chains = ChainBuilder(
        search=search,
        seed=0,
        pretrained={recipe.model.encoder: RANDOM for recipe in search.recipes},
        all_species=LabelSpace.of("all", "abcd"),
        target_species=LabelSpace.of("target", "ab"),
        data_fingerprint="data",
        code_version="code",
    )
    return replace(chains, **changes)


def chains_on(recipe: Recipe, data: TrainingData, **changes) -> ChainBuilder:
    """What makes the chains of one recipe on recordings that can be trained on; `changes` replace fields of it."""
    dataset = data.dataset
    known = {
        "all_species": dataset.all_species,
        "target_species": dataset.target_species,
        "data_fingerprint": dataset.fingerprint,
    }
    return make_chain_builder(Search(name="tiny", recipes=(recipe,), space={}), **{**known, **changes})


def make_coordinator(
    folder, chains=None, *, store=None, sweep="sweep", samples=12, max_running=2, observers=(), prunes=True, stops_by_worth=False
) -> Coordinator:
    records = RecordWriter(SweepRecords(Storage.parse(str(folder)).at(sweep)))
    view = SimulatedView(SimulatedStore() if store is None else store, sweep)
    book = TrialBook(records, view)
    pruning = StageHalving() if prunes else StageHalving(grace=math.inf)
    chains = chains or make_chain_builder()
    return Coordinator(
        chains,
        book,
        samples=samples,
        max_running=max_running,
        observers=observers,
        pruning=pruning,
        stops_by_worth=stops_by_worth,
    )


def view_of(coordinator: Coordinator) -> SimulatedView:
    """What a made-up coordinator sees of its store."""
    return coordinator.book._queue._view


def summary_of(task: StageTask, **changes) -> StageSummary:
    """As a store would have it of the stage, had somebody trained it."""
    record = StageRecord(
        stage_id=task.stage_id,
        parent_id=task.parent_id,
        recipe=task.recipe,
        stage=task.config.name,
        identity={**task.identity, **changes},
        species=["a"],
        metrics={"cmap": 0.5, "cmap_se": 0.01},
        history=[],
        cost_s=1.0,
        surgery="",
        environment={},
        finished_at="2026-11-22T12:00:00+00:00",
    )
    return record.summary(1000)


class MadeUpWorkers:
    """Runs what a coordinator hands out, one epoch of one random worker at a time, and counts what was executed."""

    def __init__(self, coordinator: Coordinator, seed: int = 0, published: set[str] | None = None) -> None:
        """`published`: ids of the stages that are in the store; None: those that the coordinator's made-up store has."""
        self.coordinator = coordinator
        self.published = view_of(coordinator).store.published if published is None else published
        self.random = random.Random(seed)
        self.executed: list[str] = []
        """stage_id of every stage that was trained to its end."""
        self.epochs = 0
        self.running: dict[str, list[TrialUpdate]] = {}
        self.fail_stage = ""
        """A stage name whose training fails."""

    def fill(self) -> None:
        while (planned := self.coordinator.next_trial()) is not None:
            self.running[planned.record.trial] = self.updates(planned)

    def updates(self, planned: Trial) -> list[TrialUpdate]:
        """What the trial would update, had every stage been published that is; the last first."""
        updates = []
        for index, task in enumerate(planned.chain):
            epochs = task.config.epochs
            reused = task.stage_id in self.published
            for epoch in [epochs] if reused else range(1, epochs + 1):
                score = even_score(task, epoch)
                updates.append(
                    TrialUpdate(
                        kind="reused" if reused else "epoch",
                        stage=task.name,
                        stage_index=index,
                        stage_id=task.stage_id,
                        epoch=epoch,
                        epochs=epochs,
                        score=score,
                        metrics={"val/cmap": score},
                        cost_s=1.0,
                        done=index == len(planned.chain) - 1 and epoch == epochs,
                    )
                )
        return updates[::-1]

    def step(self) -> bool:
        """One update of one running trial; False when nothing runs."""
        self.fill()
        if not self.running:
            return False
        trial = self.random.choice(sorted(self.running))
        update = self.running[trial].pop()
        if update.stage == self.fail_stage:
            update = replace(update, kind="failed", done=True, message="made to fail", score=float("nan"))
        if update.kind == "epoch":
            self.epochs += 1
            if update.stage_done:
                self.executed.append(update.stage_id)
                self.published.add(update.stage_id)
        if not self.coordinator.update(trial, update):
            del self.running[trial]
        return True

    def run(self) -> None:
        while self.step():
            pass
