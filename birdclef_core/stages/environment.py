"""Says on what a stage is made: what its result may depend on beyond its identity."""

import platform
from pathlib import Path

import torch


def environment(device: torch.device) -> dict[str, str]:
    """Return what a result may depend on beyond its identity: versions, device, and number of threads (it changes the order of sums)."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "host": platform.node(),
        "threads": str(torch.get_num_threads()),
    }


def _cpu_name() -> str:
    """Name of the CPU as Linux has it; on other systems the architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
