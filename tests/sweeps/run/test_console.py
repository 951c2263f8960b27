"""What the terminal shows: plain lines where there is none, a ranking that fits, honest times."""

import io
import math
import re
from dataclasses import replace

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search
from rich.console import Console

from sweeps.objective import Objective
from sweeps.run import console
from sweeps.run.console import Detail, SweepConsole
from sweeps.schedule.coordinator import Coordinator
from sweeps.wording import format_duration

SPECIES = {"all": 4, "target": 2}


def run_with_console(folder, console: Console, samples: int, detail: Detail = "normal") -> None:
    book = make_coordinator(folder, samples=samples).book
    with SweepConsole(console, book, samples, Objective.of(None), SPECIES, detail=detail) as terminal:
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


@pytest.mark.parametrize("most", [0, 1])
def test_all_parameters_of_a_running_trial_are_shown_where_few_run(tmp_path, monkeypatch, most):
    monkeypatch.setattr(console, "MOST_WHOLE", most)
    out = io.StringIO()
    coordinator = make_coordinator(tmp_path, samples=2)
    with SweepConsole(
        Console(file=out, force_terminal=True, width=100), coordinator.book, 2, Objective.of(None), SPECIES
    ) as terminal:
        trial = coordinator.next_trial()
        trial.record.params = {f"parameter_{number}": 0.25 for number in range(8)}
        terminal.trial_started(trial)
    assert ("parameter_7" in out.getvalue()) == (most == 1)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_quiet_and_verbose(tmp_path, is_terminal):
    said = {}
    for detail in ("quiet", "verbose"):
        out = io.StringIO()
        run_with_console(tmp_path / detail, Console(file=out, force_terminal=is_terminal, width=120), samples=2, detail=detail)
        said[detail] = out.getvalue()
    assert said["quiet"] == ""
    assert said["verbose"].count("started with") == 2 and "epoch 1/3" in said["verbose"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_why_a_trial_was_pruned_is_shown_on_a_terminal_too(tmp_path, is_terminal):
    out = io.StringIO()
    run_with_console(tmp_path, Console(file=out, force_terminal=is_terminal, width=200), samples=30)
    assert re.search(r"pruned: at the end of \w+ its 0\.", out.getvalue())


def test_brackets_in_a_message_are_shown_and_not_read_as_markup(tmp_path):
    out = io.StringIO()
    coordinator = make_coordinator(tmp_path, samples=1)
    with SweepConsole(Console(file=out, width=200), coordinator.book, 1, Objective.of(None), SPECIES) as terminal:
        trial = coordinator.next_trial()
        trial.record.reason = "worker lost: KeyError[red]"
        terminal.worker_lost(trial)
    assert "KeyError[red]" in out.getvalue()


def test_the_time_left_is_that_of_the_open_epochs_on_the_trials_that_run(tmp_path):
    """Trials that wait add their epochs and do not share the work."""
    search = replace(make_search(), recipes=make_search().recipes[:1], sampler="random")
    coordinator = make_coordinator(tmp_path, make_chain_builder(search), samples=3, max_running=1)
    terminal = SweepConsole(Console(file=io.StringIO()), coordinator.book, 3, Objective.of(None), SPECIES)
    trial = coordinator.next_trial()
    assert (coordinator.book.num_running, coordinator.book.num_waiting) == (1, 2)
    terminal.trial_started(trial)
    update = MadeUpWorkers(coordinator).updates(trial)[-1]
    update.cost_s = 60.0
    coordinator.update(trial.record.trial, update)
    terminal.updated(trial, update)
    assert terminal._left() == f"at most about {format_duration(60.0 * (3 * trial.num_epochs - 1))} left"


def test_scores_have_their_standard_error_and_an_epoch_without_the_objective_shows_another_score(tmp_path):
    out = io.StringIO()
    coordinator = make_coordinator(tmp_path, samples=1)
    objective = Objective.of("val_soundscapes/auroc")
    with SweepConsole(Console(file=out, width=200), coordinator.book, 1, objective, SPECIES) as terminal:
        trial = coordinator.next_trial()
        terminal.trial_started(trial)
        last = MadeUpWorkers(coordinator).updates(trial)[0]
        terminal.updated(trial, replace(last, score=math.nan, metrics={"val/cmap": 0.25}))
        metrics = {"val_soundscapes/auroc": 0.75, "val_soundscapes/auroc_se": 0.05, "val/cmap": 0.25}
        terminal.updated(trial, replace(last, score=0.75, metrics=metrics))
        trial.record.score, trial.record.metrics, trial.record.status = 0.75, metrics, "finished"
        terminal.trial_ended(trial)
    first, second, third = out.getvalue().splitlines()[1:]
    assert "score val/cmap 0.250 " in first and "score 0.750 ± 0.050 " in second and third.endswith("finished with 0.750 ± 0.050")


def test_a_loss_that_is_a_sum_over_species_is_shown_for_one_of_them(tmp_path):
    out = io.StringIO()
    coordinator = make_coordinator(tmp_path, samples=1)
    with SweepConsole(Console(file=out, width=200), coordinator.book, 1, Objective.of(None), SPECIES) as terminal:
        trial = coordinator.next_trial()
        terminal.trial_started(trial)
        by_stage = {update.stage: update for update in MadeUpWorkers(coordinator).updates(trial)}
        for stage in ("pretrain_ce", "pretrain_bce", "train_bce"):
            terminal.updated(trial, replace(by_stage[stage], metrics={"train/loss": 3.0}))
    ce, all_species, target_species = out.getvalue().splitlines()[-3:]
    assert "loss 3.000  " in ce and "loss 0.7500 a species" in all_species and "loss 1.5000 a species" in target_species


def test_the_table_says_how_far_the_sweep_is_what_is_best_and_what_each_trial_tries(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=4)
    console = Console(file=io.StringIO(), width=220)
    terminal = SweepConsole(console, coordinator.book, 4, Objective.of(None), SPECIES)
    trial = coordinator.next_trial()
    terminal.trial_started(trial)
    trial.record.status, trial.record.score, trial.record.metrics = "finished", 0.5, {"val/cmap": 0.5, "val/cmap_se": 0.04}
    console.print(terminal._table())
    shown = console.file.getvalue()
    assert "1 of 4 trials ended" in shown and f"best so far: t0000 ({trial.record.recipe}) with 0.500 ± 0.040" in shown
    assert "train_ce.learning_rate=" in shown
