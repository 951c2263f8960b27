"""The ranked table and what is said below it."""

import io
from dataclasses import replace

from rich.console import Console

from birdclef_core.store.leakage import Leak
from sweeps.objective import Objective
from sweeps.report.ranking import (
    best_by_end,
    early_endings,
    front_line,
    leak_lines,
    ranked_markdown,
    ranked_table,
    ranking,
    stopped_line,
)
from sweeps.schedule.pruning import Rung, Stopped
from sweeps.schedule.records import TrialRecord
from sweeps.wording import format_duration

OBJECTIVE = Objective.of(None)


def record(trial: str, score: float | None, **values) -> TrialRecord:
    metrics = {} if score is None else {"val/cmap": score, "val/cmap_se": 0.01, "val/cmap_pad5": score + (1 - score) / 2}
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
    assert [item.trial for item in ranking(trials, OBJECTIVE)] == ["t0002", "t0000", "t0001"]
    markdown = ranked_markdown(trials, OBJECTIVE).splitlines()
    assert markdown[2].startswith("| t0002 | sed_seresnext26t | finished | 0.900 ± 0.010 | 0.950 |")


def test_what_trials_are_compared_by_is_said_and_padded_and_unpadded_scores_stand_beside_it():
    """A score without a known standard error, and one whose stage was not scored so, are shown as such."""
    on_soundscapes = Objective.of("val_soundscapes/auroc")
    known = {"val_soundscapes/auroc": 0.8, "val/cmap": 0.4, "val/cmap_se": 0.1, "val/cmap_pad5": 0.9}
    trials = [record("t0000", 0.8), record("t0001", 0.7), record("t0002", None)]
    trials[0].metrics, trials[1].metrics = known, {}
    lines = ranked_markdown(trials, on_soundscapes).splitlines()
    assert lines[0] == "| trial | recipe | status | objective | cmap | cmap_pad5 | spent | saved | reason |"
    assert lines[2].startswith("| t0000 | sed_seresnext26t | finished | 0.800 | 0.400 ± 0.100 | 0.900 |")
    assert lines[3].startswith("| t0001 | sed_seresnext26t | finished | 0.700 |  |  |")
    assert lines[4].startswith("| t0002 | sed_seresnext26t | pruned |  |  |  |")
    assert lines[-1] == "Objective: val_soundscapes/auroc, with its standard error where that is known."
    out = io.StringIO()
    Console(file=out, width=40).print(ranked_table(trials, on_soundscapes), soft_wrap=True)
    assert "Trials, best first by val_soundscapes/auroc" in out.getvalue() and "…" not in out.getvalue()


def test_the_score_of_a_stopped_trial_has_brackets_and_scores_on_soundscapes_stand_beside_that_of_recordings():
    stopped = Stopped(stage_id="x", rung=Rung("pretrain_ce", 0, 0, "all ce"), score=0.936, reason="at the end of pretrain_ce")
    trials = [record("t0000", 0.93), record("t0001", None, stopped=stopped)]
    assert "soundscapes" not in ranked_markdown(trials, OBJECTIVE).splitlines()[0]
    trials[0].metrics |= {"val_soundscapes/auroc": 0.7, "val_soundscapes/auroc_se": 0.05}
    lines = ranked_markdown(trials, OBJECTIVE).splitlines()
    assert lines[0].startswith("| trial | recipe | status | objective | cmap_pad5 | val_soundscapes/auroc | spent |")
    assert lines[2].startswith("| t0000 | sed_seresnext26t | finished | 0.930 ± 0.010 | 0.965 | 0.700 ± 0.050 |")
    assert lines[3].startswith("| t0001 | sed_seresnext26t | pruned | (0.936) |  |  |")
    assert "Only scores of the same stage are compared." in lines[-1]
    assert stopped_line(trials[:1]) == ""


def test_a_sum_has_its_parts_beside_it():
    objective = Objective.of("0.5*val_soundscapes/auroc + 0.5*val/cmap_pad5")
    columns, _, row = ranked_markdown([record("t0000", 0.8)], objective).splitlines()[:3]
    assert "| objective | val_soundscapes/auroc | cmap_pad5 | cmap | spent |" in columns
    assert "| 0.800 |  | 0.900 | 0.800 ± 0.010 |" in row
    own = ranked_markdown([record("t0000", 0.8)], Objective.of("val/cmap + val/lrap")).splitlines()[2]
    assert "| 0.800 | 0.800 ± 0.010 |  | 0.900 |" in own, "the error of a part of the sum, and that of the sum is not known"
    of_pretraining = ranked_markdown([record("t0000", 0.8)], Objective.of("val_all/lrap")).splitlines()[0]
    assert "| objective | val_all/cmap | val_all/cmap_pad5 | spent |" in of_pretraining


def test_where_chains_end_with_different_stages_the_best_of_each_end_is_said():
    four, five = {"stages": ["train_ce", "train_bce"]}, {"stages": ["train_ce", "train_bce", "finetune"]}
    trials = [
        record("t0000", 0.5, **four),
        record("t0001", 0.7, **four),
        record("t0002", 0.6, **five),
        record("t0003", None, **five),
    ]
    assert best_by_end(trials, OBJECTIVE) == (
        "Trials end with different stages: 2 with train_bce, best t0001 (0.700 ± 0.010); 1 with finetune, best t0002 (0.600 ± 0.010)."
    )
    assert best_by_end(trials[:2], OBJECTIVE) == best_by_end([], OBJECTIVE) == ""


