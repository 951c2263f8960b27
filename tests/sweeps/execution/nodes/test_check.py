"""A node that cannot train says why, with the way out: its GPU, its recordings, its storage, its disk."""

import shutil
from dataclasses import replace

import pytest

from birdclef_core.data.dataset import load_dataset
from birdclef_core.store.storage import Storage
from sweeps.execution.nodes import check
from sweeps.execution.nodes.check import RUN_MARK, GpuFacts, NodeCheck, disk_problem, recordings_problem, storage_problem

H100 = GpuFacts(
    torch_version="2.11.0+cu130",
    cuda_version="13.0",
    usable=True,
    name="NVIDIA H100",
    capability=(9, 0),
    architectures=("sm_75", "sm_80", "sm_90", "sm_120", "compute_120"),
    driver="580.159.04",
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"usable": False, "driver": "535.104.05"},
            ("needs an NVIDIA driver 580 or newer", "has driver 535.104.05", "--gpus-per-trial 0"),
        ),
        ({"usable": False, "driver": ""}, ("driver 580 or newer", "this node has none")),
        ({"usable": False, "cuda_version": "12.8"}, ("driver 525 or newer",)),
        ({"usable": False, "cuda_version": "14.1"}, ("a newer driver",)),
        ({"cuda_version": None, "torch_version": "2.11.0+cpu"}, ("torch 2.11.0+cpu is a build without CUDA",)),
        ({"name": "Tesla V100", "capability": (7, 0)}, ("Tesla V100 has compute capability 7.0", "for 7.5 and newer")),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_named_with_driver_and_wheel(changes, words):
    problem = replace(H100, **changes).problem()
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize("capability", [(7, 5), (8, 9), (9, 0), (12, 1)])
def test_a_gpu_that_torch_can_use_is_no_problem(capability):
    assert replace(H100, capability=capability).problem() == ""


def test_the_driver_is_read_from_the_system(tmp_path, monkeypatch):
    file = tmp_path / "version"
    monkeypatch.setattr(check, "_DRIVER_FILE", file)
    assert GpuFacts.found().driver == ""
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.159.04  Tue Aug 12\nGCC version: gcc version 13.2.0\n")
    assert GpuFacts.found().driver == "580.159.04"


@pytest.fixture
def copied(tone_data, tmp_path):
    """The recordings in a folder of their own."""
    shutil.copytree(tone_data.dataset.root, tmp_path / "data")
    return load_dataset(tmp_path / "data")


def test_recordings_that_are_missing_or_differ_are_found(copied):
    assert recordings_problem(copied) == ""
    (copied.root / copied.recordings["path"][3]).write_bytes(b"short")
    assert f"1 of 18 that were looked for are missing here or differ in size, such as {copied.root}" in recordings_problem(copied)
    shutil.rmtree(copied.root)
    assert "18 of 18" in recordings_problem(copied)


def test_of_many_recordings_some_are_looked_for(copied, monkeypatch):
    monkeypatch.setattr(check, "CHECKED_FILES", 5)
    shutil.rmtree(copied.root)
    assert "5 of 5" in recordings_problem(copied)


def test_a_storage_that_is_another_place_on_the_node_is_found(tmp_path):
    """A local folder as storage exists on every machine, and is nowhere the same."""
    here, elsewhere = (Storage.parse(str(tmp_path / name)) for name in ("driver", "node"))
    here.write_text(RUN_MARK, "run1")
    assert storage_problem(here, "run1", "abc") == ""
    assert "is another place here" in storage_problem(elsewhere, "run1", "abc")
    elsewhere.write_text(RUN_MARK, "an older run")
    assert "is another place here" in storage_problem(elsewhere, "run1", "abc")
    assert here.names() == [RUN_MARK], "nothing is left"


def test_a_storage_that_cannot_be_written_is_found(tmp_path):
    storage = Storage.parse(str(tmp_path / "file" / "sweep"))
    (tmp_path / "file").write_text("in the way")
    assert "cannot be read and written here" in storage_problem(storage, "run1", "abc")


def test_a_full_disk_and_a_folder_that_cannot_be_made_are_found(tmp_path, monkeypatch):
    assert disk_problem(tmp_path / "cache") == ""
    (tmp_path / "file").write_text("")
    assert "--cache-dir" in disk_problem(tmp_path / "file" / "cache")
    monkeypatch.setattr(check, "MIN_FREE_BYTES", 2**60)
    assert "must have 1 GB free" in disk_problem(tmp_path / "cache")


def test_the_first_problem_is_said(copied, tmp_path, monkeypatch):
    storage = Storage.parse(str(tmp_path / "s"))
    storage.write_text(RUN_MARK, "run1")
    node = NodeCheck(dataset=copied, cache_dir=tmp_path / "cache", sweep_folder=storage, run="run1", needs_gpu=False)
    assert node.problem("abc") == ""
    assert "another place" in replace(node, run="run2").problem("abc")
    monkeypatch.setattr(GpuFacts, "found", lambda: replace(H100, usable=False))
    assert "CUDA cannot be used" in replace(node, needs_gpu=True, run="run2").problem("abc")
