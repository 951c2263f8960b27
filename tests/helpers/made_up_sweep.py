"""Writes the records of a sweep of any size, with scores from a formula: for the sweep's page and its benchmark."""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from made_up_records import sweep_record

from birdclef_core.recipes import sed_b3ns, sed_seresnext26t, sed_v2s
from birdclef_core.store.storage import Storage
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import SweepRecord, SweepRecords, TrialRecord, trial_name
from sweeps.search.space import Choice, Range, Search

STAGES = ("pretrain_ce", "pretrain_bce", "train_ce", "train_bce", "finetune")
KINDS = ("all ce", "all bce", "target ce", "target bce", "target bce")
EPOCH_S = (600.0, 400.0, 300.0, 200.0, 100.0)
SEARCH = Search(
    name="made-up",
    recipes=(sed_v2s(), sed_b3ns(), replace(sed_seresnext26t(), stages=sed_seresnext26t().stages[:3])),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "pretrain.clip_s": Choice((5.0, 10.0)),
        "train_ce.learning_rate": Range(1e-4, 1e-2, log=True),
        "train.clip_s": Choice((5.0, 10.0, 15.0)),
        "train.mixing.wave_prob": Range(0.0, 1.0),
        "train.mixing.wave_double_prob": Range(0.0, 1.0, when="train.mixing.wave_prob > 0.5"),
        "train_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "finetune.learning_rate": Range(1e-4, 2e-3, log=True),
        "model.drop_rate": Range(0.0, 0.6, step=0.1),
    },
)
START = datetime(2026, 11, 22, 12, tzinfo=UTC)


def made_up_sweep(
    number: int, *, name: str = "s", objective: str = "val/cmap", seed: int = 0
) -> tuple[SweepRecord, list[TrialRecord]]:
    """Return a sweep and its trials. Of ten trials, six finish, three stop and one fails; the last of some runs on."""
    generator = random.Random(seed)
    search = replace(SEARCH, objective=objective)
    part = replace(sweep_record().parts[0], search=search, samples=number)
    record = sweep_record(name=name, parts=(part,), trials=number, ran_s=number * 300.0, started_at=START.isoformat())
    trials = [_trial(index, search, generator) for index in range(number)]
    return record, trials


def write_sweep(storage: Path, record: SweepRecord, trials: Sequence[TrialRecord]) -> SweepRecords:
    """Write the records of a sweep into a storage, which gets an empty store."""
    (storage / "store").mkdir(parents=True, exist_ok=True)
    records = SweepRecords(Storage.parse(str(storage)).at(record.name))
    records.save_sweep(record)
    if trials:
        records.save_trials(list(trials))
    return records


def _trial(index: int, search: Search, generator: random.Random) -> TrialRecord:
    recipe = search.recipes[0] if index == 0 else generator.choice(search.recipes)
    params = search.baseline(recipe) if index == 0 else _point(search, recipe, generator)
    stages = [stage.name for stage in recipe.stages]
    ids = [_stage_id(recipe.name, stages[: place + 1], params, generator) for place in range(len(stages))]
    scores = _scores(recipe.name, stages, params, generator)
    end = "finished" if index == 0 else generator.choices(("finished", "pruned", "failed"), (6, 3, 1))[0]
    reached = len(stages) if end == "finished" else generator.randint(1, len(stages) - 1)
    record = TrialRecord(
        trial=trial_name(index),
        recipe=recipe.name,
        params=params,
        stage_ids=ids,
        stages=stages,
        kinds=[KINDS[STAGES.index(stage)] for stage in stages],
        status=end,
        stage=stages[reached - 1],
        stage_scores=dict(zip(stages[:reached], scores, strict=False)),
        stage_errors=dict.fromkeys(stages[:reached], 0.02),
        trained_ids=ids[1:reached] if index else ids,
        spent_s={stage: EPOCH_S[STAGES.index(stage)] for stage in stages[1 if index else 0 : reached]},
        reused_s={stages[0]: EPOCH_S[0]} if index else {},
        epochs_done=reached,
        epochs_trained=reached - 1,
        ended_at=(START + timedelta(minutes=5 * (index + 1))).isoformat(),
    )
    if end == "finished":
        score = scores[-1]
        record.score = score
        record.cpu_seconds = {"sed_v2s": 20.0, "sed_b3ns": 14.0}.get(recipe.name, 9.0) * generator.uniform(0.9, 1.1)
        record.metrics = {"val/cmap": score, "val/cmap_se": 0.02, "val/cmap_pad5": 0.5 + score / 2, "val/cmap_chance": 0.01}
        record.metrics |= {
            "val_soundscapes/auroc": 0.5 + 0.5 * score + generator.gauss(0, 0.02),
            "val_soundscapes/auroc_se": 0.03,
        }
    elif end == "pruned":
        rung = Rung(stage=stages[reached - 1], epoch=0, epochs=0, kind=record.kinds[reached - 1])
        reason = f"{scores[reached - 1]:.3f} at the end of {rung.stage} is among the lower half of 8 stages"
        record.stopped = Stopped(stage_id=ids[reached - 1], rung=rung, score=scores[reached - 1], reason=reason)
        record.reason = reason
    else:
        record.reason = "loss is nan in epoch 1 of " + record.stage
    return record


def _point(search: Search, recipe: Any, generator: random.Random) -> dict[str, Any]:
    point = search.baseline(recipe)
    for key, parameter in search.space.items():
        if key in point or parameter.when:
            point[key] = parameter.draw(generator)
    if point.get("train.mixing.wave_prob", 0.0) <= 0.5:
        point.pop("train.mixing.wave_double_prob", None)
    return point


def _stage_id(recipe: str, stages: Sequence[str], params: dict[str, Any], generator: random.Random) -> str:
    """Pretraining is shared by the trials with the same clip length, like the draws of a pool."""
    own = params if len(stages) > 1 else params.get("pretrain.clip_s")
    return hashlib.sha256(repr((recipe, *stages, own)).encode()).hexdigest()


def _scores(recipe: str, stages: Sequence[str], params: dict[str, Any], generator: random.Random) -> list[float]:
    """Most depends on the learning rate of train_ce, then on the recipe; most other parameters do nothing."""
    rate = math.log10(params["train_ce.learning_rate"] / 1e-3)
    level = 0.6 - 0.18 * rate**2 + {"sed_v2s": 0.04, "sed_b3ns": 0.0}.get(recipe, -0.03)
    level -= 0.05 * (params.get("train.mixing.wave_prob", 0.0) - 0.6) ** 2
    return [level - 0.05 * (len(stages) - 1 - place) + generator.gauss(0, 0.015) for place in range(len(stages))]
