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
from sweeps.options import PLACEMENT

REPOSITORY = Path(__file__).parents[3]
CLUSTER = REPOSITORY / "sweeps" / "cluster"
SSH_PAGE = "../../docs/ssh.md"
START_OR_RESUME = ("bash", CLUSTER / "start_or_resume.sh")
RAY_UP_FILES = ("own_machines.yaml", "aws.yaml")


def load(name: str) -> dict:
    return yaml.safe_load((CLUSTER / name).read_text())


def command_lines(name: str) -> list[tuple[str, str]]:
    """The arguments of every call of tune_main.py in a file, directly or through start_or_resume.sh, without shell variables.

    Of each call, those that are given to a new sweep alone, and those that are given to a resumed one too.
    """
    text = load(name)["spec"]["entrypoint"] if name == "rayjob.yaml" else (CLUSTER / name).read_text()
    for flags in re.findall(r"^everywhere=\((.*)\)$", text, re.MULTILINE):
        text = text.replace('"${everywhere[@]}"', flags)
    joined = re.sub(r"\s*\\\n\s*", " ", text)
    direct = re.findall(r"python tune_main\.py ([^`\n]*)", joined)
    wrapped = re.findall(r'start_or_resume\.sh (?:birdclef-sed|"\$SLURM_JOB_NAME") (.*?) -- ([^`\n|]*)', joined)
    return [(line, "") for line in direct if "$" not in line] + [(new, f"--storage {both}") for both, new in wrapped]


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
        assert worker["min_workers"] == 0, "they are made when trials need them"
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


def test_slurm_makes_a_token_for_each_job_that_others_cannot_read(tmp_path: Path) -> None:
    lines = (CLUSTER / "slurm.sh").read_text().splitlines()
    (begin,) = (number for number, line in enumerate(lines) if line.startswith("export RAY_AUTH_MODE=token"))
    script = "\n".join(["set -euo pipefail", *lines[begin : begin + 3]])
    token = tmp_path / ".birdclef-token-7"
    token.write_text("known to others")
    token.chmod(0o644)
    environment = {**os.environ, "HOME": str(tmp_path), "SLURM_JOB_ID": "7"}
    subprocess.run(["bash", "-c", script], env=environment, check=True)
    assert len(token.read_text().strip()) == 64 and token.stat().st_mode & 0o777 == 0o600


def rayjob_pods() -> dict[str, dict]:
    """The pods of the job, by what they are."""
    spec = load("rayjob.yaml")["spec"]
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    return {
        "submitter": spec["submitterPodTemplate"]["spec"],
        "head": spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"],
        "worker": group["template"]["spec"],
    }


def test_rayjob_has_gpu_workers_from_zero_and_what_they_mount_exists() -> None:
    spec = load("rayjob.yaml")["spec"]
    cluster = spec["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"]
    assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
    assert "--wait-for-gpus 1" in spec["entrypoint"], "nothing else would ask for the first worker"
    pods = rayjob_pods()
    assert "nvidia.com/gpu" in pods["worker"]["containers"][0]["resources"]["limits"]
    for pod in pods.values():
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} == {
            volume["name"] for volume in pod.get("volumes", ())
        }
    assert spec["backoffLimit"] > 0 and spec["shutdownAfterJobFinishes"]
    pre_stop = pods["head"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    for script in (spec["entrypoint"].split()[1], pre_stop[1]):
        assert (REPOSITORY / Path(script).relative_to("/home/ray/birdclef-sweeps")).is_file()
    assert pods["head"]["terminationGracePeriodSeconds"] > int(pre_stop[2])


def test_rayjob_pods_fit_the_restricted_policy_and_are_limited() -> None:
    """Kubernetes' Pod Security Standard "restricted"; an unlimited pod could fill the disk of its machine and end its neighbours."""
    containers = [container for pod in rayjob_pods().values() for container in pod["containers"]]
    for pod in rayjob_pods().values():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        kinds = [next(key for key in volume if key != "name") for volume in pod.get("volumes", ())]
        assert set(kinds) <= {"persistentVolumeClaim", "emptyDir"}
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod.get("volumes", ()) if "emptyDir" in volume)
    for container in [*containers, load("rayjob.yaml")["spec"]["rayClusterSpec"]["autoscalerOptions"]]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory", "ephemeral-storage"} <= container["resources"][kind].keys()
    for container in containers:
        assert all(re.search(r"KEY|PASSWORD|TOKEN|SECRET", item["name"]) is None for item in container.get("env", ()))


