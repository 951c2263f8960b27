"""Whether a node can train the trials of a sweep: its GPU, the recordings, the storage, room on its disk."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from birdclef_core.data.dataset import Dataset
from birdclef_core.data.packed.fetching import PackedData
from birdclef_core.store.storage import Storage

RUN_MARK = "run.txt"
"""The file in a sweep's folder that holds the id of the last run of its driver: a node that finds another one sees another place."""
CHECKED_FILES = 300
"""How many recordings are looked for on each node: enough to find a part that is missing, and done in a second on a network disk."""
MIN_FREE_BYTES = 2**30
"""A node with less room for decoded audio is not used."""
OLDEST_DRIVERS = {12: 525, 13: 580}
"""The oldest NVIDIA driver for each version of CUDA that torch is built for (NVIDIA, CUDA Compatibility, minor version compatibility)."""
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class GpuFacts:
    """What torch and the system say about the GPU of a node."""

    torch_version: str
    cuda_version: str | None
    """The CUDA version that torch was built for; None: a build without CUDA."""
    usable: bool
    """Whether torch can use CUDA."""
    name: str = ""
    """Name of the GPU."""
    capability: tuple[int, int] = (0, 0)
    """Its compute capability."""
    architectures: tuple[str, ...] = ()
    """What torch has code for, such as `sm_75`."""
    driver: str = ""
    """Version of the NVIDIA driver; empty when there is none."""

    @classmethod
    def found(cls) -> "GpuFacts":
        """Return the facts of this process."""
        usable = torch.cuda.is_available()
        return cls(
            torch_version=torch.__version__,
            cuda_version=torch.version.cuda,
            usable=usable,
            name=torch.cuda.get_device_name() if usable else "",
            capability=torch.cuda.get_device_capability() if usable else (0, 0),
            architectures=tuple(torch.cuda.get_arch_list()),
            driver=_driver(),
        )

    def problem(self) -> str:
        """Return why trials cannot train on the GPU that Ray gave, with the way out; empty when they can."""
        if self.cuda_version is None:
            return (
                f"Ray gave a GPU, but torch {self.torch_version} is a build without CUDA. Install the one with CUDA that constraints.txt names "
                "(PyPI has it for Linux), or train on CPUs: --gpus-per-trial 0."
            )
        if not self.usable:
            needs = OLDEST_DRIVERS.get(int(self.cuda_version.partition(".")[0]))
            newer = f"driver {needs} or newer" if needs else "a newer driver"
            return (
                f"Ray gave a GPU, but CUDA cannot be used: torch {self.torch_version} is built for CUDA {self.cuda_version} and needs an NVIDIA "
                f"{newer}, and this node has {f'driver {self.driver}' if self.driver else 'none'}. Update the driver (nvidia-smi must work), "
                "or train on CPUs: --gpus-per-trial 0."
            )
        known = [int(digits) for name in self.architectures if (digits := name.partition("_")[2]).isdigit()]
        have = 10 * self.capability[0] + self.capability[1]
        if known and have < min(known):
            return (
                f"{self.name} has compute capability {have / 10:.1f}, and torch {self.torch_version} has code for {min(known) / 10:.1f} and newer "
                "cards (Turing: T4, RTX 20). Use another machine, or train on CPUs: --gpus-per-trial 0."
            )
        return ""


@dataclass(frozen=True, kw_only=True)
class NodeCheck:
    """What every node must have to train the trials of a sweep."""

    dataset: Dataset
    """The recordings as the driver sees them."""
    cache_dir: Path
    """Folder of decoded audio."""
    sweep_folder: Storage
    """The sweep's folder in the storage, where the driver has left its mark."""
    run: str
    """Id of this run of the driver, which is the mark."""
    needs_gpu: bool
    packed: PackedData | None = None
    """The packed set that the node is to fetch the recordings from, if any."""

    def problem(self, node: str) -> str:
        """Return what keeps this machine from training, with the way out; empty when nothing does. `node`: its id, for a file's name."""
        gpu = GpuFacts.found().problem() if self.needs_gpu else ""
        return (
            gpu
            or (self.packed.problem() if self.packed else recordings_problem(self.dataset))
            or storage_problem(self.sweep_folder, self.run, node)
            or disk_problem(self.cache_dir)
        )


def recordings_problem(dataset: Dataset) -> str:
    """Return how the recordings of this machine differ from the driver's, of which some hundred are looked for; empty when none does."""
    files = [
        (dataset.root / path, size)
        for table in (dataset.recordings, dataset.noise)
        for path, size in _sample(table["path"].tolist(), table["size_bytes"].tolist())
    ]
    wrong = [path for path, size in files if _size(path) != size]
    if not wrong:
        return ""
    return (
        f"the recordings must be the same on every node, but {len(wrong)} of {len(files)} that were looked for are missing here or differ "
        f"in size, such as {wrong[0]}. Copy the data folder to this node, to the same path, "
        "mount it there, or pack it (`birdclef data pack`) and give the address of the packed set as --data: each node then fetches it."
    )


def storage_problem(sweep_folder: Storage, run: str, node: str) -> str:
    """Return why this machine cannot work with the driver's storage; empty when it can."""
    try:
        seen = sweep_folder.read_bytes(RUN_MARK)
        probe = f"node-{node}.txt"
        sweep_folder.write_text(probe, run)
        sweep_folder.delete(probe)
    except OSError as error:
        return f"the storage {sweep_folder.root} cannot be read and written here: {error}. Give this node access to it."
    if seen is None or seen.decode() != run:
        return (
            f"the storage {sweep_folder.root} is another place here than on the driver's machine. Give one that all nodes reach: s3://, gs://, "
            "or a folder that is mounted at the same path everywhere."
        )
    return ""


def disk_problem(cache_dir: Path) -> str:
    """Return why decoded audio cannot be kept in a folder; empty when it can."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_dir).free
    except OSError as error:
        return f"the folder of decoded audio, {cache_dir}, cannot be made: {error}. Give another one: --cache-dir."
    if free < MIN_FREE_BYTES:
        return (
            f"the disk of {cache_dir} must have 1 GB free for decoded audio, but has {free / 1e9:.2f} GB. Make room, or give a folder on "
            "another disk: --cache-dir."
        )
    return ""


def _sample(paths: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int]]:
    """At most CHECKED_FILES of some files, evenly spaced."""
    step = max(1, -(-len(paths) // CHECKED_FILES))
    return list(zip(paths, sizes, strict=True))[::step]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _driver() -> str:
    try:
        found = re.search(r"\b\d{3}\.\d+(\.\d+)*", _DRIVER_FILE.read_text())
    except OSError:
        return ""
    return found.group() if found else ""
