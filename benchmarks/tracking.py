"""Measure how fast a sweep's events reach an MLflow server, and how many requests they take.

python benchmarks/tracking.py [--delay-ms 240] [--trials 20]

A local server answers through a proxy, which waits before it passes a request on and counts them. The control, in the same run, delivers the
same events one after the other, as they come when a server keeps up with the sweep.
"""

import argparse
import hashlib
import http.client
import os
import platform
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from sweeps.tracking import delivery
from sweeps.tracking.connect import make_tracker
from sweeps.tracking.events import (
    EpochFinished,
    Event,
    StageFinished,
    StageStarted,
    SweepStarted,
    TrialFinished,
    TrialStarted,
)
from sweeps.tracking.server import run_local

METRICS = 12
PARAMS = 40
EPOCHS = 5


class Proxy:
    """Passes requests on to a server, each after a delay, and counts them."""

    def __init__(self, url: str, delay_s: float) -> None:
        target = urlsplit(url)
        self.requests: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                proxy.requests[f"{self.command} {urlsplit(self.path).path.rpartition('mlflow/')[2]}"] += 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(delay_s)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                connection.request(self.command, self.path, body=body, headers=headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def total(self) -> int:
        return sum(self.requests.values())


def starts(sweep: str, trials: int) -> Iterator[Event]:
    """Yield what is told when trials start and each begins to train its first stage."""
    for number in range(trials):
        params = {f"train_ce.setting_{index}": index / 7 for index in range(PARAMS)}
        yield TrialStarted(trial=f"t{number}", params={"recipe": "r", **params}, tags={"birdclef.sweep": sweep})
        yield StageStarted(trial=f"t{number}", execution=f"t{number}/train_ce", stage="train_ce", params=params, tags={"a": "b"})


def epochs(trials: int) -> Iterator[Event]:
    """Yield EPOCHS epochs of every trial, one of each after the other."""
    for epoch in range(1, EPOCHS + 1):
        for number in range(trials):
            yield EpochFinished(
                trial=f"t{number}",
                execution=f"t{number}/train_ce",
                epoch=epoch,
                trial_epoch=epoch,
                metrics={f"val/score_{index}": epoch / (index + 1) for index in range(METRICS)},
                time_s=time.time(),
            )


def ends(sweep: str, trials: int) -> Iterator[Event]:
    """Yield what is told when every trial finishes with its stage."""
    for number in range(trials):
        stage_id = hashlib.sha256(f"{sweep}/{number}".encode()).hexdigest()
        yield StageFinished(
            trial=f"t{number}", execution=f"t{number}/train_ce", stage_id=stage_id, status="finished", artifacts="report"
        )
        yield TrialFinished(trial=f"t{number}", status="finished", metrics={"objective": 0.5}, artifacts="report")


def measure(title: str, proxy: Proxy, folder: Path, sweep: str, trials: int) -> dict[str, float]:
    """Print, and return by what was told, the events a second until the server had them all."""
    report = folder / sweep / "report"
    report.mkdir(parents=True)
    for number in range(5):
        (report / f"table_{number}.csv").write_text("species,ap\n")
    tracker = make_tracker(proxy.url, folder / sweep)
    tracker.log(SweepStarted(sweep=sweep, search="tracking"))
    _wait(tracker)
    rates = {}
    for what, events in (("starts", starts(sweep, trials)), ("epochs", epochs(trials)), ("ends", ends(sweep, trials))):
        listed, before, began = list(events), proxy.total, time.perf_counter()
        for event in listed:
            tracker.log(event)
        _wait(tracker)
        took_s, requests = time.perf_counter() - began, proxy.total - before
        rates[what] = len(listed) / took_s
        print(
            f"{title:>8}, {what}: {len(listed)} events in {took_s:6.1f} s, {rates[what]:6.1f} a second, {requests} requests, "
            f"{requests / len(listed):.2f} an event",
            flush=True,
        )
    status = tracker.close(600)
    assert not status.kept and not status.rejected, status
    return rates


def _wait(tracker: object) -> None:
    """Wait until everything that was logged is delivered."""
    thread, journal = tracker._delivery, tracker._journal  # type: ignore[attr-defined]
    while thread.state.offset < journal.size():
        time.sleep(0.005)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Deliver each event by itself for the block."""
    most = delivery._MOST_EVENTS
    delivery._MOST_EVENTS = 1
    try:
        yield
    finally:
        delivery._MOST_EVENTS = most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--delay-ms", type=float, default=240.0)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--no-control", action="store_true")
    arguments = parser.parse_args()
    print(
        f"{os.cpu_count()} CPUs, Python {platform.python_version()}, mlflow {version('mlflow')}, {arguments.trials} trials, {EPOCHS} epochs of {METRICS} "
        f"metrics, a request takes {arguments.delay_ms:g} ms more; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="tracking-") as name, run_local(Path(name) / "mlflow") as url:
        proxy = Proxy(url, arguments.delay_ms / 1000)
        together = measure("together", proxy, Path(name), "together", arguments.trials)
        if not arguments.no_control:
            with one_by_one():
                alone = measure("one each", proxy, Path(name), "alone", max(2, arguments.trials // 5))
            print(", ".join(f"{what}: {together[what] / alone[what]:.1f} times as fast together" for what in together))


if __name__ == "__main__":
    main()
