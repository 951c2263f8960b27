"""Shows how far hearing is: a bar on a terminal, and a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sweeps.wording import counted, format_duration

if TYPE_CHECKING:
    from birdclef_core.inference.run.job import Progress

_SAY_EVERY_S = 30.0
"""Seconds between two lines on how far it is, where there is no terminal for a bar."""


@contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator["Progress"]:
    """Yield a progress that is shown as a bar on a terminal, and as a line now and then elsewhere; not at all where `quiet`."""
    if quiet:
        yield lambda *_: None
        return
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("Hearing", total=None)

        def note(done: int, of: int, done_s: float, total_s: float) -> None:
            bar.update(task, description=f"File {min(done + 1, of)} of {of}", completed=done_s, total=total_s)

        yield note


class _Lines:
    """Prints now and then how far it is."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._began: tuple[float, float] | None = None
        """When the first sound had been heard, and how many seconds of it: opening a long file takes its time too."""

    def __call__(self, done: int, of: int, done_s: float, total_s: float) -> None:
        now = time.monotonic()
        if done_s and self._began is None:
            self._began = (now, done_s)
        if self._began is None or now - self._said < _SAY_EVERY_S or done_s <= self._began[1]:
            return
        self._said = now
        left_s = (total_s - done_s) * (now - self._began[0]) / (done_s - self._began[1])
        heard = f"{format_duration(done_s)} of {format_duration(total_s)} of audio"
        print(f"{done} of {counted(of, 'file')}, {heard}; about {format_duration(left_s)} left", file=sys.stderr, flush=True)
