"""Proven stages get the ids of the current code, parents first; whatever is not proven, gone or otherwise is left out with the reason."""

from dataclasses import replace

import made_up_stages
import pytest

from birdclef_core.identity import canonical, fingerprint
from birdclef_core.recipes import RECIPES
from birdclef_core.store.adoption import adopt_stages
from birdclef_core.store.certificates import Certificate, StageKind
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

RECIPE = RECIPES["sed_v2s"]()


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage.parse(str(tmp_path)))


def identity(index: int, *, parent: str = "random", code: str = "0ld", **changes):
    stage = replace(RECIPE.stages[index], **changes)
    known = {"model": canonical(RECIPE.model), "stage": canonical(stage), "label_space": "l", "data": "d"}
    return {**known, "parent": parent, "code": code}


def publish(store, index: int, *, parent_id=None, code="0ld", seed=1, size=100):
    known = identity(index, parent=parent_id or "random", code=code, seed=seed)
    name = RECIPE.stages[index].name
    return made_up_stages.publish(
        store, fingerprint(known), identity=known, parent_id=parent_id, stage=name, num_floats=size, trained_by="s/t0000"
    )


def chain(store, length=3):
    records = []
    for index in range(length):
        records.append(publish(store, index, parent_id=records[-1].stage_id if records else None))
    return records


def proofs(*records):
    found = {}
    for record in records:
        kind = StageKind.of(record.identity)
        found[kind] = Certificate(
            old_code="0ld",
            new_code="new",
            kind=kind,
            stage_id=record.stage_id,
            recorded_sha256="a",
            replayed_sha256="a",
            environment={},
            made_at="",
        )
    return found


def new_ids(records):
    """The ids that the code `new` gives a chain."""
    found = []
    for record in records:
        parent = found[-1] if found else record.identity["parent"]
        found.append(fingerprint({**record.identity, "code": "new", "parent": parent}))
    return found


def test_a_chain_is_published_under_its_new_ids_and_stays_under_its_old_ones(store):
    records = chain(store)
    result = adopt_stages(store, records[::-1], proofs(*records), "new")
    assert [item.stage_id for item in result.adopted] == [item.stage_id for item in records]
    assert (result.already_there, result.copied, result.left_out) == (0, 0, {})
    for old, stage_id, parent in zip(records, new_ids(records), [None, *new_ids(records)], strict=False):
        entry = store.open(stage_id)
        assert entry.record == replace(
            old,
            stage_id=stage_id,
            parent_id=parent,
            identity={**old.identity, "code": "new", "parent": parent or "random"},
            adopted_from=old.stage_id,
            certificate=proofs(*records)[StageKind.of(old.identity)].hash,
        )
        assert store.record(old.stage_id) == old
        assert store.weights_sha256(stage_id) == store.weights_sha256(old.stage_id)


def test_stages_that_draw_by_sources_keep_their_shares_and_sources(store):
    records = []
    for shares in ((("even", 3.0), ("odd", 1.0)), (("even", 1.0), ("odd", 1.0)), ()):
        known = identity(0, sources=shares) | ({"sources": "5"} if shares else {})
        records.append(made_up_stages.publish(store, fingerprint(known), identity=known, num_floats=len(records) + 1))
    result = adopt_stages(store, records, proofs(*records), "new")
    new = [{**record.identity, "code": "new"} for record in records]
    assert result.left_out == {} and [store.record(fingerprint(known)).identity for known in new] == new
    assert new[0]["stage"]["sources"] == [["even", 0.75], ["odd", 0.25]] and "sources" not in new[2]


def test_files_are_hard_links_and_count_once(store):
    records = chain(store, 1)
    adopt_stages(store, records, proofs(*records), "new")
    (stage_id,) = new_ids(records)
    summary = store.summary(stage_id)
    assert summary.is_linked and summary.adopted_from == records[0].stage_id and not store.summary(records[0].stage_id).is_linked
    assert made_up_stages.weights_path(store, stage_id).samefile(made_up_stages.weights_path(store, records[0].stage_id))


def test_again_nothing_is_left_to_do(store):
    records = chain(store)
    adopt_stages(store, records, proofs(*records), "new")
    before = sorted(file.name for file in store.storage.files())
    result = adopt_stages(store, records, proofs(*records), "new")
    assert (result.adopted, result.already_there) == ((), 3)
    assert sorted(file.name for file in store.storage.files()) == before


