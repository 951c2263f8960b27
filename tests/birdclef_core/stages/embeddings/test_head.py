"""Embeddings and heads: an ONNX encoder is heard once, heads learn from it and go on to the same bits, and wrong files are refused."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from birdclef_core.config import Recipe
from birdclef_core.errors import InputError
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import predictions
from birdclef_core.stages.embeddings.stored import Embeddings
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import WEIGHTS, StageStore
from birdclef_core.store.storage import Storage
from sweeps.search import Search
from sweeps.search.chains import ChainBuilder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A network that takes sound and makes of it the logarithm of the power at three pitches."""
    time_T = np.arange(16_000) / 32_000
    waves_TD = np.stack([np.sin(2 * np.pi * hz * time_T) for hz in (1000, 3000, 9000)], axis=1).astype(np.float32)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["sound", "waves"], ["product"]), helper.make_node("Abs", ["product"], ["embedding"])],
        "tiny",
        [helper.make_tensor_value_info("sound", onnx.TensorProto.FLOAT, ["B", 16_000])],
        [helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["B", 3])],
        [onnx.numpy_helper.from_array(waves_TD, "waves")],
    )
    path = tmp_path_factory.mktemp("encoder") / "tiny.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def chain_of(tiny_recipe, dataset, encoder, **changes):
    head = replace(tiny_recipe.stages[0], name="head", embeddings="embed", epochs=15, learning_rate=0.05, batch_size=4)
    embed = predictions("embed", of=f"encoder:{encoder}", on="recordings", window_s=0.5)
    search = Search(
        name="tiny",
        recipes=(
            Recipe(name="own", model=replace(tiny_recipe.model, head_dropout=0.0), stages=(embed, replace(head, **changes))),
        ),
        space={},
    )
    builder = ChainBuilder(
        search=search,
        seed=0,
        pretrained={tiny_recipe.model.encoder: RANDOM},
        all_species=dataset.all_species,
        target_species=dataset.target_species,
        data_fingerprint="data",
        code_version="code",
    )
    return builder.chain("own", {})


def test_a_head_learns_on_embeddings_and_goes_on_to_the_same_bits(tiny_recipe, tone_data, encoder, store, tmp_path):
    embed, head = chain_of(tiny_recipe, tone_data.dataset, encoder)
    assert head.needs == (embed.stage_id,)
    list(train_stage(embed, tone_data, store, CPU))
    made = Embeddings.load(store.open(embed.stage_id).folder)
    assert len(made.row_W) == 2 * len(tone_data.dataset.recordings) and made.embedding_WD.shape[1] == 3
    steps = iter(range(1000))
    with pytest.raises(StageInterrupted):
        list(train_stage(head, tone_data, store, CPU, stop=lambda: "enough" if next(steps) == 7 else ""))
    *_, last = train_stage(head, tone_data, store, CPU)
    assert last.epoch == 15 and last.scores["cmap"] > 0.9
    other = StageStore(Storage.parse(str(tmp_path / "other")))
    list(train_stage(embed, tone_data, other, CPU))
    list(train_stage(head, tone_data, other, CPU))
    first, second = ((place.open(head.stage_id).folder / WEIGHTS).read_bytes() for place in (store, other))
    assert first == second
    with pytest.raises(InputError, match="is a head on embeddings"):
        store.open(head.stage_id).record.require_weights()
    with pytest.raises(InputError, match="keeps embeddings"):
        store.open(embed.stage_id).record.require_weights()


def test_heads_share_embeddings_and_the_file_counts_not_its_path(tiny_recipe, tone_data, encoder, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(encoder.read_bytes())
    embed, head = chain_of(tiny_recipe, tone_data.dataset, encoder)
    same, other = chain_of(tiny_recipe, tone_data.dataset, copy, head_hidden=8)
    assert same.stage_id == embed.stage_id and other.stage_id != head.stage_id
    (tmp_path / "other.onnx").write_bytes(encoder.read_bytes() + b"\0")
    assert chain_of(tiny_recipe, tone_data.dataset, tmp_path / "other.onnx")[0].stage_id != embed.stage_id


def test_a_missing_encoder_and_a_missing_stage_of_embeddings_are_refused(tiny_recipe, tone_data, encoder, tmp_path):
    with pytest.raises(InputError, match=r"readable \.onnx file"):
        chain_of(tiny_recipe, tone_data.dataset, tmp_path / "none.onnx")
    with pytest.raises(InputError, match="must be an earlier stage that keeps embeddings"):
        chain_of(tiny_recipe, tone_data.dataset, encoder, embeddings="nothing")
