"""Whole sweeps through the command line, in processes of their own: they end, go on, and survive what can be killed."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest
import ray  # noqa: F401  it brings psutil along
from made_up_detector import write_sound
from psutil import AccessDenied, NoSuchProcess, Process

from birdclef_core.store.storage import Storage
from sweeps.cli.tune import tune_main
from sweeps.schedule.records import SweepRecords
from sweeps.tracking.server import run_local

REPOSITORY = Path(__file__).parents[3]
SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Range, Search

MODEL = ModelConfig(
    encoder="mobilenetv3_small_050",
    spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500, deltas=False),
    drop_path_rate=0.0,
)
COMMON = dict(learning_rate=3e-3, clip_s=1.0, batch_size=4, clips_per_epoch=8)
SEARCH = Search(
    name="tiny",
    recipes=(
        Recipe(
            name="tiny",
            model=MODEL,
            stages=(
                StageConfig(name="pretrain_ce", label_space="all", loss="ce", seed=1, epochs=2, **COMMON),
                StageConfig(name="train_bce", label_space="target", loss="bce", seed=2, epochs=3, **COMMON),
            ),
        ),
    ),
    space={"train_bce.learning_rate": Range(1e-3, 1e-2, log=True)},
)
"""
LONG_EPOCHS = ("--set", "train_bce.clips_per_epoch=120")
"""So long that a sweep has not ended before it hears of a signal, however busy the machine is."""

PASSWORD, KEY = "planted-pass%2Fword", "planted-secret-key"
PLANTED = {"AWS_ACCESS_KEY_ID": "AKIAPLANTED", "AWS_SECRET_ACCESS_KEY": KEY, "HF_TOKEN": "hf_plantedtoken"}


class Workplace:
    """A folder with a search, from which sweeps are started as a user would."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        (folder / "tiny.py").write_text(SEARCH)
        self.output = folder / "sweeps-output"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(REPOSITORY / "tune_main.py"), *arguments]

    def start_arguments(self, *more: str) -> list[str]:
        common = ["--data", str(self.data), "--budget", "full", "--tracking-uri", "off", "--pretrained", "off"]
        return ["--search", "tiny.py", "--name", "s", "--cache-dir", str(self.folder / "cache"), *common, *more]

    def run(self, *arguments: str, expect: int = 0) -> str:
        """What a command says that nobody kills: in this process, which has imported already what takes a new one eight seconds."""
        said, kept = io.StringIO(), patch.dict(os.environ, self.environment())
        with contextlib.chdir(self.folder), kept, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = tune_main(arguments)
        assert code == expect, said.getvalue()
        return said.getvalue()

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @staticmethod
    def environment() -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}

    def trials(self) -> dict[str, dict]:
        records = SweepRecords(Storage.parse(str(self.output / "s"))).load_trials()
        return {record.trial: asdict(record) for record in records}

    def workers(self) -> list[int]:
        """Processes that run trials of a driver started here (Ray names them after the class that they run)."""
        found = subprocess.run(["pgrep", "-f", "ray::ResourceTrainable"], capture_output=True, text=True, check=True)
        mine = [int(pid) for pid in found.stdout.split() if Path(f"/proc/{pid}/cwd").resolve() == self.folder.resolve()]
        assert mine
        return mine

    def published(self) -> int:
        return len(list((self.output / "store" / "stages").glob("*/published.json")))


def read_until(process: subprocess.Popen, pattern: str) -> str:
    """The output up to a line that matches."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(f"{pattern} never came:\n{seen}")


