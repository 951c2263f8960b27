"""`birdclef store`: what is printed, what is removed, and exit codes that a script can use."""

import os
import time

import pytest
from made_up_store import A, B, C, P, damage, make, publish, save_epoch_checkpoint, save_trial, store

from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def place(request, tmp_path):
    return str(tmp_path / "out") if request.param == "local" else request.getfixturevalue("s3_uri")


@pytest.fixture
def storage(place):
    return make(place)


@pytest.fixture
def say(place, capsys):
    """Runs `birdclef store COMMAND` on the place; exit code and what was said."""

    def run(*arguments: str) -> tuple[int, str]:
        code = birdclef(["store", *arguments, "--storage", place])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return run


def test_ls_says_what_each_stage_is_and_who_uses_it(storage, say):
    code, said = say("ls")
    lines = said.splitlines()
    assert code == 0 and len(lines) == 6 and lines[-1].startswith("4 stages, ")
    prefix = next(line for line in lines if line.startswith(P[:16])).split()
    assert prefix[:4] == [P[:16], "tiny", "pretrain_ce", "0.500"] and prefix[-2:] == ["2", "random"]
    assert next(line for line in lines if line.startswith(C[:16])).split()[-2:] == ["1", A[:16]]


def test_verify_finds_a_damaged_stage_and_leaves_it_where_it_is(storage, say):
    assert say("verify") == (0, "4 stages were read; none is damaged.\n")
    damage(storage, B)
    code, said = say("verify")
    assert code == 1 and said.startswith(f"{B[:16]}: ") and "4 stages were read; 1 of them is damaged" in said
    assert store(storage).is_published(B)


def test_du_adds_up_whatever_became_of_the_files(storage, say):
    save_epoch_checkpoint(storage, "f" * 64)
    damage(storage, A)
    store(storage).open(A)
    code, said = say("du")
    lines = [line.split() for line in said.splitlines()]
    assert code == 0 and ["1", "x", "tiny", "pretrain_ce"] in [line[2:] for line in lines]
    assert ["1", "x", "stages", "that", "were", "cut", "off", "or", "set", "aside"] in [line[2:] for line in lines]
    kib = [float(line[0]) for line in lines]
    assert sum(kib[:-1]) == pytest.approx(kib[-1], abs=1.5), "leases and the like are in the sum alone"
    assert next(float(line[0]) for line in lines if "epoch" in line) > 11


def test_gc_shows_first_what_it_would_remove(storage, say):
    code, said = say("gc", "--max-bytes", "1")
    assert code == 1 and "Give --yes to remove it" in said and "must stay" in said
    assert B[:16] in said and not any(stage_id[:16] in said for stage_id in (P, A, C)), "the best trial's chain stays"
    assert sorted(store(storage).summaries()) == sorted((P, A, B, C))
    code, said = say("gc", "--max-bytes", "1", "--yes")
    assert code == 1 and "Removed." in said
    assert sorted(store(storage).summaries()) == sorted((P, A, C))
    assert "Nothing must be removed" in say("gc", "--max-bytes", "1G")[1]


def test_gc_keeps_what_unfinished_trials_of_any_sweep_and_leases_need(storage, say):
    publish(storage, "1" * 64, "train_ce", parent_id=P)
    publish(storage, "2" * 64, "train_ce", parent_id=P)
    save_trial(storage, "t0000", (P, B), sweep="other", status="interrupted")
    with Leases(store(storage).storage).hold("1" * 64, Holder(sweep="third", run="1", trial="t0000")):
        assert say("gc", "--max-bytes", "1", "--yes")[0] == 1
    assert sorted(store(storage).summaries()) == sorted((P, A, B, C, "1" * 64))


def test_gc_keeps_the_epochs_that_an_unfinished_trial_goes_on_from(storage, say):
    for stage_id in ("3" * 64, "4" * 64):
        save_epoch_checkpoint(storage, stage_id)
    save_trial(storage, "t0000", (P, "3" * 64), sweep="other", status="interrupted", stage_scores={})
    assert "stages of ended trials whose epoch checkpoints go: 1" in say("gc", "--max-bytes", "1", "--yes")[1]
    assert list(store(storage).unfinished()) == ["3" * 64]


def test_gc_without_a_budget_removes_leftovers_alone(tmp_path, capsys):
    storage = make(str(tmp_path))
    cut_off = tmp_path / "store" / "stages" / B / "cut-off" / "weights"
    cut_off.parent.mkdir()
    cut_off.write_text("12345")
    os.utime(cut_off, (time.time() - 2 * 86_400,) * 2)
    assert birdclef(["store", "gc", "--storage", str(tmp_path)]) == 0
    assert "attempts at stages that were cut off or set aside: 1" in capsys.readouterr().out and cut_off.exists()
    assert birdclef(["store", "gc", "--storage", str(tmp_path), "--yes"]) == 0
    assert not cut_off.exists() and len(store(storage).summaries()) == 4
    capsys.readouterr()
    assert birdclef(["store", "gc", "--storage", str(tmp_path), "--yes"]) == 0
    assert capsys.readouterr().out.startswith("There is nothing to remove.")


def test_gc_removes_nothing_where_it_cannot_know_what_is_needed(tmp_path, capsys):
    storage = make(str(tmp_path))
    storage.write_text("s/trials/00000001-00000001.jsonl", "{")
    assert birdclef(["store", "gc", "--max-bytes", "1", "--yes", "--storage", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "00000001-00000001.jsonl" in said and "not known which stages sweep s needs" in said
    assert len(store(storage).summaries()) == 4


@pytest.mark.parametrize("command", [("ls",), ("verify",), ("du",), ("gc",), ("gc", "--max-bytes", "1")])
def test_a_place_without_a_store_is_wrong_input(say, command):
    code, said = say(*command)
    assert code == 2 and "There is no store in" in said


def test_a_store_in_which_nothing_is_finished_is_said_to_be_so(place, say):
    save_epoch_checkpoint(Storage.parse(place), A)
    assert say("ls") == (0, f"The store in {Storage.parse(place).root} has no finished stage yet.\n")
    assert say("verify") == (0, "The store has no finished stage yet.\n")


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_wrong_input(s3_uri, capsys):
    assert birdclef(["store", "ls", "--storage", s3_uri.replace("s3://bucket", "s3://other")]) == 2
    assert "Error: " in capsys.readouterr().err


def test_a_wrong_number_of_bytes_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_info:
        birdclef(["store", "gc", "--max-bytes", "many"])
    assert exit_info.value.code == 2 and "such as 200G" in capsys.readouterr().err
