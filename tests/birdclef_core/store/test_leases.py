"""A lease has one holder, ends when its holder does, and is not held up by the dead."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from damage import damages

from birdclef_core.errors import FileContentError
from birdclef_core.json_files import from_values, to_json
from birdclef_core.store.leases import FOLDER, Holder, HolderProcess, LeaseEntry, Leases, _machine
from birdclef_core.store.storage import Storage

ALICE = Holder(sweep="alice", run="1", trial="t0")
BOB = Holder(sweep="bob", run="1", trial="t0")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request, tmp_path) -> Storage:
    if request.param == "local":
        return Storage.parse(str(tmp_path / "store"))
    return Storage.parse(request.getfixturevalue("s3_uri"))


def forget(leases: Leases, holder: Holder, stage_id: str = "stage") -> LeaseEntry:
    """An entry whose holder is gone without giving it back: of a process on another machine."""
    entry = LeaseEntry(stage_id=stage_id, holder=holder, token="x", beat_at_s=0.0)
    leases.storage.write_json(f"{FOLDER}/{entry.name}", HolderProcess(machine="another", process=1))
    return entry


def test_a_lease_has_one_holder_and_is_free_after_it(storage):
    leases = Leases(storage)
    with leases.hold("stage", ALICE) as lease:
        assert lease is not None and not lease.lost
        assert leases.acquire("stage", BOB) is None
        with leases.hold("other", BOB) as other:
            assert other is not None
        assert [entry.holder for entry in leases.entries()] == [ALICE]
    assert leases.entries() == []
    with leases.hold("stage", BOB) as lease:
        assert lease is not None


@pytest.mark.parametrize("round_number", range(3))
def test_of_many_that_want_it_at_once_exactly_one_gets_it(storage, round_number):
    leases, start = Leases(storage), threading.Barrier(6)

    def want(index: int):
        start.wait()
        return leases.acquire("stage", Holder(sweep=f"s{index}", run="1", trial="t0"))

    with ThreadPoolExecutor(6) as pool:
        got = [lease for lease in pool.map(want, range(6)) if lease is not None]
    assert len(got) <= 1
    assert len(leases.entries()) == len(got), "those that gave up left nothing behind"
    for lease in got:
        lease.release()


def test_a_dead_lease_blocks_no_longer_than_its_time(tmp_path):
    leases = Leases(Storage.parse(str(tmp_path)), duration_s=1.0)
    forget(leases, ALICE)
    forgotten = time.monotonic()
    assert leases.acquire("stage", BOB) is None
    while (lease := leases.acquire("stage", BOB)) is None:
        time.sleep(0.02)
    assert 0.9 < time.monotonic() - forgotten < 1.5
    lease.release()


def test_the_heartbeat_keeps_a_lease_beyond_its_time(tmp_path):
    leases = Leases(Storage.parse(str(tmp_path)), duration_s=0.4)
    with leases.hold("stage", ALICE) as lease:
        time.sleep(1.0)
        assert leases.acquire("stage", BOB) is None
        assert not lease.lost


def test_a_suspended_holder_keeps_its_lease_for_its_time_and_knows_that_it_lost_it(tmp_path):
    leases = Leases(Storage.parse(str(tmp_path)), duration_s=0.4)
    with leases.hold("stage", ALICE) as lease:
        with lease.suspended():
            time.sleep(0.6)
            with leases.hold("stage", BOB) as other:
                assert other is not None
        assert lease.lost


def test_a_later_run_of_a_sweep_and_a_trials_next_worker_take_over_at_once(storage):
    leases = Leases(storage)
    forget(leases, ALICE)
    with leases.hold("stage", Holder(sweep="alice", run="2", trial="t9")) as lease:
        assert lease is not None
        assert leases.acquire("stage", Holder(sweep="alice", run="2", trial="t1")) is None
        with leases.hold("stage", Holder(sweep="alice", run="2", trial="t9")) as again:
            assert again is not None


def test_whoever_was_taken_over_from_learns_it(tmp_path):
    leases = Leases(Storage.parse(str(tmp_path)), duration_s=0.4)
    with leases.hold("stage", ALICE) as first, leases.hold("stage", ALICE) as second:
        time.sleep(0.25)
        assert first.lost and not second.lost


def test_a_worker_that_has_outlived_its_driver_is_waited_for_while_it_works(tmp_path):
    """Its next run would have two processes train one stage. Once it is silent it is no longer waited for."""
    leases = Leases(Storage.parse(str(tmp_path)), duration_s=2.0)
    with subprocess.Popen(["sleep", "60"]) as survivor:
        entry = forget(leases, ALICE)
        leases.storage.write_json(f"{FOLDER}/{entry.name}", HolderProcess(machine=_machine(), process=survivor.pid))
        later = Holder(sweep="alice", run="2", trial="t0")
        assert leases.acquire("stage", later) is None
        os.utime(tmp_path / FOLDER / entry.name, (time.time() - 1.5,) * 2)
        with leases.hold("stage", later) as lease:
            assert lease is not None
        survivor.kill()


@pytest.mark.parametrize("wait", [True, False])
def test_a_killed_process_of_this_machine_is_not_waited_for(tmp_path, wait):
    """Whether or not its parent has noticed."""
    script = f"""
import time
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.storage import Storage
Leases(Storage.parse({str(tmp_path)!r})).acquire("stage", Holder(sweep="alice", run="1", trial="t0"))
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    leases = Leases(Storage.parse(str(tmp_path)))
    assert leases.acquire("stage", BOB) is None
    os.kill(process.pid, signal.SIGKILL)
    if wait:
        process.wait()
    else:
        time.sleep(0.2)
    with leases.hold("stage", BOB) as lease:
        assert lease is not None
    process.wait()


HOLDER = HolderProcess(machine=_machine(), process=2**22)


@pytest.mark.parametrize("damage", list(damages(HolderProcess, to_json(HOLDER))), ids=lambda damage: damage.what)
def test_a_damaged_lease_is_another_holders_until_it_ends(tmp_path, damage):
    """It must not stop a trial: who holds it is not known, and without heartbeats it ends by itself."""
    leases = Leases(Storage.parse(str(tmp_path)))
    entry = forget(leases, ALICE)
    file = tmp_path / FOLDER / entry.name
    file.write_text(to_json(HOLDER))
    assert leases.is_dead(entry, 0.0), "no such process runs here"
    file.write_bytes(damage.content)
    assert leases.acquire("stage", BOB) is None
    os.utime(file, (time.time() - 61,) * 2)
    with leases.hold("stage", BOB) as lease:
        assert lease is not None


@pytest.mark.parametrize("process", [0, -1, 2**31, 2**70])
def test_a_number_that_is_no_process_makes_a_lease_damaged(tmp_path, process):
    with pytest.raises(FileContentError, match=f"process must be the id of a process, but is {process}"):
        from_values(HolderProcess, {"machine": "m", "process": process}, file="f")


def test_the_stores_clock_is_compared_with_this_machines(storage):
    leases = Leases(storage)
    assert abs(leases.clock_offset_s()) < 2
    assert leases.entries() == []
