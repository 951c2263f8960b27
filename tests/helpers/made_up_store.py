"""A storage with a store of made-up stages and a sweep whose trials have them."""

import made_up_stages
from made_up_records import sweep_record
from safetensors.torch import save_file
from torch import zeros

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import SweepRecords, TrialRecord

P, A, B, C = (letter * 64 for letter in "9abc")
"""A prefix, two stages that start from it, and one that starts from the first of these."""
CHAIN = ("pretrain_ce", "train_ce", "finetune")
PARENTS = {P: None, A: P, B: P, C: A}


def identity(stage: str, **changes):
    own = {"name": stage, "learning_rate": 0.1, "label_space": "target", "epochs": 2}
    known = {"model": {"encoder": "tiny", "head": "sed"}, "stage": own, "label_space": "l" * 64, "data": "d" * 64, "code": "c0de"}
    return {**known, "parent": "random", **changes}


def publish(storage: Storage, stage_id: str, stage: str, *, start: str = "random", **values):
    """A stage of about 4 KB."""
    parent = values.pop("parent_id", PARENTS.get(stage_id))
    known = {"stage": stage, "parent_id": parent, "identity": identity(stage, parent=parent or start), "num_floats": 1000}
    return made_up_stages.publish(store(storage), stage_id, **{**known, **values})


def store(storage: Storage) -> StageStore:
    return StageStore(storage.at("store"))


def save_epoch_checkpoint(storage: Storage, stage_id: str) -> None:
    with store(storage).save_epoch_checkpoint(stage_id, 1) as folder:
        save_file({"w": zeros(3000)}, folder / "state.safetensors")


def save_trial(storage: Storage, trial: str, stage_ids, *, sweep: str = "s", **values) -> None:
    records = SweepRecords(storage.at(sweep))
    if not records.exists():
        records.save_sweep(sweep_record())
    stages = values.pop("stages", list(CHAIN[: len(stage_ids)]))
    known = {"recipe": "tiny", "params": {}, "kinds": ["target ce"] * len(stages), "status": "finished"}
    known |= {"stage_scores": dict.fromkeys(stages, 0.5)}
    records.save_trials([TrialRecord(trial=trial, stage_ids=list(stage_ids), stages=stages, **{**known, **values})])


def make(place: str) -> Storage:
    """P -> A -> C (trial t0000, the best), and P -> B (trial t0001, pruned)."""
    storage = Storage.parse(place)
    for stage_id, stage in ((P, "pretrain_ce"), (A, "train_ce"), (B, "train_ce"), (C, "finetune")):
        publish(storage, stage_id, stage)
    save_trial(storage, "t0000", (P, A, C), score=0.5)
    stopped = Stopped(rung=Rung("train_ce", 0, 0, "target ce"), stage_id=B, score=0.4, by="rank", reason="low")
    scores = {"pretrain_ce": 0.5, "train_ce": 0.4}
    save_trial(storage, "t0001", (P, B, "f" * 64), status="pruned", stage_scores=scores, stopped=stopped)
    return storage


def damage(storage: Storage, stage_id: str) -> None:
    weights = store(storage).location(stage_id).removeprefix(storage.root + "/")
    storage.write_text(weights, "rubbish")
