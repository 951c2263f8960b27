"""What the terminal shows: plain lines where there is none, a ranking that fits, honest times."""

import io

from made_up import MadeUpWorkers, make_chain_builder, make_coordinator
from rich.console import Console

from sweeps.run.console import SweepConsole
from sweeps.run.ranking import best_by_end, ranked_markdown, ranked_table, ranking
from sweeps.schedule.coordinator import Coordinator
from sweeps.schedule.records import TrialRecord


def record(trial: str, score: float | None, **values) -> TrialRecord:
    metrics = {} if score is None else {"val/cmap_pad5": score, "val/cmap": score / 2, "val/lrap": 0.5}
    status = "pruned" if score is None else "finished"
    return TrialRecord(
        trial=trial, recipe="sed_seresnext26t", params={}, stage_ids=["x"], score=score, metrics=metrics, status=status, **values
    )


def run_with_console(folder, console: Console, samples: int) -> None:
    book = make_coordinator(folder, samples=samples).book
    with SweepConsole(console, book, samples) as terminal:
        MadeUpWorkers(Coordinator(make_chain_builder(), book, samples=samples, max_running=2, observers=(terminal,))).run()


def test_a_plain_line_an_event_where_there_is_no_terminal(tmp_path):
    out = io.StringIO()
    run_with_console(tmp_path, Console(file=out), samples=3)
    lines = out.getvalue().splitlines()
    assert sum("started with" in line for line in lines) == 3
    assert any("pretrain_ce epoch 1/3" in line and "left" in line for line in lines)
    assert all(len(line.split()[0].split(":")) == 3 for line in lines), "each begins with the time"


def test_a_live_table_on_a_terminal(tmp_path):
    out = io.StringIO()
    run_with_console(tmp_path, Console(file=out, force_terminal=True, width=120), samples=2)
    assert "t0000" in out.getvalue() and "started with" not in out.getvalue()


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
    assert "54321" in out.getvalue()