@pytest.fixture
def place(tmp_path, tone_data) -> Workplace:
    return Workplace(tmp_path, tone_data.dataset.root)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, tone_data) -> Path:
    """The output of a sweep with two trials of fold 0."""
    place = Workplace(tmp_path_factory.mktemp("ended"), tone_data.dataset.root)
    place.run(*place.start_arguments("--samples", "2", "--max-concurrent", "1"))
    return place.output


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_ends_with_a_ranking_and_shares_its_prefix(place):
    objective = ("--objective", "0.5*val/cmap+0.5*val/lrap,cost/cpu_seconds_10min")
    write_sound(place.folder / "in" / "a.wav", 12.0)
    then = ("--then", "submit", "--soundscapes", "in", "--time-limit", "60m")
    told = ("--tag", "site=pond", "--on-best", "cat >> best.json", "--on-end", "cat > end.json; sleep 1; exit 3")
    output = place.run(*place.start_arguments("--samples", "3", "--max-concurrent", "2", *objective, *told, *then))
    trials = place.trials()
    assert sorted(trials) == ["t0000", "t0001", "t0002"]
    assert {record["status"] for record in trials.values()} == {"finished"}
    assert sum(record["epochs_trained"] for record in trials.values()) == 2 + 3 * 3, "the prefix once"
    assert place.published() == 4
    best = max(trials.values(), key=lambda record: record["score"])
    assert f"Best: {best['trial']} (tiny), 0.5*val/cmap + 0.5*val/lrap {best['score']:.3f}" in output
    for record in trials.values():
        metrics = record["metrics"]
        assert record["score"] == pytest.approx(0.5 * metrics["val/cmap"] + 0.5 * metrics["val/lrap"])
        assert record["stage_scores"]["train_bce"] == record["score"] != record["stage_scores"]["pretrain_ce"]
    checkpoint = place.folder / re.search(r"Best checkpoint: (\S+)", output).group(1)
    assert checkpoint.is_file()
    assert "times chance" in output
    assert output.count("Measuring what mobilenetv3_small_050 (sed) takes") == 1, "all trials have the same model"
    (cpu_seconds,) = {record["cpu_seconds"] for record in trials.values()}
    front = json.loads((place.output / "s" / "result" / "pareto_front.json").read_text())["trials"]
    assert [(entry["trial"], entry["cost"], entry["checkpoint"]) for entry in front] == [
        (best["trial"], cpu_seconds, str(checkpoint))
    ]
    end, bests = json.loads((place.folder / "end.json").read_text()), (place.folder / "best.json").read_text()
    assert end["state"] == "finished" and end["best"]["trial"] == best["trial"] and end["tags"] == {"site": "pond"}
    assert end["best"]["checkpoint"] == str(checkpoint) and f'"trial": "{best["trial"]}"' in bests
    assert "The command of --on-end failed: exit code 3. The sweep is not affected." in output
    report = place.output / "s" / "result" / "report.html"
    assert "Look at the sweep: sweeps-output/s/result/report.html\n" in output and end["report"] == str(report)
    card = re.search(r"Look at the best model: (\S+)", output).group(1)
    assert (place.folder / card).samefile(checkpoint.with_name("card.html"))
    assert "Find birds in a recording: birdclef predict my.wav --model s -o birds/\n" in output
    assert f"../../store/stages/{best['stage_ids'][-1]}" in report.read_text() and "site=pond" in report.read_text()
    assert len(pd.read_csv(report.with_name("trials.csv"))) == 3
    assert (place.folder / "s-ensemble" / "ensemble.html").is_file() and "No untouched data: " in output
    rows = pd.read_csv(place.folder / "submission.csv")
    assert rows["row_id"].tolist() == ["a_5", "a_10"] and list(rows) == ["row_id", "low", "top"]
    assert "Traceback" not in output and "WARNING" not in output
    assert "must be new" in place.run(*place.start_arguments("--samples", "3"), expect=2)


@pytest.mark.slow
@pytest.mark.ray
def test_an_ended_sweep_is_extended_and_its_stages_are_started_from(place, ended):
    """Two trials; one more of a wider search of another name; then a new sweep from the first trial's prefix."""
    shutil.copytree(ended, place.output)
    wider = SEARCH.replace("Range(1e-3, 1e-2", "Range(1e-4, 1e-1").replace('name="tiny",\n    rec', 'name="wider",\n    rec')
    (place.folder / "wider.py").write_text(wider)
    refused = place.run("--extend", "s", "--samples", "1", "--objective", "val/lrap", expect=2)
    assert "compared by the same objective, and s has val/cmap, but got val/lrap" in refused
    more = place.run("--extend", "s", "--samples", "1", "--search", "wider.py")
    assert "1 more trial after 2" in more and "Plan: 1 trial" in more and "1 of them in the store" in more
    assert "neither reported to the sampler" not in more
    trials = place.trials()
    assert {record["status"] for record in trials.values()} == {"finished"}
    assert [record["epochs_trained"] for record in trials.values()] == [5, 3, 3], "the prefix once"

    arguments = place.start_arguments("--samples", "1", "--from-stage", "s/t0000/pretrain_ce", "--max-concurrent", "1")
    arguments[arguments.index("--name") + 1] = "from"
    output = place.run(*arguments)
    assert "starts from tiny pretrain_ce" in output and "train_bce reused" in output, "the recipe itself, which t0000 was"
    assert place.published() == 4


