"""Commands that are run when a sweep has a new best trial, and when it ends."""

import json
import time

import pytest

from sweeps.run.driver import hooks as module
from sweeps.run.driver.hooks import Hooks


@pytest.fixture
def lines():
    return []


def test_a_command_gets_the_result_as_its_input_and_in_a_file(tmp_path, lines):
    hooks = Hooks(lines.append)
    hooks.run("--on-best", f"cat > {tmp_path}/one; cp $BIRDCLEF_RESULT {tmp_path}/two", lambda: {"score": 0.5})
    hooks.run("--on-end", f"cat > {tmp_path}/end", lambda: {"score": 0.7})
    hooks.run("--on-end", None, dict)
    hooks.close()
    assert [json.loads((tmp_path / name).read_text())["score"] for name in ("one", "two", "end")] == [0.5, 0.5, 0.7]
    assert lines == []


def test_a_command_that_fails_is_a_line_with_its_last_words_and_the_next_one_runs(tmp_path, lines):
    hooks = Hooks(lines.append)
    hooks.run("--on-best", "echo first; echo no such mailbox >&2; exit 3", dict)
    hooks.run("--on-end", f"touch {tmp_path}/end", dict)
    hooks.close()
    assert lines == ["The command of --on-best failed: exit code 3, no such mailbox. The sweep is not affected."]
    assert (tmp_path / "end").exists()


def test_a_command_that_hangs_holds_nobody_and_is_ended_with_all_that_it_started(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(module, "END_S", 0.5)
    hooks = Hooks(lines.append)
    before = time.monotonic()
    hooks.run("--on-best", f"(sleep 2; touch {tmp_path}/late) & wait", dict)
    assert time.monotonic() - before < 0.4, "the driver goes on at once"
    hooks.close()
    assert time.monotonic() - before < 2
    time.sleep(2.2)
    assert not (tmp_path / "late").exists()
    assert len(lines) == 1 and "had not ended" in lines[0]


def test_a_command_that_takes_too_long_is_ended_while_the_sweep_runs(lines, monkeypatch):
    monkeypatch.setattr(module, "LIMIT_S", 0.3)
    hooks = Hooks(lines.append)
    hooks.run("--on-best", "sleep 20", dict)
    hooks.close()
    assert lines == ["The command of --on-best failed: it had not ended after 0 s. The sweep is not affected."]
