"""A Slurm cluster of this machine: a controller and two nodes, each with its own network address and its own /tmp, in namespaces."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("n1", "n2")
RUN = os.getpid() % 250
"""Several test runs on one machine get networks and ports of their own."""
BRIDGE = f"bcs{RUN}"
NETWORK = f"10.213.{RUN}"
CONFIG = """
ClusterName=test
SlurmctldHost={host}({network}.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/ctl.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/ctl.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={port}
SlurmdPort={node_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=5
SlurmdTimeout=10
OverTimeLimit=0
GresTypes=gpu
NodeName=n1 NodeAddr={network}.11 CPUs=4 RealMemory=100000 State=UNKNOWN
NodeName=n2 NodeAddr={network}.12 CPUs=4 RealMemory=100000 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return why no Slurm cluster can be made here; empty where one can."""
    if os.geteuid() != 0:
        return "needs root, for the namespaces"
    programs = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "ip", "unshare")
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge, iproute2)"
    return ""


class SlurmCluster:
    """A running cluster; `folder` is the only one that its nodes share beside the system's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen] = []
        self._nodes: dict[str, subprocess.Popen] = {}

    def command(self, *words: str, user: str | None = None, cwd: Path | None = None, **environment: str) -> str:
        """Run one of Slurm's commands and return what it prints."""
        done = subprocess.run(
            words, env=self.environment | environment, user=user, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def state(self, job: str) -> str:
        """Return the state of a job, such as RUNNING."""
        shown = self.command("scontrol", "show", "job", job)
        return shown.partition("JobState=")[2].partition(" ")[0]

    def start(self) -> None:
        folder = self.folder
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        (folder / "slurm.conf").write_text(
            CONFIG.format(
                folder=folder, network=NETWORK, host=socket.gethostname(), port=25000 + 2 * RUN, node_port=25001 + 2 * RUN
            )
        )
        # Nothing of this cluster needs control groups, and not every machine has them.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self._spawn("munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "address", "add", f"{NETWORK}.1/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        _wait_for((folder / "munge.socket").exists, "munged")
        self._spawn("slurmctld", "-D")
        for number, node in enumerate(NODES, start=1):
            name = f"{BRIDGE}{node}"
            _run("ip", "netns", "add", name)
            _run("ip", "link", "add", f"{BRIDGE}{node}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _run("ip", "link", "set", f"{BRIDGE}{node}", "master", BRIDGE, "up")
            inside = ("ip", "netns", "exec", name)
            _run(*inside, "ip", "link", "set", "lo", "up")
            _run(*inside, "ip", "address", "add", f"{NETWORK}.{10 + number}/24", "dev", "eth0")
            _run(*inside, "ip", "link", "set", "eth0", "up")
            _run(*inside, "ip", "route", "add", "default", "via", f"{NETWORK}.1")
            self._start_node(node)
        _wait_for(lambda: self.command("sh", "-c", "sinfo -h -o '%D %t' || true").strip() == "2 idle", "the nodes")

    def _start_node(self, node: str) -> None:
        """Start slurmd with its own network, process numbers and /tmp. The shared folder may itself lie in /tmp."""
        shared = self.folder
        mounts = (
            f"mount --bind {shared} /mnt && mount -t tmpfs -o mode=1777 none /tmp && mkdir -p {shared} && mount --move /mnt {shared}"
            f" && exec slurmd -D -N {node}"
        )
        # Not `ip netns exec`: it replaces /sys.
        self._nodes[node] = self._spawn(
            "nsenter",
            f"--net=/run/netns/{BRIDGE}{node}",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "bash",
            "-c",
            mounts,
        )

    def lose(self, node: str) -> None:
        """Kill a node with everything that runs on it, as when its power fails."""
        daemon = self._nodes.pop(node)
        self._daemons.remove(daemon)
        daemon.kill()
        daemon.wait()

    def bring_back(self, node: str) -> None:
        """Start a lost node again, with an empty /tmp. Slurm takes it as soon as it answers."""
        self._start_node(node)

    def _spawn(self, *words: str) -> subprocess.Popen:
        log = (self.folder / "daemons.log").open("a")
        self._daemons.append(subprocess.Popen(words, env=self.environment, stdout=log, stderr=log, start_new_session=True))
        return self._daemons[-1]

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(3)
            except subprocess.TimeoutExpired:  # its namespace of processes ends with it
                daemon.kill()
                daemon.wait()
        for node in NODES:
            subprocess.run(["ip", "netns", "delete", f"{BRIDGE}{node}"], check=False, capture_output=True)
            subprocess.run(["ip", "link", "delete", f"{BRIDGE}{node}"], check=False, capture_output=True)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Run a cluster for the block."""
    cluster = SlurmCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _wait_for(condition, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not start in {seconds:.0f} s"
        time.sleep(0.2)
