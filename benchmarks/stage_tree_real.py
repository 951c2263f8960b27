"""Run a real sweep on the demo set twice: with stages shared between trials, and with every trial training its complete chain."""

import math
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ray import cloudpickle
from rich.console import Console

from birdclef_core.demo.demo_set import make_demo
from birdclef_core.identity import fingerprint
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.options import SweepOptions
from sweeps.run import runner
from sweeps.schedule.coordinator import Coordinator, Trial
from sweeps.schedule.pruning import StageHalving
from sweeps.schedule.records import TrialRecord
from sweeps.schedule.update import TrialUpdate
from sweeps.search.chains import Chain, ChainBuilder

TRIALS = 24
ACTORS = 2
EPOCHS = {"pretrain_ce": 6, "train_ce": 3, "finetune": 1}
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search import Choice, Search

COMMON = dict(learning_rate=1e-3, clip_s=5.0, batch_size=16, clips_per_epoch=64, evaluation_batch_size=16)
STAGES = (
    StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=1, epochs={pretrain_ce}, **COMMON),
    StageConfig(name="train_ce", label_space="target", loss="ce", seed=2, epochs={train_ce}, **COMMON),
    StageConfig(name="finetune", label_space="target", loss="bce", seed=3, epochs={finetune}, **COMMON),
)
MODEL = ModelConfig(
    encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=48, n_fft=2048, hop_length=1250), drop_path_rate=0.0
)
SEARCH = Search(
    name="tree",
    recipes=(Recipe(name="small", model=MODEL, stages=STAGES),),
    space={{
        "pretrain_ce.learning_rate": Choice((1e-3, 3e-3)),
        "train_ce.learning_rate": Choice((3e-4, 1e-3, 3e-3)),
        "finetune.learning_rate": Choice((1e-4, 3e-4, 1e-3, 3e-3)),
    }},
    sampler="random",
)
"""


class AloneTree(ChainBuilder):
    """Builds chains in which no two trials share a stage: the id of every stage includes all parameters of its trial."""

    def chain(self, recipe_name: str, params: Mapping[str, Any]) -> Chain:
        values = {item.name: getattr(self, item.name) for item in fields(ChainBuilder)}
        values["code_version"] += fingerprint([recipe_name, dict(params)])
        return ChainBuilder(**values).chain(recipe_name, params)


class Timed(Coordinator):
    """A coordinator that notes when its trials start and end, and stops none of them."""

    last: "Timed"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, pruning=StageHalving(grace=math.inf))
        self.started = self.ended = 0.0
        Timed.last = self

    def next_trial(self) -> Trial | None:
        self.started = self.started or time.monotonic()
        return super().next_trial()

    def update(self, trial: str, update: TrialUpdate) -> bool:
        self.ended = time.monotonic()
        return super().update(trial, update)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The measurements of one of the two sweeps."""

    trials: list[TrialRecord]
    wall_s: float
    """Seconds from the start of the first trial to the end of the last."""
    histories: dict[str, tuple[str, list[float]]]
    """Name of each trained stage and device seconds of its epochs, by stage id."""

    @property
    def device_s(self) -> float:
        return sum(sum(epochs_s) for _, epochs_s in self.histories.values())

    @property
    def epochs(self) -> int:
        """Number of epochs trained, as the trials' records have it."""
        return sum(record.epochs_trained for record in self.trials)


