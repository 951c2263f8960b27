"""A storage that is away is waited for and said once; what never gets better is not waited for."""

import pickle
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from birdclef_core.store import patience as patience_module
from birdclef_core.store.leases import Holder, Leases
from birdclef_core.store.patience import Patience, StorageAway, reason_of
from birdclef_core.store.storage import Storage


class FakeClock:
    """A clock whose sleeps take no time."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away:
    """Work that fails until a time of the clock."""

    def __init__(self, clock: FakeClock, until_s: float, error: str = "AWS Error NETWORK_CONNECTION during PutObject") -> None:
        self.clock, self.until_s, self.error, self.calls = clock, until_s, error, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.clock.now < self.until_s:
            raise OSError(self.error)
        return "done"


def nothing() -> None:
    pass


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_work_waits_for_a_storage_and_the_user_hears_of_it_once(clock):
    said: list[str] = []
    patience, work = Patience(900.0, said.append, clock), Away(clock, 75.0)
    assert patience.wait_for("bucket/x", work, nothing) == "done"
    assert 75.0 <= clock.now <= 105.0 and work.calls < 12
    assert patience.wait_for("bucket/x", work, nothing) == "done"
    assert [line.partition(":")[0] for line in said] == [
        "The storage bucket/x is away",
        f"The storage bucket/x is back after {clock.now:.0f} s.",
    ]
    assert "at most 15 minutes" in said[0] and not patience.given_up


def test_after_its_limit_nothing_waits_any_more(clock):
    patience, work = Patience(900.0, lambda _: None, clock), Away(clock, 1e9)
    with pytest.raises(StorageAway, match="was away for 15 minutes: it cannot be reached"):
        patience.wait_for("bucket/x", work, nothing)
    assert clock.now == 900.0 and patience.given_up
    with pytest.raises(StorageAway):
        patience.wait_for("bucket/x", work, nothing)
    assert clock.now == 900.0 and patience.attempt("bucket/x", work, nothing) is False


def test_an_attempt_does_not_wait_and_is_seldom_made(clock):
    """The driver's loop goes on while records wait."""
    patience, work = Patience(900.0, lambda _: None, clock), Away(clock, 100.0)
    outcomes = []
    while not outcomes or not outcomes[-1]:
        before = clock.now
        outcomes.append(patience.attempt("bucket/x", work, nothing))
        assert clock.now == before
        clock.sleep(0.5)
    assert len(outcomes) > 200 and work.calls < 12
    late, started = Away(clock, 1e9), clock.now
    with pytest.raises(StorageAway):
        while not patience.attempt("bucket/x", late, nothing):
            clock.sleep(0.5)
    assert 900.0 <= clock.now - started <= 931.0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("AWS Error SLOW_DOWN during CreateMultipartUpload operation: reduce", "fewer requests"),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", "fewer requests"),
        (
            "AWS Error UNKNOWN (HTTP status 400): Unable to parse ExceptionName: ExpiredToken Message: x",
            "credentials have expired",
        ),
        ("AWS Error REQUEST_TIME_TOO_SKEWED during ListObjectsV2 operation: x", "clock"),
        ("AWS Error UNKNOWN (HTTP status 500) during HeadObject operation: No response body.", "cannot be reached"),
        ("AWS Error ACCESS_DENIED during PutObject operation: no", ""),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: no", ""),
        ("AWS Error NO_SUCH_BUCKET during PutObject operation: no", ""),
        ("[Errno 28] No space left on device", ""),
    ],
)
def test_what_may_get_better_is_told_from_what_does_not(error, reason, clock):
    found = reason_of(OSError(error))
    assert reason in found and bool(found) == bool(reason)
    if not reason:
        with pytest.raises(OSError, match=error[:20].replace("[", r"\[")):
            Patience(900.0, lambda _: None, clock).wait_for("x", Away(clock, 1.0, error), nothing)
        assert clock.now == 0.0


def test_without_patience_an_error_is_raised_at_once(clock):
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        Patience(clock=clock).wait_for("x", Away(clock, 1.0), nothing)
    assert clock.now == 0.0


def test_a_copy_in_another_process_waits_as_long():
    patience = Patience(60.0, lambda line: None)
    assert pickle.loads(pickle.dumps(patience)).limit_s == 60.0


class Answers(BaseHTTPRequestHandler):
    """An S3 that refuses everything, with a reason where the protocol has room for one: not in an answer to HEAD."""

    status, code = 400, "ExpiredToken"

    def do_GET(self) -> None:
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_the_reason_is_asked_for_where_an_answer_has_none(clock, monkeypatch):
    """Whether a file exists is a HEAD request, whose refusal has no body."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    said: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = Storage.parse(f"s3://b/x?endpoint_override=http://127.0.0.1:{server.server_port}&region=us-east-1")
        storage = Storage(place.filesystem, place.root, Patience(60.0, said.append, clock))
        with pytest.raises(StorageAway, match="credentials have expired"):
            storage.exists("file")
        assert len(said) == 1 and "renew them" in said[0]
        monkeypatch.setattr(Answers, "status", 403)
        monkeypatch.setattr(Answers, "code", "AccessDenied")
        with pytest.raises(OSError, match="ACCESS_DENIED") as error:
            Storage(place.filesystem, place.root, Patience(60.0, said.append, clock)).exists("file")
        assert not isinstance(error.value, StorageAway)
        server.shutdown()


def test_the_thread_of_a_lease_finds_an_outage_and_ends_the_work_of_the_main_thread(monkeypatch, tmp_path):
    """A driver may have nothing to write for as long as all its workers wait."""
    place = Storage.parse(str(tmp_path))
    (tmp_path / "leases").mkdir()
    monkeypatch.setattr(Storage, "is_local", False)
    said: list[str] = []
    storage = Storage(place.filesystem, place.root, Patience(0.3, said.append, interrupts=True))
    monkeypatch.setattr(patience_module, "PAUSES_S", (0.05,))
    with Leases(storage, duration_s=0.2).hold("driver", Holder(sweep="s", run="r", trial="driver")) as lease:
        assert lease is not None

        def away(*_: object) -> bool:
            raise OSError("AWS Error NETWORK_CONNECTION")

        monkeypatch.setattr(Storage, "exists", away)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5.0)
        assert len(said) == 1 and storage.patience.given_up