def test_the_ranking_fits_eighty_columns():
    out = io.StringIO()
    Console(file=out, width=80).print(
        ranked_table([record("t0000", 0.5, spent_s={"train_ce": 12345.0}, reused_s={"pretrain_ce": 54321.0})], OBJECTIVE)
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
    lines = ranked_markdown(trials, OBJECTIVE, leaks).splitlines()
    assert lines[2].startswith(r"| t0002 | sed_seresnext26t | finished | 0.900 ± 0.010\*\* | 0.950\*\* |")
    assert lines[3].startswith("| t0001 | sed_seresnext26t | finished | 0.700 ± 0.010 | 0.850 |")
    assert lines[4].startswith(r"| t0000 | sed_seresnext26t | finished | 0.500 ± 0.010\* | 0.750\* |")
    assert [line for line in lines if line.startswith("\\")] == [rf"\* {found.sentence}", rf"\*\* {unknown.sentence}"]
    out = io.StringIO()
    Console(file=out, width=80).print(ranked_table(trials, OBJECTIVE, leaks))
    assert "…" not in out.getvalue() and "0.900 ± 0.010**" in out.getvalue()


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
    assert ranked_markdown(trials, OBJECTIVE).splitlines()[3].endswith(r"below 0.2 \| odd |")


def test_many_pruned_trials_are_counted_by_the_place_where_they_stopped():
    stopped = Stopped(stage_id="x", rung=Rung("train_ce"), score=0.1, reason="low")
    pruned = [record(f"t{number:04d}", None, reason=f"its 0.{number} was below 0.9", stopped=stopped) for number in range(30)]
    failed = [record("t0030", None, status="failed", reason="no memory")]
    lines = early_endings(pruned + failed)
    assert lines == ["  30 trials (t0000, t0001, t0002, ...) pruned: at the end of train_ce", "  t0030 failed: no memory"]
    other = [record(f"t{number:04d}", None, status="failed", reason=f"reason {number}") for number in range(30)]
    assert len(early_endings(other)) == 21 and early_endings(other)[-1] == "  and 10 more reasons, in result/ranking.md"


def test_spent_and_saved_stand_in_their_columns():
    lines = ranked_markdown(
        [record("t0000", 0.5, spent_s={"train_ce": 60.0}, reused_s={"pretrain_ce": 7200.0})], OBJECTIVE
    ).splitlines()
    row = dict(zip(lines[0].split(" | "), lines[2].split(" | "), strict=True))
    assert (row["spent"], row["saved"]) == (format_duration(60.0), format_duration(7200.0))


WITH_COST = Objective.of("val/cmap, cost/cpu_seconds_10min")


def test_the_trials_of_a_pareto_front_come_first_and_are_marked():
    """t0001 is worse than t0000 and no cheaper; t0002 is cheap; t0003 has not finished."""
    trials = [
        record("t0001", 0.8, cpu_seconds=16.0),
        record("t0000", 0.9, cpu_seconds=16.0),
        record("t0002", 0.5, cpu_seconds=2.54),
        record("t0003", None, cpu_seconds=1.0),
    ]
    assert [item.trial for item in ranking(trials, WITH_COST)] == ["t0000", "t0002", "t0001", "t0003"]
    lines = ranked_markdown(trials, WITH_COST).splitlines()
    assert lines[0].startswith("| trial | recipe | status | objective | front | cpu_seconds_10min | cmap_pad5 | spent |")
    assert lines[2].startswith("| t0000 | sed_seresnext26t | finished | 0.900 ± 0.010 | yes | 16.0 | 0.950 |")
    assert lines[3].startswith("| t0002 | sed_seresnext26t | finished | 0.500 ± 0.010 | yes | 2.54 |")
    assert lines[4].startswith("| t0001 | sed_seresnext26t | finished | 0.800 ± 0.010 |  | 16.0 |")
    assert lines[5].startswith("| t0003 | sed_seresnext26t | pruned |  |  |  |")
    assert "CPU seconds in which the model hears 10 minutes of sound" in lines[-1]
    out = io.StringIO()
    Console(file=out, width=40).print(ranked_table(trials, WITH_COST), soft_wrap=True)
    assert "Trials, the Pareto front of val/cmap and cost/cpu_seconds_10min first" in out.getvalue()
    assert front_line(trials[1:3], WITH_COST) == (
        "Pareto front of val/cmap and cost/cpu_seconds_10min: 2 trials, t0000 (0.900 ± 0.010, 16.0), t0002 (0.500 ± 0.010, 2.54)."
    )
    assert front_line(trials, OBJECTIVE) == front_line([], WITH_COST) == ""


def test_of_a_long_front_the_first_and_the_last_are_named():
    front = [record(f"t{number:04d}", 0.9 - number / 100, cpu_seconds=20.0 - number) for number in range(12)]
    line = front_line(front, WITH_COST)
    assert "12 trials, t0000 (" in line and "..., t0011 (" in line and "t0008" not in line


def test_the_best_of_each_end_is_by_the_score_where_there_is_a_front():
    four, five = {"stages": ["train_ce", "train_bce"]}, {"stages": ["train_ce", "train_bce", "finetune"]}
    trials = [
        record("t0000", 0.9, cpu_seconds=9.0, **five),
        record("t0001", 0.8, cpu_seconds=9.0, **four),
        record("t0002", 0.5, cpu_seconds=1.0, **four),
    ]
    assert "2 with train_bce, best t0001" in best_by_end(trials, WITH_COST)
