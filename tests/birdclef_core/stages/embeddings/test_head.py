"""Embeddings and heads: an ONNX encoder is heard once, heads learn from it and go on to the same bits, and wrong files are refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up_heads import head_chain, taught_chain, write_encoder

from birdclef_core.errors import InputError, StoreError
from birdclef_core.stages.embeddings.head import HeadStage
from birdclef_core.stages.embeddings.stored import Embeddings
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.stages.training import train_stage
from birdclef_core.store.stage_store import WEIGHTS, StageStore
from birdclef_core.store.storage import Storage

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A network that takes sound and makes of it the strength of three pitches."""
    return write_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx")


def test_a_head_learns_on_embeddings_and_goes_on_to_the_same_bits(tiny_recipe, tone_data, encoder, store, tmp_path):
    embed, head = head_chain(tiny_recipe, tone_data, encoder)
    assert head.needs == (embed.stage_id,)
    list(train_stage(embed, tone_data, store, CPU))
    made = Embeddings.load(store.open(embed.stage_id).folder)
    assert len(made.row_W) == 2 * len(tone_data.dataset.recordings) and made.embedding_WD.shape[1] == 3
    steps = iter(range(1000))
    with pytest.raises(StageInterrupted):
        list(train_stage(head, tone_data, store, CPU, stop=lambda: "enough" if next(steps) == 7 else ""))
    earlier = []
    first, *_, last = train_stage(head, tone_data, store, CPU, on_earlier=earlier.extend)
    assert [epoch.epoch for epoch in earlier] == list(range(1, first.epoch)) and earlier
    assert last.epoch == 15 and last.scores["cmap"] > 0.9
    other = StageStore(Storage.parse(str(tmp_path / "other")))
    list(train_stage(embed, tone_data, other, CPU))
    list(train_stage(head, tone_data, other, CPU))
    folder, again = (place.open(head.stage_id).folder for place in (store, other))
    assert (folder / WEIGHTS).read_bytes() == (again / WEIGHTS).read_bytes()
    assert {"card.html", "curves.png", "species.csv", "predictions.parquet"} <= {path.name for path in folder.iterdir()}
    store.copy_reports(embed.stage_id, tmp_path / "reports")
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["stage.json"], "no copy of the encoder"
    with pytest.raises(InputError, match=r"is a head on embeddings\. It can teach"):
        store.open(head.stage_id).record.require_encoder()
    with pytest.raises(InputError, match="keeps embeddings"):
        store.open(embed.stage_id).record.require_weights()


def test_heads_share_embeddings_and_the_file_counts_not_its_path(tiny_recipe, tone_data, encoder, tmp_path):
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(encoder.read_bytes())
    embed, head = head_chain(tiny_recipe, tone_data, encoder)
    same, other = head_chain(tiny_recipe, tone_data, copy, head_hidden=8)
    assert same.stage_id == embed.stage_id and other.stage_id != head.stage_id
    (tmp_path / "other.onnx").write_bytes(encoder.read_bytes() + b"\0")
    assert head_chain(tiny_recipe, tone_data, tmp_path / "other.onnx")[0].stage_id != embed.stage_id


def test_a_missing_encoder_and_a_missing_stage_of_embeddings_are_refused(tiny_recipe, tone_data, encoder, tmp_path):
    with pytest.raises(InputError, match=r"readable \.onnx file"):
        head_chain(tiny_recipe, tone_data, tmp_path / "none.onnx")
    with pytest.raises(InputError, match="must be an earlier stage that keeps embeddings"):
        head_chain(tiny_recipe, tone_data, encoder, embeddings="nothing")


def test_a_head_draws_recordings_by_their_sources(tiny_recipe, tone_data, encoder, store):
    dataset = tone_data.dataset
    source = np.where(dataset.recordings["author"].isin(["Author 1", "Author 2"]), "x", "y").astype(object)
    data = replace(tone_data, dataset=replace(dataset, recordings=dataset.recordings.assign(source=source)))
    embed, head = head_chain(tiny_recipe, data, encoder, sources=(("x", 1.0),))
    list(train_stage(embed, data, store, CPU))
    stage = HeadStage(head.config, head.model, data, Embeddings.load(store.open(embed.stage_id).folder), CPU)
    heard = {source[stage._table.rows_R[place]] for place in np.flatnonzero(np.diff(stage._cumulative_R, prepend=0))}
    assert heard == {"x"}


@pytest.mark.parametrize("transfer", ["by_species", "drop"])
def test_a_head_starts_from_another_by_species_and_goes_on_without_it(tiny_recipe, tone_data, encoder, store, transfer):
    chain = taught_chain(tiny_recipe, tone_data, encoder, hidden=4, head_transfer=transfer)[:3]
    embed, first, second = (replace(task, config=replace(task.config, epochs=2)) for task in chain)
    assert second.needs == (first.stage_id, embed.stage_id)
    for task in (embed, first):
        list(train_stage(task, tone_data, store, CPU))
    made, parent = Embeddings.load(store.open(embed.stage_id).folder), store.open(first.stage_id)
    stage = HeadStage(second.config, second.model, tone_data, made, CPU)
    new = {name: tensor.clone() for name, tensor in stage.head.state_dict().items()}
    stage.start_from(parent)
    before, after = parent.weights(), stage.head.state_dict()
    assert torch.equal(after["layers.1.weight"], before["layers.1.weight"]), "the hidden layer moves as it is"
    last = "layers.4.weight"
    assert parent.record.species == ["low", "mid", "top"] and len(after[last]) == 2
    assert torch.equal(after[last], before[last][[0, 2]] if transfer == "by_species" else new[last])
    steps = iter(range(1000))
    with pytest.raises(StageInterrupted):
        list(train_stage(second, tone_data, store, CPU, stop=lambda: "enough" if next(steps) == stage.num_steps else ""))
    store.remove(first.stage_id)
    list(train_stage(second, tone_data, store, CPU))
    record = store.record(second.stage_id)
    carried = "3 by species (2 species known" if transfer == "by_species" else "2 re-initialised"
    assert record.parent_id == first.stage_id and carried.removeprefix("3 ") in record.surgery
    store.remove(second.stage_id)
    with pytest.raises(StoreError, match=f"starts from {first.stage_id[:12]}, which is not in the store"):
        list(train_stage(second, tone_data, store, CPU))
