"""The sweep's page while the sweep runs."""

import time
from pathlib import Path

import pytest
from made_up_sweep import made_up_sweep, write_sweep

from sweeps.run.driver import report_refresh
from sweeps.run.driver.report_refresh import EVERY_S, SHARE, ReportRefresh


@pytest.fixture
def refresh(tmp_path, monkeypatch):
    """A refresh whose process notes each start in a file, on a clock that the test sets."""
    work = f"import sys, time; open({str(tmp_path / 'starts')!r}, 'a').write('x'); time.sleep(float(sys.argv[2])); sys.exit(int(sys.argv[1]))"
    monkeypatch.setattr(report_refresh, "_WORK", work)
    clock, lines = [0.0], []

    def make(code: str = "0", sleeps: str = "0") -> ReportRefresh:
        return ReportRefresh(code, sleeps, tmp_path / "report.html", lines.append, now=lambda: clock[0])

    return make, clock, lines, lambda: len((tmp_path / "starts").read_text()) if (tmp_path / "starts").exists() else 0


def ended(page: ReportRefresh) -> None:
    """Wait for the process, and let the driver see that it has ended."""
    process = page._process
    assert process is not None
    process.wait(20)
    page._look()


def test_the_page_is_made_at_most_once_a_minute_and_only_after_something_has_happened(refresh):
    make, clock, lines, starts = refresh
    page = make()
    page.trial_ended(None)
    assert starts() == 0 and page._process is None, "the first page comes a minute after the start"
    clock[0] = EVERY_S
    page.trial_ended(None)
    ended(page)
    assert starts() == 1 and lines == []
    clock[0] = 10 * EVERY_S
    page._look()
    assert page._process is None, "nothing has happened since"
    page.trial_ended(None)
    ended(page)
    assert starts() == 2


def test_making_the_page_takes_a_small_share_of_the_time(refresh):
    make, clock, _, _ = refresh
    page = make()
    clock[0] = EVERY_S
    page.trial_ended(None)
    page._process.wait(20)
    clock[0] += 10.0  # so long it took
    page._look()
    clock[0] = EVERY_S + 0.9 * 10.0 / SHARE
    page.trial_ended(None)
    assert page._process is None
    clock[0] = EVERY_S + 1.1 * (10.0 + 10.0 / SHARE)
    page.trial_ended(None)
    assert page._process is not None
    page.stop()


def test_a_process_that_hangs_holds_nobody_and_is_ended(refresh, tmp_path):
    make, clock, lines, _ = refresh
    page = make("0", "60")
    clock[0] = EVERY_S
    before = time.monotonic()
    page.trial_ended(None)
    process = page._process
    page.trial_ended(None)
    assert page._process is process, "no second one beside it"
    left = tmp_path / f".report.html.{process.pid}"
    left.write_text("half a page")
    page.stop()
    assert time.monotonic() - before < 10 and process.poll() is not None and lines == []
    assert not left.exists() and not (tmp_path / "report.log").exists()


def test_a_page_that_cannot_be_made_is_said_once_and_its_log_stays(refresh, tmp_path):
    make, clock, lines, _ = refresh
    page = make("3")
    for minute in (1, 3):
        clock[0] = minute * EVERY_S
        page.trial_ended(None)
        ended(page)
    assert len(lines) == 1 and "report.log" in lines[0] and "The sweep goes on" in lines[0]
    page.stop()
    assert (tmp_path / "report.log").exists()


def test_the_process_writes_the_page_from_the_records(tmp_path):
    record, trials = made_up_sweep(4)
    write_sweep(tmp_path, record, trials)
    clock, file = [0.0], tmp_path / "s/result/report.html"
    file.parent.mkdir()
    page = ReportRefresh(str(tmp_path), "s", file, print, now=lambda: clock[0])
    clock[0] = EVERY_S
    page.trial_ended(None)
    page._process.wait(60)
    assert "4 trials" in file.read_text(), Path(file.with_suffix(".log")).read_text()
