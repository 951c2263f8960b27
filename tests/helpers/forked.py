"""Runs a function in a process of its own that needs no second import of the libraries."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from birdclef_core.inference.run import journal


def exit_code_of(run: Callable[[], int], *, timeout_s: float = 120.0) -> int:
    """Run a function in a fork of this process and return its exit code: what it returns, or minus the signal that killed it."""
    pid = os.fork()
    if not pid:
        code = 70
        try:
            import torch

            torch.set_num_threads(1)  # threads of the process that forked are not in the fork
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    until = time.monotonic() + timeout_s
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise TimeoutError(f"A process must end within {timeout_s:g} s, but did not.")
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def dies_after_three_files(patch: pytest.MonkeyPatch) -> None:
    """Let a process that hears files be killed when it would keep the fourth of them, which is written and has not its name yet."""
    appear, kept = journal._appear, []

    def appear_or_die(aside: Path, path: Path) -> None:
        if path.suffix == ".safetensors":
            kept.append(path)
        if len(kept) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        appear(aside, path)

    patch.setattr(journal, "_appear", appear_or_die)
