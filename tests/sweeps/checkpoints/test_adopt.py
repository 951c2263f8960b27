"""Stages of older code are reused after one stage of their kind has come out the same, to the bit; nothing else is reused."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_records import sweep_record
from made_up_store import damage, store
from pyarrow import fs as pafs

from birdclef_core.code_version import code_version
from birdclef_core.errors import InputError, TrainingError
from birdclef_core.identity import fingerprint
from birdclef_core.models.encoders import RANDOM
from birdclef_core.stages.training import train_stage
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import total_bytes
from sweeps.checkpoints import adopt
from sweeps.checkpoints.adopt import GPU_NOTE, adoption_lines, plan_adoption, plan_lines, prove, publish
from sweeps.checkpoints.explain import explain
from sweeps.checkpoints.lineage import is_sound, lineage, lineage_lines
from sweeps.checkpoints.replay import PreparedReplay, Replay, recording_finder, replay_reference
from sweeps.cli.birdclef import birdclef
from sweeps.options import SweepOptions
from sweeps.plan.near_misses import find_lookalikes
from sweeps.schedule.records import SweepRecords, TrialRecord
from sweeps.search.chains import ChainBuilder
from sweeps.search.space import Search

OLD = "0ld0ld0ld0ld0ld0"


@pytest.fixture(scope="module")
def chain_of(tiny_recipe, tone_data):
    """Makes the chain of three stages that a code version asks for: cross-entropy, binary cross-entropy, and frozen."""
    recipe = replace(tiny_recipe, stages=tuple(replace(stage, epochs=1) for stage in tiny_recipe.stages))
    dataset = tone_data.dataset

    def make(code: str):
        chains = ChainBuilder(
            search=Search(name="tiny", recipes=(recipe,), space={}),
            seed=0,
            pretrained={recipe.model.encoder: RANDOM},
            all_species=dataset.all_species,
            target_species=dataset.target_species,
            data_fingerprint=dataset.fingerprint,
            code_version=code,
        )
        return chains.chain("tiny", {})

    return make


@pytest.fixture(scope="module")
def trained(tmp_path_factory, chain_of, tone_data):
    """A folder with the store of a sweep that older code has run."""
    storage = Storage.parse(str(tmp_path_factory.mktemp("old")))
    chain = chain_of(OLD)
    for task in chain:
        list(train_stage(task, tone_data, store(storage), torch.device("cpu"), trained_by="s/t0000"))
    options = SweepOptions(search="tiny", data=str(tone_data.dataset.root), pretrained="off")
    records = SweepRecords(storage.at("s"))
    records.save_sweep(sweep_record(options, data_fingerprint=tone_data.dataset.fingerprint))
    ids, names = [task.stage_id for task in chain], [task.config.name for task in chain]
    kinds = ["target bce" for _ in chain]
    records.save_trials([TrialRecord(trial="t0000", recipe="tiny", params={}, stage_ids=ids, stages=names, kinds=kinds)])
    return Path(storage.root)


@pytest.fixture
def storage(tmp_path, trained):
    return Storage.parse(str(shutil.copytree(trained, tmp_path / "out")))


@pytest.fixture
def same(monkeypatch):
    """Makes every replay come out the same without training; the stages that were replayed."""
    return made_up_replays(monkeypatch, differs=())


def made_up_replays(monkeypatch, differs, changed=()):
    replayed = []

    def run(self: PreparedReplay, say) -> Replay:
        record = self.entry.record
        replayed.append(record.stage)
        return Replay(
            recorded=record.metrics,
            replayed=record.metrics,
            recorded_sha256="a" * 64,
            replayed_sha256=("b" if record.stage in differs else "a") * 64,
            environment=record.environment,
            changed=(f"code was {OLD}, is {code_version()}", *changed),
        )

    monkeypatch.setattr(PreparedReplay, "run", run)
    return replayed


def adopt_all(storage, cache="unused", data=None, code=OLD[:6]):
    """Adopts all that can be; the result, and what was said."""
    said: list[str] = []
    plan = plan_adoption(storage, code, recording_finder(storage, data, str(cache)), None, said.append)
    result = publish(plan, prove(plan, said.append))
    return result, said


def test_what_comes_out_the_same_is_reused_by_the_chain_of_this_code(storage, chain_of, tmp_path):
    before = {name: store(storage).open(name).record for name in store(storage).known_ids()}
    result, said = adopt_all(storage, tmp_path / "cache")
    assert [record.stage for record in result.adopted] == ["pretrain_ce", "train_bce", "finetune"]
    assert sum("the same to the bit; certificate " in line for line in said) == 3
    for old, new in zip(chain_of(OLD), chain_of(code_version()), strict=True):
        record = store(storage).open(new.stage_id).record
        assert record.identity == new.identity and record.parent_id == new.parent_id
        assert record.adopted_from == old.stage_id and record.metrics == before[old.stage_id].metrics
    assert {name: store(storage).open(name).record for name in before} == before, "old stages are as they were"

    last = chain_of(code_version())[-1].stage_id
    found = lineage(store(storage), last, verify=True)
    lines = [line.strip() for line in lineage_lines(found) if "adopted from" in line]
    assert is_sound(found) and len(lines) == 3
    proof = store(storage).record(last).certificate[:16]
    device = store(storage).record(last).environment["device"]
    old_id = chain_of(OLD)[-1].stage_id[:16]
    assert lines[-1] == (
        f"adopted from {old_id}: code {OLD} = {code_version()} for SED bce target float32, encoder frozen, proven on stage {old_id} on "
        f"{device}; certificate {proof} verified"
    )
    assert replay_reference(storage, last, None, None, str(tmp_path / "cache"), say=said.append).is_exact


def test_a_second_run_trains_and_writes_nothing(storage, same):
    adopt_all(storage)
    assert sorted(same) == ["finetune", "pretrain_ce", "train_bce"]
    files = sorted(file.name for file in storage.files())
    result, _ = adopt_all(storage)
    assert len(same) == 3 and result.already_there == 3 and not result.adopted
    assert sorted(file.name for file in storage.files()) == files
    assert adoption_lines(result)[1] == "Reused before: 3 stages."


def test_a_kind_that_comes_out_otherwise_is_refused_with_all_that_was_trained_from_it(storage, chain_of, monkeypatch):
    made_up_replays(monkeypatch, differs={"train_bce"}, changed=["torch was 1, is 2"])
    result, said = adopt_all(storage)
    assert [record.stage for record in result.adopted] == ["pretrain_ce"]
    refusal = next(line for line in said if "NOT THE SAME" in line)
    assert (
        refusal.startswith("SED bce target float32: NOT THE SAME, 1 stage (")
        and "aaaaaaaaaaaaaaaa and came out with bbbb" in refusal
    )
    assert refusal.endswith("Not only the code may be the reason: torch was 1, is 2.")
    assert Counter(result.left_out) == {"of a kind that is not proven": 1, "trained from a stage that is not reused": 1}
    first, *others = chain_of(code_version())
    assert store(storage).is_published(first.stage_id)
    assert not any(store(storage).is_published(task.stage_id) for task in others)
    assert len(store(storage).storage.at("certificates").names()) == 2


def test_on_a_gpu_other_bits_need_not_be_other_code(storage, monkeypatch):
    made_up_replays(monkeypatch, differs={"train_bce"})
    plan = plan_adoption(storage, OLD, recording_finder(storage, None, "unused"), None, pytest.fail)
    said = []
    monkeypatch.setattr(adopt, "_device", lambda: torch.device("cuda"))
    prove(plan, said.append)
    assert next(line for line in said if "NOT THE SAME" in line).endswith(GPU_NOTE)


def test_a_replay_that_fails_is_no_proof(storage, monkeypatch):
    def fail(self, say):
        raise TrainingError("no memory")

    monkeypatch.setattr(PreparedReplay, "run", fail)
    result, said = adopt_all(storage)
    assert not result.adopted and sum("NOT PROVEN" in line and "no memory" in line for line in said) == 3


def test_a_certificate_that_was_changed_proves_nothing(storage, chain_of, same):
    adopt_all(storage)
    for path in Path(storage.path("store/certificates")).iterdir():
        path.write_text(path.read_text().replace('"cpu', '"gpu').replace('"threads": "1"', '"threads": "9"'))
    last = chain_of(code_version())[-1].stage_id
    found = lineage(store(storage), last, verify=True)
    assert not is_sound(found) and not any(ancestor.problem for ancestor in found)
    assert sum(": DAMAGED: " in line and "was changed after it was written" in line for line in lineage_lines(found)) == 3
    _, said = adopt_all(storage)
    assert sum("is damaged and proves nothing" in line for line in said) == 3
    assert len(same) == 6, "all is proven again"


def test_a_certificate_of_another_kind_does_not_prove_an_adopted_stage(storage, chain_of, same):
    adopt_all(storage)
    first, second, _ = (task.stage_id for task in chain_of(code_version()))
    other = store(storage).record(first).certificate
    record = store(storage).record(second)
    store(storage).publish_again(second, replace(record, certificate=other))
    found = lineage(store(storage), second, verify=True)
    assert not is_sound(found) and "does not prove that code" in found[-1].certificate_problem


def test_without_verification_a_lineage_says_so(storage, chain_of, same):
    adopt_all(storage)
    found = lineage(store(storage), chain_of(code_version())[0].stage_id, verify=False)
    assert is_sound(found) and any(line.endswith(", not verified") for line in lineage_lines(found))


def another(storage, stage_id, *, seed=5, **values):
    """The id of a second stage of the same kind, whose record has other values."""
    record = store(storage).record(stage_id)
    identity = {**record.identity, "stage": {**record.identity["stage"], "seed": seed}}
    again = replace(record, stage_id=fingerprint(identity), identity=identity, **values)
    store(storage).publish_again(stage_id, again)
    return again.stage_id


def test_the_cheapest_stage_of_a_kind_that_is_whole_is_trained_again(storage, chain_of):
    def replayed():
        plan = plan_adoption(storage, OLD, recording_finder(storage, None, "unused"), None, pytest.fail)
        (found,) = [item.replay for item in plan.kinds if item.kind.loss == "ce"]
        return found.entry.record.stage_id if found else None

    first = chain_of(OLD)[0].stage_id
    another(storage, first, cost_s=1e6)
    another(storage, first, seed=6, cost_s=1e-9, environment={"device": "another GPU", "threads": "1"})
    assert replayed() == first, "a stage from another device comes last"
    cheap = another(storage, first, cost_s=1e-6)
    assert replayed() == cheap
    damage(storage, cheap)
    assert replayed() == first


def test_a_kind_of_which_no_stage_is_whole_is_not_proven(storage, chain_of, same):
    damage(storage, chain_of(OLD)[-1].stage_id)
    result, said = adopt_all(storage)
    assert sorted(same) == ["pretrain_ce", "train_bce"] and len(result.adopted) == 2
    assert any("encoder frozen: NOT PROVEN" in line and "must be whole to be replayed" in line for line in said)


def test_recordings_that_are_not_at_hand_are_said_and_can_be_named(storage, same, tone_data):
    storage.delete("s")
    result, said = adopt_all(storage)
    assert not result.adopted and not same
    assert sum("NOT PROVEN" in line and "must be named with --data" in line for line in said) == 3
    result, _ = adopt_all(storage, data=tone_data.dataset.root)
    assert len(result.adopted) == 3


@pytest.mark.parametrize("code", ["", "1234", code_version()])
def test_a_code_version_must_be_one_that_the_store_has(storage, code):
    with pytest.raises(InputError, match=rf"Older versions that the store has stages of: {OLD} \(3 stages\)"):
        adopt_all(storage, code=code)


def test_the_beginning_of_two_code_versions_is_refused(storage, same, chain_of):
    records = store(storage)
    first = records.record(chain_of(OLD)[0].stage_id)
    other = replace(first, stage_id="e" * 64, identity={**first.identity, "code": OLD[:-1] + "x"})
    records.publish_again(first.stage_id, other)
    with pytest.raises(InputError, match=r"2 begin with '0ld'.*3 stages.*1 stages"):
        adopt_all(storage, code="0ld")


def test_adopted_stages_are_in_the_store_and_no_near_misses(storage, chain_of, same):
    tasks = {task.stage_id: task for task in chain_of(code_version())}
    assert find_lookalikes(tasks, store(storage).summaries()).total() == 3
    adopt_all(storage)
    assert find_lookalikes(tasks, store(storage).summaries()).total() == 0
    old, new = chain_of(OLD)[0].stage_id, chain_of(code_version())[0].stage_id
    assert explain(store(storage), old, new)[1:] == [
        f"  have the same weights: {new[:12]} was adopted from {old[:12]}",
        f"  code: '{OLD}' against '{code_version()}' (the code that trains and scores stages)",
    ]


def test_an_adopted_stage_is_adopted_by_the_code_after_this_one(storage, chain_of, same, monkeypatch):
    adopt_all(storage)
    before, current = total_bytes(store(storage).summaries()), code_version()
    monkeypatch.setattr(adopt, "code_version", lambda: "next")
    result, _ = adopt_all(storage, code=current)
    assert len(result.adopted) == 3
    for this, after in zip(chain_of(current), chain_of("next"), strict=True):
        assert store(storage).record(after.stage_id).adopted_from == this.stage_id
    assert is_sound(lineage(store(storage), chain_of("next")[-1].stage_id, verify=True))
    assert total_bytes(store(storage).summaries()) == pytest.approx(before, rel=0.01)


def test_shared_files_are_counted_once(storage, same, capsys):
    before = total_bytes(store(storage).summaries())
    adopt_all(storage)
    assert total_bytes(store(storage).summaries()) == pytest.approx(before, rel=0.01)
    assert birdclef(["store", "du", "--storage", storage.root]) == 0
    assert "    3 x of these as hard links to the files of the stage that they were adopted from" in capsys.readouterr().out


@pytest.mark.slow
def test_a_remote_storage_copies_the_files_by_itself(s3_uri, trained, chain_of, same):
    storage = Storage.parse(s3_uri)
    pafs.copy_files(str(trained), storage.root, destination_filesystem=storage.filesystem)
    result, _ = adopt_all(storage)
    assert len(result.adopted) == result.copied == 3
    assert (
        adoption_lines(result)[0].endswith(" hours of training saved.")
        and "the files of 3 were copied" in adoption_lines(result)[0]
    )
    for task in chain_of(code_version()):
        assert store(storage).check(task.stage_id) == "" and store(storage).open(task.stage_id).record.identity == task.identity
    assert is_sound(lineage(store(storage), chain_of(code_version())[-1].stage_id, verify=True))
    assert len(adopt_all(storage)[0].adopted) == 0


def test_the_command_acts_unless_it_is_a_dry_run(storage, chain_of, same, capsys):
    command = ["store", "adopt", "--from", OLD[:4], "--storage", storage.root]
    assert birdclef([*command, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Stages of code {OLD} in the store; this code is {code_version()}.\n")
    assert said.count("to be proven by training ") == 3 and said.endswith("Nothing was trained or reused (--dry-run).\n")
    assert not same and not store(storage).is_published(chain_of(code_version())[0].stage_id)
    assert birdclef(command) == 0
    said = capsys.readouterr().out
    assert "Reused: 3 stages (" in said and "as hard links that take no space" in said
    assert birdclef(command) == 0
    assert capsys.readouterr().out.count("proven before on stage ") == 3
    assert birdclef(["lineage", "--storage", storage.root, chain_of(code_version())[-1].stage_id]) == 0


def test_the_command_exits_with_1_when_a_kind_is_refused(storage, monkeypatch, capsys):
    made_up_replays(monkeypatch, differs={"finetune"})
    assert birdclef(["store", "adopt", "--from", OLD, "--storage", storage.root]) == 1
    assert "Not reused: 1 stages of a kind that is not proven." in capsys.readouterr().out


def test_a_plan_says_why_a_kind_cannot_be_proven(storage):
    storage.delete("s")
    plan = plan_adoption(storage, OLD, recording_finder(storage, None, "unused"), None, pytest.fail)
    assert sum("cannot be proven: The recordings of stage " in line for line in plan_lines(plan)) == 3