def test_what_is_not_proven_is_left_out_with_all_that_was_trained_from_it(store):
    records = chain(store)
    result = adopt_stages(store, records, proofs(records[0], records[2]), "new")
    assert [item.stage_id for item in result.adopted] == [records[0].stage_id]
    assert result.left_out == {"of a kind that is not proven": 1, "trained from a stage that is not reused": 1}
    assert not store.is_published(new_ids(records)[2])


def test_a_parent_of_other_code_keeps_its_id_and_one_that_is_gone_leaves_the_stage_out(store):
    start = publish(store, 0, code="other")
    after = publish(store, 1, parent_id=start.stage_id)
    orphan = publish(store, 1, parent_id="f" * 64)
    result = adopt_stages(store, [after, orphan], proofs(after), "new")
    assert store.record(fingerprint({**after.identity, "code": "new"})).parent_id == start.stage_id
    assert result.left_out == {"trained from a stage that is no longer in the store": 1}


def test_a_changed_record_is_left_out(store):
    (record,) = chain(store, 1)
    changed = replace(record, identity={**record.identity, "data": "e"})
    result = adopt_stages(store, [changed], proofs(record), "new")
    assert result.adopted == () and "its id is not the hash of its identity" in next(iter(result.left_out))


def test_a_stage_that_the_current_code_has_trained_to_other_weights_is_left_alone(store):
    first, second = chain(store, 2)
    own = publish(store, 0, code="new", size=200)
    result = adopt_stages(store, [first, second], proofs(first, second), "new")
    assert result.left_out == {
        "that this code has trained itself to other weights": 1,
        "trained from a stage that is not reused": 1,
    }
    assert store.record(own.stage_id) == own


def test_one_that_it_has_trained_to_the_same_weights_is_built_on(store):
    first, second = chain(store, 2)
    publish(store, 0, code="new")
    result = adopt_stages(store, [first, second], proofs(first, second), "new")
    assert (result.adopted, result.already_there) == ((second,), 1)


def test_what_is_cut_off_is_not_there_and_a_second_run_completes_it(store, monkeypatch):
    records = chain(store)
    whole = StageStore.publish_again

    def killed(self, stage_id, record):
        if stage_id == records[1].stage_id:
            monkeypatch.setattr(Storage, "write_json", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        return whole(self, stage_id, record)

    with monkeypatch.context() as patch:
        patch.setattr(StageStore, "publish_again", killed)
        with pytest.raises(KeyboardInterrupt):
            adopt_stages(store, records, proofs(*records), "new")
    monkeypatch.undo()
    first, second, third = new_ids(records)
    assert store.is_published(first) and not store.is_published(second) and not store.is_published(third)
    assert len(adopt_stages(store, records, proofs(*records), "new").adopted) == 2
    assert all(store.check(stage_id) == "" for stage_id in (first, second, third))


def test_damage_is_found_in_the_copy_too_and_does_not_pass_on(store):
    """An adoption reads no weights: the copy's manifest has the hashes of the original's."""
    (record,) = chain(store, 1)
    made_up_stages.weights_path(store, record.stage_id).write_text("rubbish")
    adopt_stages(store, [record], proofs(record), "new")
    (stage_id,) = new_ids([record])
    assert "is not what was written" in store.check(stage_id)


def test_a_file_that_is_missing_leaves_the_stage_out(store):
    (record,) = chain(store, 1)
    made_up_stages.weights_path(store, record.stage_id).unlink()
    result = adopt_stages(store, [record], proofs(record), "new")
    assert result.adopted == () and "weights.safetensors is missing" in next(iter(result.left_out))
    assert not store.is_published(new_ids([record])[0])


def test_where_there_are_no_hard_links_files_are_copied(store, monkeypatch):
    def refuse(source, target):
        raise PermissionError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    records = chain(store, 2)
    result = adopt_stages(store, records, proofs(*records), "new")
    assert result.copied == 2
    assert not store.summary(new_ids(records)[0]).is_linked
    assert all(store.check(stage_id) == "" for stage_id in new_ids(records))
