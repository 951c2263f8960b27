"""Heads on embeddings that are trained in a second, by a timm encoder or a tiny ONNX file, and a sweep that trained them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from made_up import chains_on
from made_up_records import sweep_record
from made_up_store import save_trial

from birdclef_core.code_version import code_version
from birdclef_core.config import ModelConfig, Recipe, StageConfig
from birdclef_core.recipes import predictions
from birdclef_core.stages.training import train_stage
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.teacher_config import TeacherConfig
from sweeps.checkpoints.references import store_of
from sweeps.options import SweepOptions
from sweeps.replicates import Replicate
from sweeps.schedule.records import SweepRecords
from sweeps.search.chains import Chain

PITCHES_HZ = (1000, 3000, 9000)


def write_encoder(path: Path, num_samples: int = 16_000, rate_hz: int = 32_000) -> Path:
    """Write a network that takes sound and makes of it the strength of three pitches."""
    import onnx

    time_T = np.arange(num_samples) / rate_hz
    waves_TD = np.stack([np.sin(2 * np.pi * hz * time_T) for hz in PITCHES_HZ], axis=1).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["sound", "waves"], ["product"]), helper.make_node("Abs", ["product"], ["embedding"])],
        "tiny",
        [helper.make_tensor_value_info("sound", onnx.TensorProto.FLOAT, ["B", num_samples])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["B", 3])],
        [onnx.numpy_helper.from_array(waves_TD, "waves")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def head_chain(
    recipe: Recipe,
    data: TrainingData,
    encoder: str | Path = "timm",
    *,
    clip_s: float = 0.5,
    rate_hz: int = 32_000,
    precision: str = "float32",
    replicates: tuple[Replicate, ...] = (),
    **changes,
) -> Chain:
    """Embeddings by an encoder and a head on them, or one for each replicate. `changes` replace settings of the head."""
    head = replace(recipe.stages[1], name="head", embeddings="embed", epochs=15, learning_rate=0.05, batch_size=4)
    embed = predictions("embed", of=f"encoder:{encoder}", on="recordings", window_s=clip_s)
    embed = replace(embed, encoder_rate_hz=rate_hz, precision=precision)
    # The head of the recipe does not count: a CNN could not even take such short clips.
    model: ModelConfig = replace(recipe.model, head="cnn", head_dropout=0.0)
    own = Recipe(name="own", model=model, stages=(embed, replace(head, **changes)))
    return chains_on(own, data, code_version=code_version(), replicates=replicates).chain("own", {})


def taught_stages(
    recipe: Recipe,
    encoder: str | Path,
    *,
    of: str = "head",
    on: str = "recordings",
    window_s: float = 1.0,
    hidden: int = 0,
    **changes,
) -> tuple[StageConfig, ...]:
    """Embeddings of half a second, a head on all species, one on the target species that starts from it, what it predicts of windows, and a
    student of that. `hidden`: size of the heads' hidden layer. `changes` replace settings of the second head."""
    every, target, _ = recipe.stages
    common = {"embeddings": "embed", "head_hidden": hidden, "epochs": 8, "learning_rate": 0.05}
    head = replace(target, name="head", starts_from="head_all", **common)
    return (
        predictions("embed", of=f"encoder:{encoder}", on="recordings", window_s=0.5),
        replace(every, name="head_all", **common),
        replace(head, **changes),
        predictions("labels", of=of, on=on, window_s=window_s),
        replace(target, name="student", epochs=1, teacher=TeacherConfig(predictions="labels", mode="distillation", share=0.5)),
    )


def taught_chain(recipe: Recipe, data: TrainingData, encoder: str | Path = "timm", **changes) -> Chain:
    """The chain of `taught_stages`."""
    own = replace(recipe, stages=taught_stages(recipe, encoder, **changes))
    return chains_on(own, data, code_version=code_version()).chain(own.name, {})


def train_chain(chain: Chain, data: TrainingData, store: StageStore) -> None:
    """Make the stages of a chain."""
    for task in chain:
        list(train_stage(task, data, store, torch.device("cpu"), trained_by="s/t0000"))


def train_heads_sweep(storage: Storage, chain: Chain, data: TrainingData) -> None:
    """Make the stages of a chain in the storage of the sweep `s`, as its only trial."""
    train_chain(chain, data, store_of(storage))
    options = SweepOptions(search="tiny", data=str(data.dataset.root), pretrained="off", tracking_uri="off")
    records = SweepRecords(storage.at("s"))
    records.save_sweep(sweep_record(options, data_fingerprint=data.dataset.fingerprint))
    names = [task.config.name for task in chain]
    scores = dict.fromkeys(names, 0.9)
    save_trial(storage, "t0000", [task.stage_id for task in chain], recipe="own", stages=names, score=0.9, stage_scores=scores)
