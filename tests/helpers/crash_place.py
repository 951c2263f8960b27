"""Two sweeps on one store that are killed at random moments: what they ask for, and where their files are."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from made_up_stage import ExecutionLog

from birdclef_core.config import ModelConfig, Recipe, StageConfig
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import predictions
from birdclef_core.store.leases import Leases
from birdclef_core.store.patience import Patience
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.taxonomy import LabelSpace
from birdclef_core.teacher_config import TeacherConfig
from sweeps.replicates import Replicate
from sweeps.schedule.records import SweepRecords
from sweeps.search.chains import ChainBuilder
from sweeps.search.space import Choice, Search

SWEEPS = ("first", "second")
LEASE_S = 2.0
REMOTE_LEASE_S = 12.0
"""On S3, whose times are whole seconds and whose requests take their time."""
OUTAGE_S = 60.0
"""For how long work waits for a storage that is away."""
COMMON = {"learning_rate": 1e-3, "clip_s": 1.0, "batch_size": 2}
STAGES = (
    StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=1, epochs=10, **COMMON),
    StageConfig(name="train_ce", label_space="target", loss="ce", seed=2, epochs=4, **COMMON),
    predictions("labels", of="train_ce", on="recordings"),
    StageConfig(
        name="finetune",
        label_space="target",
        loss="bce",
        seed=3,
        epochs=2,
        starts_from="pretrain_ce",
        teacher=TeacherConfig(predictions="labels"),
        **COMMON,
    ),
)
"""The last one learns from the predictions of the second, and starts from the first."""
FOLDS = int(os.environ.get("BIRDCLEF_CRASH_FOLDS", "0"))
"""On how many folds the second sweep trains its trials; 0: on one, as the first, which has the data of fold 0."""
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2, 2e-2, 3e-2)


def make_chain_builder(sweep: str) -> ChainBuilder:
    """A tree of 2 x 3 x 8, of which halving leaves more than a sweep asks for; the second sweep asks for the same stages in another order."""
    search = Search(
        name="crashes",
        recipes=(Recipe(name="r", model=ModelConfig(encoder="mobilenetv3_small_050"), stages=STAGES),),
        space={
            "pretrain_ce.learning_rate": Choice(RATES[:2]),
            "train_ce.learning_rate": Choice(RATES[:3]),
            "finetune.learning_rate": Choice(RATES),
        },
        sampler="random" if sweep == "first" else "tpe",
    )
    folds = FOLDS if sweep == "second" else 0
    return ChainBuilder(
        search=search,
        seed=SWEEPS.index(sweep),
        pretrained={"mobilenetv3_small_050": RANDOM},
        all_species=LabelSpace.of("all", "abcd"),
        target_species=LabelSpace.of("target", "ab"),
        data_fingerprint="data",
        code_version="code",
        replicates=tuple(Replicate.of_fold(fold, f"data{fold or ''}") for fold in range(folds)),
    )


@dataclass(frozen=True)
class Place:
    """The files of one round."""

    folder: Path
    samples: int = 20
    address: str = ""
    """URI of the storage; empty: it is the folder."""

    @property
    def storage(self) -> Storage:
        return replace(Storage.parse(self.address or str(self.folder)), patience=Patience(OUTAGE_S))

    @property
    def lease_s(self) -> float:
        return REMOTE_LEASE_S if self.address else LEASE_S

    @property
    def store(self) -> StageStore:
        return StageStore(self.storage.at("store"))

    @property
    def leases(self) -> Leases:
        return Leases(self.store.storage, duration_s=self.lease_s)

    @property
    def log(self) -> ExecutionLog:
        return ExecutionLog(self.folder / "executed.txt")

    def records(self, sweep: str) -> SweepRecords:
        return SweepRecords(self.storage.at(sweep))

    def socket_of(self, sweep: str) -> str:
        return str(self.folder / f"{sweep}.socket")
