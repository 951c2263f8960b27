"""Makes the sweep's page again while the sweep runs, in another process: the driver's loop waits for nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sweeps.schedule.coordinator import Observer
from sweeps.schedule.trials import Trial
from sweeps.schedule.update import TrialUpdate

EVERY_S = 60.0
"""The page is made once in so many seconds at most."""
SHARE = 0.02
"""At most this share of the time is spent on making it: with thousands of trials it takes seconds."""
LIMIT_S = 600.0
"""A process that takes longer is ended."""
_WORK = "import sys; from sweeps.report.page.writing import write_while_running; write_while_running(*sys.argv[1:])"


class ReportRefresh(Observer):
    """Starts a process that writes the page, at most once in EVERY_S, after a trial has ended or a stage was trained."""

    def __init__(
        self, storage: str, name: str, file: Path, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._command = [sys.executable, "-c", _WORK, storage, name, str(file)]
        self._file = file
        self._log, self._say, self._now = file.with_suffix(".log"), say, now
        self._is_stale = self._has_said = False
        self._process: subprocess.Popen[bytes] | None = None
        self._began = now()
        self._next = self._began + EVERY_S

    def trial_ended(self, trial: Trial) -> None:
        self._is_stale = True
        self._look()

    def updated(self, trial: Trial, update: TrialUpdate) -> None:
        self._is_stale |= update.stage_done
        self._look()

    def stop(self) -> None:
        """End a process that is at work: the driver is about to write the last page."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None
        for left in self._file.parent.glob(f".{self._file.name}.*"):  # what it was writing
            left.unlink(missing_ok=True)
        if not self._has_said:
            self._log.unlink(missing_ok=True)

    def _look(self) -> None:
        now = self._now()
        if self._process is not None:
            code = self._process.poll()
            if code is None and now - self._began > LIMIT_S:
                self._process.kill()
            if code is None:
                return
            self._process = None
            self._next = max(self._began + EVERY_S, now + (now - self._began) / SHARE)
            if code:
                self._complain(f"see {self._log}")
        if self._is_stale and now >= self._next:
            self._is_stale, self._began = False, now
            try:
                self._process = self._start()
            except OSError as error:  # no room on the disk, too many processes
                self._next = now + EVERY_S
                self._complain(str(error))

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the driver
            )

    def _complain(self, reason: str) -> None:
        if not self._has_said:
            self._has_said = True
            self._say(f"The sweep's page could not be made while it runs ({reason}). The sweep goes on.")