def test_passwords_do_not_travel() -> None:
    """mlflow/.env is in the checkout of who runs the tracking server."""
    assert all("mlflow" in load(name)["rsync_exclude"] for name in RAY_UP_FILES)
    copied = re.findall(r"^COPY \S+ (.*) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    names = " ".join(copied).split()
    assert names and not {".", "mlflow"} & set(names)
    assert all((REPOSITORY / name).exists() for name in names if name != "README.md")


def test_every_environment_has_the_versions_that_were_tested() -> None:
    for name in ("Dockerfile", "own_machines.yaml", "aws.yaml"):
        installs = re.findall(r"pip install .*", (CLUSTER / name).read_text())
        assert installs and all("constraints.txt" in line for line in installs), name
    assert "constraints.txt" in (CLUSTER / "Dockerfile").read_text().partition("RUN")[0]


def test_every_file_names_the_ray_of_this_project() -> None:
    release = version("ray").rsplit(".", 1)[0]
    dependencies = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(item.startswith(f"ray[tune]>={release}") for item in dependencies)
    texts = "".join(path.read_text() for path in (*CLUSTER.iterdir(), CLUSTER / SSH_PAGE))
    named = re.findall(r"rayproject/ray:(\d+\.\d+)|rayVersion: \"(\d+\.\d+)|ray\[default\]==(\d+\.\d+)", texts)
    assert len(named) >= 5
    assert {number for groups in named for number in groups if number} == {release}


@pytest.mark.parametrize(("name", "count"), [("README.md", 2), (SSH_PAGE, 1), ("rayjob.yaml", 1), ("slurm.sh", 1)])
def test_commands_have_flags_that_the_command_line_knows(name: str, count: int) -> None:
    lines = command_lines(name)
    assert len(lines) == count
    for new, both in lines:
        arguments = cli.tune_parser().parse_args(shlex.split(f"{new} {both}"))
        assert (arguments.search, arguments.address) == ("sed", "auto")
        assert arguments.data and arguments.storage
        given = cli._given(cli.tune_parser().parse_args(["--resume", "x", *shlex.split(both)]))
        assert given.keys() <= {"storage", *PLACEMENT}, "a resumed sweep takes no others"


@pytest.mark.parametrize("script", sorted(CLUSTER.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize(
    ("resume_status", "calls", "status"),
    [
        (0, ["--resume birds --storage s3://b/s --address auto"], 0),
        (130, ["--resume birds --storage s3://b/s --address auto"], 130),
        (1, ["--resume birds --storage s3://b/s --address auto"], 1),
        (
            2,
            [
                "--resume birds --storage s3://b/s --address auto",
                "--name birds --storage s3://b/s --address auto --search sed --data a b",
            ],
            7,
        ),
    ],
)
def test_start_or_resume(tmp_path: Path, resume_status: int, calls: list[str], status: int) -> None:
    """A sweep that is there is gone on with and its exit status passed on; one that is not is started."""
    environment = with_python(tmp_path, f'echo "$@" >> {tmp_path}/calls\n[[ $2 == --resume ]] && exit {resume_status}\nexit 7\n')
    command = [*START_OR_RESUME, "birds", "s3://b/s", "--address", "auto", "--", "--search", "sed", "--data", "a b"]
    result = subprocess.run(command, env=environment, cwd=tmp_path, check=False)
    assert (tmp_path / "calls").read_text().splitlines() == [f"tune_main.py {call}" for call in calls]
    assert result.returncode == status


def test_start_or_resume_needs_a_name_and_a_storage() -> None:
    for arguments in (["birds"], ["birds", "--address", "auto"]):
        result = subprocess.run([*START_OR_RESUME, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 2 and "takes NAME STORAGE" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for processes that only it sees, as in a container")
def test_a_head_pod_that_is_ended_lets_its_driver_stop(tmp_path: Path) -> None:
    """The hook waits until the driver has ended on the one signal that it gets; no other attempt is started after it."""
    driver = "trap 'sleep 0.5; echo stopped; exit 130' TERM\necho running\nwhile :; do sleep 0.1; done\n"
    environment = with_python(tmp_path, driver)
    pod = (
        f"bash {CLUSTER}/start_or_resume.sh birds s3://b/s > log & "
        f"until grep -q running log; do sleep 0.1; done; bash {CLUSTER}/stop_driver.sh 20; echo hook $? >> log; wait $!; echo status $? >> log"
    )
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "bash", "-c", pod]
    subprocess.run(inside, env=environment, cwd=tmp_path, check=True, timeout=60)
    assert (tmp_path / "log").read_text().splitlines() == ["running", "stopped", "hook 0", "status 130"]


def with_python(folder: Path, script: str) -> dict[str, str]:
    """An environment in which `python` is this script."""
    python = folder / "python"
    python.write_text(f"#!/bin/bash\n{script}")
    python.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