@pytest.mark.slow
@pytest.mark.ray
def test_a_start_stage_of_another_fold_is_refused_or_marks_every_score(place, ended):
    shutil.copytree(ended, place.output)
    arguments = ["--samples", "1", "--fold", "1", "--from-stage", "s/t0000/pretrain_ce", "--name", "other"]
    output = place.run(*place.start_arguments(*arguments), expect=2)
    number, of = re.search(r"but (\d+) of the (\d+) validation recordings of fold 1 trained tiny pretrain_ce", output).groups()
    assert int(number) > 0 and "--fold 0" in output
    assert not (place.output / "other").exists()
    output = place.run(*place.start_arguments(*arguments, "--allow-leaked-scores"))
    sentence = f"leaked: {number} of {of} validation recordings trained the start stage"
    assert re.search(rf"Best: t0000 .*, {sentence}\.", output)
    assert sentence in (place.output / "other" / "result" / "ranking.md").read_text()
    assert len(list((place.output / "store" / "recordings").glob("*.parquet"))) == 2


@pytest.mark.slow
@pytest.mark.ray
def test_after_ctrl_c_and_after_kill_9_of_the_driver_a_resume_goes_on(place):
    process = place.start(*place.start_arguments("--samples", "3", "--max-concurrent", "1", *LONG_EPOCHS))
    read_until(process, r"t0001 .*train_bce epoch 1/3")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "--resume s" in rest and "Traceback" not in rest
    before = place.trials()
    assert [record["status"] for record in before.values()] == ["finished", "interrupted"]

    process = place.start("--resume", "s")
    output = read_until(process, r"t0002 .*train_bce epoch 1/3")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    middle = place.trials()
    assert middle["t0000"] == before["t0000"] and "t0000" not in output
    assert middle["t0001"]["params"] == before["t0001"]["params"]
    assert [record["status"] for record in middle.values()] == ["finished", "finished", "running"]
    assert middle["t0001"]["epochs_trained"] <= 3 + 1, "at most the epoch that was under way again"

    output = place.run("--resume", "s")
    after = place.trials()
    assert (after["t0000"], after["t0001"]) == (middle["t0000"], middle["t0001"])
    assert after["t0002"]["status"] == "finished" and after["t0002"]["params"] == middle["t0002"]["params"]
    assert "train_bce epoch 1/3" not in "".join(re.findall(r".*t0002.*", output)), "the first epoch was not trained again"


@pytest.mark.slow
@pytest.mark.ray
def test_a_killed_worker_is_replaced_and_loses_one_epoch_at_most(place):
    """With a signal that it hears in its first stage, and with one that it does not hear in its second."""

    def kill_in_an_epoch(number: int) -> None:
        time.sleep(0.5)  # well into the epoch after the one that was reported
        for pid in place.workers():
            os.kill(pid, number)

    def errors() -> str:
        return "".join(path.read_text() for path in (place.output / "s" / "tune").glob("*/error.txt"))

    process = place.start(*place.start_arguments("--samples", "1", "--set", "clips_per_epoch=250"))
    output = read_until(process, r"t0000 .*pretrain_ce epoch 1/2")
    kill_in_an_epoch(signal.SIGTERM)
    output += read_until(process, r"t0000 .*train_bce epoch 1/3")
    assert "epoch 2, step" in errors() and "SIGTERM was received" in errors()
    kill_in_an_epoch(signal.SIGKILL)
    output += process.communicate(timeout=200)[0]
    assert process.returncode == 0, output
    assert place.trials()["t0000"]["status"] == "finished"
    epochs = re.findall(r"t0000 .*?(\w+ epoch \d/\d)", output)
    assert epochs == [f"pretrain_ce epoch {epoch}/2" for epoch in (1, 2)] + [f"train_bce epoch {epoch}/3" for epoch in (1, 2, 3)]
    assert output.count("worker lost") == 2, output


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_stays_in_its_bytes_and_the_next_one_trains_damaged_stages_again_aloud(place):
    """34 MiB: nine of a stage's size are for epoch checkpoints and one for the next stage, so two fit beside the best trial."""
    output = place.run(*place.start_arguments("--samples", "3", "--max-concurrent", "1", "--max-store-bytes", "34M"))
    assert "may take 34.0 MiB (--max-store-bytes)" in output
    removed = sum(int(number) for number in re.findall(r"Store: removed (\d+) stage", output))
    assert removed > 0 and place.published() == 4 - removed
    assert (place.folder / re.search(r"Best checkpoint: (\S+)", output).group(1)).is_file()
    assert "<svg" in (place.output / "s" / "result" / "tree.html").read_text()
    for weights in (place.output / "store" / "stages").glob("*/*/weights.safetensors"):
        os.truncate(weights, 100)
    output = place.run(*place.start_arguments("--samples", "1", "--name", "again"))
    assert "is damaged and will be trained again" in output and "pretrain_ce epoch 2/2" in output


