"""Commands of the user's own that are run when a sweep has a new best trial, and when it ends."""

import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from birdclef_core.json_files import to_json

LIMIT_S = 300.0
"""A command that takes longer is ended."""
END_S = 60.0
"""For so long the end of a sweep waits for commands that still run; then they are ended."""
RESULT_VARIABLE = "BIRDCLEF_RESULT"
"""The environment variable that names the file with the result as JSON, which is standard input too."""


class Hooks:
    """Runs the commands one after the other on a thread of its own: one that fails is a line, and one that hangs holds nobody."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._waiting: queue.Queue[tuple[str, str, Callable[[], Any]]] = queue.Queue()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def run(self, flag: str, command: str | None, result: Callable[[], Any]) -> None:
        """Let a command of the shell run soon, with `result` as JSON; nothing is done without one. `flag`: what the user gave it by.

        `result` is called on the thread of the commands, because it may ask a remote storage.
        """
        if command:
            self._waiting.put((flag, command, result))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="hooks", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait until all commands have ended, END_S at most; what still runs then is ended."""
        if self._thread is None:
            return
        self._waiting.put(("", "", dict))
        self._thread.join(END_S)
        if self._thread.is_alive():
            self._is_closed = True
            self._end_running()
            self._thread.join(5.0)
            self._say(f"A command of --on-best or --on-end was ended, because it had not ended after {END_S:.0f} s.")

    def _work(self) -> None:
        while (item := self._waiting.get())[1] and not self._is_closed:
            try:
                problem = self._run(item[1], item[2]())
            except OSError as error:
                problem = str(error)
            if problem and not self._is_closed:
                self._say(f"The command of {item[0]} failed: {problem}. The sweep is not affected.")

    def _run(self, command: str, result: Any) -> str:
        """Run a command to its end and return what went wrong; empty when nothing did."""
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "output").open("wb+") as output:
            file = Path(folder) / "result.json"
            file.write_text(to_json(result, indent=1) + "\n", encoding="utf-8")
            with file.open("rb") as given:
                self._running = subprocess.Popen(
                    command,
                    shell=True,
                    stdin=given,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, RESULT_VARIABLE: str(file)},
                    start_new_session=True,  # Ctrl-C is for the driver, and what the command has started ends with it
                )
                try:
                    code = self._running.wait(LIMIT_S)
                except subprocess.TimeoutExpired:
                    self._end_running()
                    return f"it had not ended after {LIMIT_S:.0f} s"
            output.seek(0)
            last = output.read().decode(errors="backslashreplace").strip().splitlines()[-1:]
            return f"exit code {code}{''.join(f', {line[:200]}' for line in last)}" if code else ""

    def _end_running(self) -> None:
        if self._running is not None and self._running.poll() is None:
            os.killpg(self._running.pid, signal.SIGKILL)
            self._running.wait()
