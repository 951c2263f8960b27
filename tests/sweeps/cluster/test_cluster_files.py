"""The cluster files fit what reads them: Ray's schema, the command line's flags, the versions of this project."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config

from sweeps.cli import tune as cli

REPOSITORY = Path(__file__).parents[3]
CLUSTER = REPOSITORY / "sweeps" / "cluster"
RAY_UP_FILES = ("own_machines.yaml", "aws.yaml")


def load(name: str) -> dict:
    return yaml.safe_load((CLUSTER / name).read_text())


def command_lines(name: str) -> list[str]:
    """The arguments of every call of tune_main.py in a file, directly or through start_or_resume.sh, without shell variables."""
    text = load(name)["spec"]["entrypoint"] if name == "rayjob.yaml" else (CLUSTER / name).read_text()
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    direct = re.findall(r"python tune_main\.py ([^`\n]*)", joined)
    wrapped = re.findall(r"start_or_resume\.sh birdclef-sed ([^`\n]*)", joined)
    return [line for line in direct if "$" not in line] + [f"--storage {line}" for line in wrapped]


@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_ray_up_files_fit_rays_schema(name: str) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = load(name)
    jsonschema.validate(config, schema)
    jsonschema.validate(prepare_config(config), schema)


def test_own_machines_are_all_used() -> None:
    config = prepare_config(load("own_machines.yaml"))
    (node_type,) = config["available_node_types"].values()
    assert node_type["min_workers"] == node_type["max_workers"] == len(config["provider"]["worker_ips"])


def test_aws_has_an_on_demand_head_and_spot_workers_whose_number_is_meant() -> None:
    config = load("aws.yaml")
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["max_workers"] == 0
    for worker in types.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["min_workers"] == worker["max_workers"], "a sweep counts the GPUs when it starts"
    assert config["max_workers"] == sum(worker["max_workers"] for worker in types.values())
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_every_node_asks_for_the_same_token(name: str) -> None:
    """A head that finds a token asks for it by itself, but a worker without RAY_AUTH_MODE does not send one."""
    config = load(name)
    assert "~/.ray/auth_token" in config["file_mounts"].values()
    if name == "aws.yaml":
        assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    else:
        for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
            assert "export RAY_AUTH_MODE=token" in commands[-1]
    assert "export RAY_AUTH_MODE=token" in (CLUSTER / "slurm.sh").read_text()
    assert load("rayjob.yaml")["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_documents_put_no_password_where_ray_shows_it() -> None:
    texts = "".join(path.read_text() for path in CLUSTER.iterdir() if path.name != "rayjob.yaml")
    assert "env_vars" not in texts and "TRACKING_PASSWORD" not in texts
    assert "~/.mlflow/credentials" in texts


@pytest.mark.parametrize(("mode", "status"), [(0o600, 0), (0o644, 2)])
def test_slurm_trusts_no_token_that_others_can_read(tmp_path: Path, mode: int, status: int) -> None:
    lines = (CLUSTER / "slurm.sh").read_text().splitlines()
    begin = lines.index("export RAY_AUTH_MODE=token")
    block = "\n".join(lines[begin : lines.index("fi", begin) + 1])
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(mode)
    (tmp_path / "ray").write_text("#!/bin/sh\n")
    (tmp_path / "ray").chmod(0o755)
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", block], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status and ("Others can read" in done.stderr) == bool(status)


def test_rayjob_workers_have_gpus_and_what_they_mount_exists() -> None:
    spec = load("rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    head, worker = (part["template"]["spec"] for part in (cluster["headGroupSpec"], group))
    assert "nvidia.com/gpu" in worker["containers"][0]["resources"]["limits"]
    for pod in (head, worker):
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"]
    script = spec["entrypoint"].split()[1]
    assert (REPOSITORY / Path(script).relative_to("/home/ray/birdclef-sweeps")).is_file()


def test_passwords_do_not_travel() -> None:
    """mlflow/.env is in the checkout of who runs the tracking server."""
    assert all("mlflow" in load(name)["rsync_exclude"] for name in RAY_UP_FILES)
    copied = re.findall(r"^COPY \S+ (.*) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    names = " ".join(copied).split()
    assert names and not {".", "mlflow"} & set(names)
    assert all((REPOSITORY / name).exists() for name in names if name != "README.md")


def test_every_file_names_the_ray_of_this_project() -> None:
    release = version("ray").rsplit(".", 1)[0]
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(item.startswith(f"ray[tune]>={release}") for item in dependencies)
    texts = "".join(path.read_text() for path in CLUSTER.iterdir())
    named = re.findall(r"rayproject/ray:(\d+\.\d+)|rayVersion: \"(\d+\.\d+)|ray\[default\]==(\d+\.\d+)", texts)
    assert len(named) >= 5
    assert {number for groups in named for number in groups if number} == {release}


@pytest.mark.parametrize(("name", "count"), [("README.md", 2), ("rayjob.yaml", 1), ("slurm.sh", 1)])
def test_commands_have_flags_that_the_command_line_knows(name: str, count: int) -> None:
    lines = command_lines(name)
    assert len(lines) == count
    for line in lines:
        arguments = cli._tune_parser().parse_args(shlex.split(line))
        assert (arguments.search, arguments.address) == ("sed", "auto")
        assert arguments.data and arguments.storage


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    ("resume_status", "calls", "status"),
    [
        (0, ["--resume birds --storage s3://b/s"], 0),
        (130, ["--resume birds --storage s3://b/s"], 130),
        (1, ["--resume birds --storage s3://b/s"], 1),
        (2, ["--resume birds --storage s3://b/s", "--name birds --storage s3://b/s --search sed --data a b"], 7),
    ],
)
def test_start_or_resume(tmp_path: Path, resume_status: int, calls: list[str], status: int) -> None:
    """A sweep that is there is gone on with and its exit status passed on; one that is not is started."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\necho "$@" >> {tmp_path}/calls\n[[ $2 == --resume ]] && exit {resume_status}\nexit 7\n')
    python.chmod(0o755)
    command = [CLUSTER / "start_or_resume.sh", "birds", "s3://b/s", "--search", "sed", "--data", "a b"]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    result = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
    assert (tmp_path / "calls").read_text().splitlines() == [f"tune_main.py {call}" for call in calls]
    assert result.returncode == status


def test_start_or_resume_needs_a_name_and_a_storage() -> None:
    result = subprocess.run([CLUSTER / "start_or_resume.sh", "birds"], capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "takes NAME STORAGE" in result.stderr
