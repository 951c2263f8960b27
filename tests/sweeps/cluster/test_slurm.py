"""`slurm.sh` on a real Slurm of two nodes, which share a folder and nothing else: no memory, no network, no /tmp."""

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import SlurmCluster

REPOSITORY = Path(__file__).parents[3]
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Range, Search

SPECTROGRAM = SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False)
STAGES = (
    StageConfig(name="train_bce", label_space="target", loss="bce", seed=2, epochs=2, learning_rate=3e-3, clip_s=1.0, batch_size=4, clips_per_epoch=60),
)
SEARCH = Search(
    name="tiny",
    recipes=(Recipe(name="tiny", model=ModelConfig(encoder="mobilenetv3_small_050", spectrogram=SPECTROGRAM, drop_path_rate=0.0), stages=STAGES),),
    space={"train_bce.learning_rate": Range(1e-3, 1e-2, log=True)},
)
"""
EPOCH = re.compile(r"t0000 tiny +train_bce epoch (\d+)/60")
FLAGS = "--search tiny.py --budget full --samples 1 --max-concurrent 1 --tracking-uri off --pretrained off"


@pytest.fixture
def shared(tone_data) -> Iterator[Path]:
    """A checkout and a home folder as the README asks for, in a folder with a short path: sockets are in it."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    home, checkout = folder / "home", folder / "checkout"
    shutil.copytree(tone_data.dataset.root, home / "birdclef")
    activate = home / "birdclef-env" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'export PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{REPOSITORY}"\n')
    shutil.copytree(REPOSITORY / "sweeps" / "cluster", checkout / "sweeps" / "cluster")
    (checkout / "tune_main.py").symlink_to(REPOSITORY / "tune_main.py")
    (checkout / "tiny.py").write_text(SEARCH)
    script = checkout / "sweeps" / "cluster" / "slurm.sh"
    edited = script.read_text().replace("--search sed", FLAGS)
    assert edited != script.read_text()
    script.write_text(edited)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "-")
def test_a_job_that_is_stopped_by_its_limit_goes_on_when_it_runs_again(shared: Path) -> None:
    """The signal is the one that Slurm sends before the time limit; Slurm itself is asked for it, because a limit has whole minutes."""
    with slurm_cluster.slurm_cluster(shared) as slurm:
        job = submit(slurm, shared)
        read_until(slurm, shared, job, r"t0000 tiny +train_bce epoch 1/2")
        token = next((shared / "home").glob(f".birdclef-token-{job}"))
        assert token.stat().st_mode & 0o777 == 0o600
        slurm.command("scancel", "--batch", "--signal=USR1", job)
        stopped = read_until(slurm, shared, job, "Put back into the queue")
        assert "interrupted: the sweep was stopped" in stopped and "on 2 machines" in stopped
        output = read_until(slurm, shared, job, r"Best: t0000 \(tiny\)")
        wait_for_state(slurm, job, "COMPLETED")
    assert re.search(r"^t0000 +tiny +finished", output, re.MULTILINE), output
    assert "train_bce epoch 1/2" not in "".join(re.findall(".*t0000 .*", output.partition("Put back into the queue")[2]))
    assert not token.exists()
    assert not (shared / "home" / ".cache" / "birdclef-sweeps").exists(), "the cache is on the nodes' own disks"


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not os.environ.get("BIRDCLEF_LONG_TESTS"), reason="takes two minutes: set BIRDCLEF_LONG_TESTS=1")
@pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "-")
def test_a_job_that_loses_a_node_is_put_back_by_slurm_and_goes_on(shared: Path) -> None:
    search = shared / "checkout" / "tiny.py"
    search.write_text(SEARCH.replace("epochs=2", "epochs=60"))
    with slurm_cluster.slurm_cluster(shared) as slurm:
        job = submit(slurm, shared)
        read_until(slurm, shared, job, r"t0000 tiny +train_bce epoch 2/60")
        slurm.lose("n2")
        wait_for_state(slurm, job, "PENDING", seconds=90)
        before = max(int(epoch) for epoch in EPOCH.findall(read_until(slurm, shared, job, "epoch")))
        slurm.bring_back("n2")
        output = read_until(slurm, shared, job, r"Best: t0000 \(tiny\)")
        wait_for_state(slurm, job, "COMPLETED")
    epochs = [int(epoch) for epoch in EPOCH.findall(output)]
    assert before < 60 and epochs.count(60) == 1
    assert len(epochs) - len(set(epochs)) <= 1, "one epoch at most is trained again"
    assert re.search(r"^t0000 +tiny +finished", output, re.MULTILINE), output


def submit(slurm: SlurmCluster, shared: Path) -> str:
    """Submit the script for two nodes without GPUs, and return the job's number."""
    numbers = ("--gpus-per-node=0", "--nodes=2", "--cpus-per-task=1", "--mem-per-cpu=0")
    output = slurm.command("sbatch", *numbers, "sweeps/cluster/slurm.sh", cwd=shared / "checkout", HOME=str(shared / "home"))
    return output.split()[-1]


def read_until(slurm: SlurmCluster, shared: Path, job: str, pattern: str, seconds: float = 300) -> str:
    """Return what the job has printed once it matches."""
    log = shared / "checkout" / f"slurm-{job}.out"
    end = time.monotonic() + seconds
    while not re.search(pattern, text := log.read_text() if log.exists() else ""):
        assert time.monotonic() < end and slurm.state(job) not in ("FAILED", "CANCELLED", "TIMEOUT"), text
        time.sleep(0.3)
    return text


def wait_for_state(slurm: SlurmCluster, job: str, state: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while slurm.state(job) != state:
        assert time.monotonic() < end, slurm.command("scontrol", "show", "job", job)
        time.sleep(0.3)
