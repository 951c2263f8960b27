"""The ranked table and what is said below it."""

import io
from dataclasses import replace

from rich.console import Console

from birdclef_core.store.leakage import Leak
from sweeps.run.ranking import best_by_end, early_endings, leak_lines, ranked_markdown, ranked_table, ranking
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import TrialRecord
from sweeps.wording import format_duration


def record(trial: str, score: float | None, **values) -> TrialRecord:
    metrics = {} if score is None else {"val/cmap_pad5": score, "val/cmap": score / 2, "val/lrap": 0.5}
    status = "pruned" if score is None else "finished"
    return TrialRecord(
        trial=trial,
        recipe="sed_seresnext26t",
        params={},
        stage_ids=["x"],
        score=score,
        metrics=metrics,
        **{"status": status, **values},
    )


def test_the_best_comes_first_and_those_without_a_score_last():
    trials = [record("t0000", 0.5), record("t0001", None), record("t0002", 0.9)]
    assert [item.trial for item in ranking(trials)] == ["t0002", "t0000", "t0001"]
    markdown = ranked_markdown(trials).splitlines()
    assert markdown[2].startswith("| t0002 | sed_seresnext26t | finished | 0.900 | 0.450 | 0.500 |")


def test_where_chains_end_with_different_stages_the_best_of_each_end_is_said():
    four, five = {"stages": ["train_ce", "train_bce"]}, {"stages": ["train_ce", "train_bce", "finetune"]}
    trials = [
        record("t0000", 0.5, **four),
        record("t0001", 0.7, **four),
        record("t0002", 0.6, **five),
        record("t0003", None, **five),
    ]
    assert best_by_end(trials) == (
        "Trials end with different stages: 2 with train_bce, best t0001 (0.700); 1 with finetune, best t0002 (0.600)."
    )
    assert best_by_end(trials[:2]) == best_by_end([]) == ""


def test_the_ranking_fits_eighty_columns():
    out = io.StringIO()
    Console(file=out, width=80).print(
        ranked_table([record("t0000", 0.5, spent_s={"train_ce": 12345.0}, reused_s={"pretrain_ce": 54321.0})])
    )
    assert "…" not in out.getvalue()
    assert "15 h 05 min" in out.getvalue()


def test_leaked_scores_have_a_star_for_each_kind_of_leak_and_a_line_that_says_it():
    found = Leak(num_validation=62, num_trained=56, num_by_author=0)
    unknown = replace(found, num_trained=0, unknown=("x",))
    trials = [
        record("t0000", 0.5, spent_s={"train_ce": 12345.0}, reused_s={"pretrain_ce": 54321.0}),
        record("t0001", 0.7),
        record("t0002", 0.9),
        record("t0003", None),
    ]
    leaks = {"t0000": found, "t0002": unknown, "t0003": found}
    assert leak_lines(leaks) == [f"* {found.sentence}", f"** {unknown.sentence}"]
    lines = ranked_markdown(trials, leaks).splitlines()
    assert lines[2].startswith(r"| t0002 | sed_seresnext26t | finished | 0.900\*\* | 0.450\*\* | 0.500\*\* |")
    assert lines[3].startswith("| t0001 | sed_seresnext26t | finished | 0.700 | 0.350 | 0.500 |")
    assert lines[4].startswith(r"| t0000 | sed_seresnext26t | finished | 0.500\* | 0.250\* | 0.500\* |")
    assert [line for line in lines if line.startswith("\\")] == [rf"\* {found.sentence}", rf"\*\* {unknown.sentence}"]
    out = io.StringIO()
    Console(file=out, width=80).print(ranked_table(trials, leaks))
    assert "…" not in out.getvalue() and "0.900**" in out.getvalue()


def test_why_trials_did_not_finish_is_said_once_a_reason_and_in_full():
    low = "at the end of train_ce its 0.1 was below 0.2 | odd"
    trials = [
        record("t0000", 0.5),
        record("t0001", None, reason=low),
        record("t0002", None, reason=low),
        record("t0003", None, reason=""),
        replace(record("t0004", None, reason="no memory"), status="failed"),
        replace(record("t0005", None, reason="no memory"), status="interrupted"),
    ]
    assert early_endings(trials) == [
        f"  t0001, t0002 pruned: {low}",
        "  t0004 failed: no memory",
        "  t0005 interrupted: no memory",
    ]
    assert ranked_markdown(trials).splitlines()[3].endswith(r"below 0.2 \| odd |")


def test_many_pruned_trials_are_counted_by_the_place_where_they_stopped():
    stopped = Stopped(stage_id="x", rung=Rung("train_ce"), score=0.1, reason="low")
    pruned = [record(f"t{number:04d}", None, reason=f"its 0.{number} was below 0.9", stopped=stopped) for number in range(30)]
    failed = [record("t0030", None, status="failed", reason="no memory")]
    lines = early_endings(pruned + failed)
    assert lines == ["  30 trials (t0000, t0001, t0002, ...) pruned: at the end of train_ce", "  t0030 failed: no memory"]
    other = [record(f"t{number:04d}", None, status="failed", reason=f"reason {number}") for number in range(30)]
    assert len(early_endings(other)) == 21 and early_endings(other)[-1] == "  and 10 more reasons, in result/ranking.md"


def test_spent_and_saved_stand_in_their_columns():
    lines = ranked_markdown([record("t0000", 0.5, spent_s={"train_ce": 60.0}, reused_s={"pretrain_ce": 7200.0})]).splitlines()
    row = dict(zip(lines[0].split(" | "), lines[2].split(" | "), strict=True))
    assert (row["spent"], row["saved"]) == (format_duration(60.0), format_duration(7200.0))
