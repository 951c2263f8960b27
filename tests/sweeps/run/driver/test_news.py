"""What the user's commands hear of a sweep."""

from made_up import MadeUpWorkers, make_coordinator

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from sweeps.objective import Objective
from sweeps.options import SweepOptions
from sweeps.run.driver.news import NewsTeller


class ListHooks:
    """Keeps what would be told, as the thread of the commands would ask for it later."""

    def __init__(self):
        self.told = []

    def run(self, flag, command, result):
        if command:
            self.told.append((flag, command, result()))


def test_the_commands_hear_of_each_new_best_trial_and_of_the_end(tmp_path):
    coordinator = make_coordinator(tmp_path, samples=10)
    hooks, options = ListHooks(), SweepOptions(search="sed", on_best="mail", on_end="bell", tags={"site": "pond"})
    store = StageStore(Storage.parse(str(tmp_path / "store")))
    news = NewsTeller(hooks, options, coordinator.book, store, name="s", objective=Objective.of(None), report="report.html")
    coordinator._observers = (news,)
    MadeUpWorkers(coordinator).run()
    news.ended("finished")
    news.ended("stopped", problem="nobody hears of it")
    *bests, (flag, command, end) = hooks.told
    trials = list(coordinator.trials.values())
    scores = [item.best.score for _, _, item in bests]
    assert (
        scores
        and scores == sorted(set(scores))
        and {item[:2] for item in bests and [(f, c) for f, c, _ in bests]} == {("--on-best", "mail")}
    )
    assert scores[-1] == max(trial.score for trial in trials if trial.score is not None) == end.best.score
    assert (flag, command, end.state, end.problem, end.event) == ("--on-end", "bell", "finished", "", "end")
    assert sum(end.trials.values()) == len(trials) and end.tags == {"site": "pond"} and end.report == "report.html"
    assert end.best.checkpoint == store.location(coordinator.trials[end.best.trial].stage_ids[-1])