@pytest.mark.slow
@pytest.mark.ray
def test_when_all_trials_fail_the_first_reason_is_given(place):
    output = place.run(*place.start_arguments("--samples", "2", "--set", "learning_rate=1e30"), expect=1)
    assert "No trial finished. The first reason: The loss must be finite" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.ray
def test_gpus_that_are_not_there_are_refused(place):
    output = place.run(*place.start_arguments("--gpus-per-trial", "64"), expect=2)
    assert "A trial must fit on one node, but --gpus-per-trial 64 and --cpus-per-trial" in output


@pytest.mark.slow
@pytest.mark.ray
def test_a_storage_that_cannot_be_written_is_refused(place):
    output = place.run(*place.start_arguments("--storage", "/proc/sweeps"), expect=2)
    assert "The storage /proc/sweeps must be writable, but is not" in output and "Traceback" not in output


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_keeps_everything_on_s3_and_is_resumed_from_there(place, s3_uri):
    place.run(*place.start_arguments("--samples", "2", "--max-concurrent", "1", "--storage", s3_uri))
    shutil.rmtree(place.output, ignore_errors=True)
    output = place.run("--resume", "s", "--storage", s3_uri)
    assert "Best: t000" in output
    assert not re.search(r"epoch \d+/", output), "nothing was trained again"
    assert not (place.output / "store").exists()


def seen_of(driver: Process) -> tuple[set[str], str, set[str]]:
    """Addresses on which a driver's processes listen, their command lines, and the tokens that Ray's have."""
    addresses, commands, tokens = set(), "", set()
    for process in (driver, *driver.children(recursive=True)):
        with contextlib.suppress(NoSuchProcess, AccessDenied):  # it has ended
            commands += " ".join(process.cmdline())
            links = [link for link in process.net_connections(kind="inet") if link.status == "LISTEN"]
            addresses |= {link.laddr.ip.removeprefix("::ffff:") for link in links}
            if process.name() == "raylet":
                assert len(links) == 2
                tokens.add(process.environ()["RAY_AUTH_TOKEN"])
    return addresses, commands, tokens


def files_with(words: set[bytes], *folders: Path) -> list[tuple[Path, bytes]]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 20
    return [(path, word) for path in files for content in [path.read_bytes()] for word in words if word in content]


@pytest.mark.slow
def test_a_sweep_keeps_its_secrets(tmp_path, tone_data, monkeypatch):
    """Passwords on the command line and in the environment, a tracker that takes everything, one trial; then all that was written."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    place = Workplace(tmp_path, tone_data.dataset.root)
    with run_local(tmp_path / "mlflow") as url:
        arguments = place.start_arguments("--samples", "1", "--max-concurrent", "1")
        arguments[arguments.index("off")] = url.replace("://", f"://ann:{PASSWORD}@")
        started = place.start(*arguments)
        output = read_until(started, "started with")
        addresses, commands, tokens = seen_of(Process(started.pid))
        assert addresses == {"127.0.0.1"} and len(tokens) == 1
        assert "tune_main.py" in commands and "planted" not in commands
        output += started.communicate(timeout=300)[0]
    assert started.returncode == 0, output
    assert f"birdclef ui s --tracking-uri {url}" in output
    words = {b"planted-pass", *(value.encode() for value in PLANTED.values()), *(token.encode() for token in tokens)}
    (session,) = Path("/tmp/ray").glob(f"session_*_{started.pid}")
    assert files_with(words, place.output, tmp_path / "mlflow", session) == []
    assert not any(word in output.encode() for word in words)
    assert url.encode() in b"".join(path.read_bytes() for path in place.output.rglob("sweep.json"))
    assert os.environ.get("MLFLOW_TRACKING_PASSWORD") is None


@pytest.mark.slow
def test_a_sweep_waits_for_an_object_store_that_is_away(place, s3_endpoint):
    """A server of its own is stopped and started again: nothing is lost, and it is said once. Stopped for good, it ends the sweep."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="away")
    uri = f"s3://away/sweeps?endpoint_override=http://{host}:{port}&region=us-east-1"
    started = place.start(
        *place.start_arguments("--samples", "1", *LONG_EPOCHS, "--storage", uri, "--storage-outage-minutes", "0.4")
    )
    output = read_until(started, r"pretrain_ce epoch 2/2")
    server.stop()
    output += read_until(started, "is away")
    time.sleep(3)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    output += read_until(started, "is back after")
    assert "worker lost" not in output
    server.stop()
    output += started.communicate(timeout=300)[0]
    assert started.returncode == 130 and "Traceback" not in output, output
    assert output.count("is away: it cannot be reached") == 2
    assert (
        f"was away for 0.4 minutes: it cannot be reached. Stopped. Continue with: python tune_main.py --resume s --storage '{uri}'"
        in output
    )