def real(*, alone_first: bool) -> None:
    """Run both sweeps and print them, their ratio and the bound. `alone_first` reverses their order, as the machine's load may change."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    with tempfile.TemporaryDirectory(prefix="stage-tree-") as folder, _working_in(Path(folder)):
        make_demo(Path("demo-data"))
        Path("tree.py").write_text(SEARCH.format(**EPOCHS))
        names = ("alone", "shared") if alone_first else ("shared", "alone")
        executed = {name: _execute(name, alone=name == "alone") for name in names}
    _print(executed["shared"], executed["alone"])


def _execute(name: str, *, alone: bool) -> Execution:
    make_chain_builder = runner.make_chain_builder

    def make_alone(*arguments: Any) -> ChainBuilder:
        chains = make_chain_builder(*arguments)
        return AloneTree(**{item.name: getattr(chains, item.name) for item in fields(ChainBuilder)})

    runner.Coordinator, runner.make_chain_builder = Timed, make_alone if alone else make_chain_builder  # type: ignore[misc, assignment]
    options = SweepOptions(
        search="tree.py",
        data="demo-data",
        budget="full",
        samples=TRIALS,
        name=name,
        storage=f"{name}-output",
        max_concurrent=ACTORS,
        cpus_per_trial=1,
        gpus_per_trial=0,
        pretrained="off",
        tracking_uri="off",
        cache_dir="cache",
    )
    load = os.getloadavg()[0]
    with Path(f"{name}.txt").open("w") as said:
        result = runner.start_sweep(options, Console(file=said))
    runner.Coordinator, runner.make_chain_builder = Coordinator, make_chain_builder  # type: ignore[misc]
    assert all(record.status == "finished" for record in result.trials)
    execution = Execution(
        trials=result.trials,
        wall_s=Timed.last.ended - Timed.last.started,
        histories=_histories(StageStore(Storage.parse(options.storage).at("store"))),
    )
    print(
        f"{name:>7}: {execution.epochs:>4} epochs, {len(execution.histories):>3} stages, {execution.device_s:7.1f} s of device time, "
        f"{execution.wall_s:6.1f} s on the clock (load {load:.1f} before)",
        flush=True,
    )
    return execution


def _histories(store: StageStore) -> dict[str, tuple[str, list[float]]]:
    records = (store.record(stage_id) for stage_id in store.known_ids())
    return {
        record.stage_id: (record.stage, [epoch["epoch_s"] for epoch in record.history])
        for record in records
        if record is not None
    }


def _print(shared: Execution, alone: Execution) -> None:
    costs: defaultdict[str, list[float]] = defaultdict(list)
    for execution in (shared, alone):
        for stage, epochs_s in execution.histories.values():
            costs[stage] += epochs_s
    epoch_s = {stage: statistics.median(values) for stage, values in costs.items()}
    asked = {stage: TRIALS * epochs for stage, epochs in EPOCHS.items()}
    unique = {stage: sum(len(epochs_s) for name, epochs_s in shared.histories.values() if name == stage) for stage in EPOCHS}
    planned = {stage: EPOCHS[stage] * variants for stage, variants in zip(EPOCHS, (2, 6, 24), strict=True)}
    asked_s, unique_s = (sum(epoch_s[stage] * number for stage, number in part.items()) for part in (asked, unique))
    bound, reached = asked_s / unique_s, alone.device_s / shared.device_s
    shares = " ".join(f"{stage} {epoch_s[stage] * number / asked_s:.0%}" for stage, number in asked.items())
    spread = ", ".join(f"{stage} {min(v):.2f} / {statistics.median(v):.2f} / {max(v):.2f} s" for stage, v in costs.items())
    print(f"epochs (lowest / median / highest): {spread}")
    print(f"cost shares of the stages asked for: {shares}")
    print(
        f"epochs asked for {sum(asked.values())}, unique {sum(planned.values())}, executed {shared.epochs} (alone {alone.epochs}): "
        f"merge rate {sum(asked.values()) / sum(planned.values()):.2f}"
    )
    print(
        f"device time {reached:.2f}x less; the bound of the tree's shape is {bound:.2f}x: {reached / bound:.0%} of it. "
        f"On the clock {alone.wall_s / shared.wall_s:.2f}x sooner.",
        flush=True,
    )
    assert unique == planned and shared.epochs == sum(planned.values()), "executed epochs are not the plan's"
    assert alone.epochs == sum(asked.values())


@contextmanager
def _working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
