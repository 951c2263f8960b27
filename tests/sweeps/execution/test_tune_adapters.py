"""What Tune does with the coordinator's decisions: whose fault a lost worker is, and when a trial or the whole sweep is given up."""

import errno
import sys
import time
from dataclasses import asdict

import pytest
from made_up import make_chain_builder, make_coordinator, make_search
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError, RayTaskError

from birdclef_core.errors import BirdclefError
from birdclef_core.stages.interruption import StageInterrupted
from birdclef_core.store.patience import StorageAway
from sweeps.execution import tune_adapters
from sweeps.execution.private_ray import private_ray
from sweeps.execution.tune_adapters import (
    METRIC,
    CoordinatorScheduler,
    CoordinatorSearcher,
    at_most_every,
    is_fault_of_others,
    last_line,
    placement,
)
from sweeps.schedule.update import TrialUpdate


def raised(error: Exception) -> RayTaskError:
    """An error as Ray brings it from a worker."""
    return RayTaskError("step", f"Traceback\n{type(error).__name__}: {error}", error)


def died(words: str, *, preempted: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg, error._preempted = f"The actor died unexpectedly before finishing this task.\n{words}", preempted
    return error


@pytest.mark.parametrize(
    "error",
    [
        raised(StageInterrupted("SIGTERM was received")),
        raised(ConnectionResetError("by peer")),
        raised(TimeoutError()),
        raised(StorageAway("The storage s3://bucket was away for 15 minutes: it cannot be reached.")),
        raised(OSError("When completing multiple part upload: AWS Error NETWORK_CONNECTION during CompleteMultipartUpload")),
        raised(OSError(errno.ESTALE, "Stale file handle")),
        died("", preempted=True),
        died("The actor died because its node has died. Node Id: 0f7bc8"),
        died("Worker exit type: INTENDED_SYSTEM_EXIT Worker exit detail: asked to leave"),
        ActorUnavailableError("The actor is temporarily unavailable: RPC error: Socket closed", actor_id=None),
    ],
)
def test_machines_that_are_taken_away_and_storages_that_are_away_are_no_fault_of_the_trial(error):
    assert is_fault_of_others(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        raised(RuntimeError("CUDA error: an illegal memory access was encountered")),
        raised(OSError(errno.ENOSPC, "No space left on device")),
        raised(FileNotFoundError(errno.ENOENT, "No such file")),
        raised(BirdclefError("bad")),
        died("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"),
        OutOfMemoryError("Task was killed due to the node running low on memory."),
    ],
)
def test_what_may_be_the_trials_own_fault_counts(error):
    assert not is_fault_of_others(error)


def test_the_last_line_of_an_error_is_said():
    assert last_line(raised(RuntimeError("no luck"))) == "RuntimeError: no luck"
    assert last_line(None) == "its process ended"


def test_updates_are_taken_between_many_draws(tmp_path, monkeypatch):
    """Tune takes none while it gets trials; the draws of many would stop it for a minute."""
    monkeypatch.setattr(tune_adapters, "ASK_FOR_S", -1.0)
    coordinator = make_coordinator(tmp_path, make_chain_builder(make_search(pools={})), samples=9, max_running=9)
    searcher = CoordinatorSearcher(coordinator, on_ask=lambda: None, avoid=list)
    answers = [searcher.suggest(f"tune {number}") for number in range(4)]
    assert [answer and answer["trial"] for answer in answers] == ["t0000", None, None, None]
    monkeypatch.setattr(tune_adapters, "ASK_FOR_S", 60.0)
    assert [searcher.suggest(f"more {number}")["trial"] for number in range(2)] == ["t0001", "t0002"]


def test_nodes_to_avoid_are_asked_for():
    share = {"CPU": 2.0, "GPU": 1.0}
    assert placement(share)({}) == placement(share)({"avoid": []})
    request = placement(share)({"avoid": ["aa", "bb"]})
    assert request.bundles == [share]
    assert request != placement(share)({}), "a worker of another request is not used again"


def test_a_function_is_not_called_more_often_than_wanted_but_for_news():
    calls, news = [], []
    call = at_most_every(60, lambda: calls.append(1), at_once=lambda: bool(news))
    for _ in range(3):
        call()
    assert len(calls) == 1
    news.append("node")
    call()
    assert len(calls) == 2


@pytest.fixture(scope="module")
def ray_here():
    """As a sweep starts it: Ray reads its token once in a process, in which whole sweeps may have run before."""
    ray = pytest.importorskip("ray")
    with private_ray() as own:
        ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False, **own)
        yield
        ray.shutdown()


def run(folder, actor, coordinator, *, cpus=1.0, on_ask=lambda: None) -> None:
    from ray import tune

    tune.Tuner(
        tune.with_resources(actor, placement({"CPU": cpus})),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=CoordinatorSearcher(coordinator, on_ask, avoid=list),
            scheduler=CoordinatorScheduler(coordinator),
            num_samples=-1,
            max_concurrent_trials=100,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=-1),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()


@pytest.mark.slow
def test_a_trial_fails_after_its_own_losses_only_and_a_sweep_that_is_given_up_ends(tmp_path, ray_here, monkeypatch):
    """Three trials: one whose code always fails, one that is preempted more often than it may fail, one that is let be. Then a sweep whose
    trials wait for a node that never comes."""
    import ray
    from ray import tune

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    coordinator = make_coordinator(tmp_path, samples=3, max_running=2)
    tries = tmp_path / "tries"

    class Actor(tune.Trainable):
        def setup(self, config):
            self.trial = config["trial"]

        def reset_config(self, new_config):
            self.setup(new_config)
            return True

        def step(self):
            mine = tries / self.trial
            mine.mkdir(parents=True, exist_ok=True)
            number = len(list(mine.iterdir()))
            (mine / str(number)).touch()
            if self.trial == "t0000":
                raise RuntimeError("always")
            if self.trial == "t0001" and number < 6:
                raise StageInterrupted("SIGTERM was received")
            return asdict(
                TrialUpdate(
                    kind="failed",
                    stage="s",
                    stage_index=0,
                    stage_id=self.trial,
                    epoch=0,
                    epochs=1,
                    score=0.0,
                    message="reached its end",
                    done=True,
                )
            )

        def save_checkpoint(self, checkpoint_dir):
            pass

    run(tmp_path / "first", Actor, coordinator)
    assert {trial: record.reason for trial, record in coordinator.trials.items()} == {
        "t0000": "worker lost 4 times, at last: RuntimeError: always",
        "t0001": "reached its end",
        "t0002": "reached its end",
    }
    assert {trial.name: len(list(trial.iterdir())) for trial in tries.iterdir()} == {"t0000": 4, "t0001": 7, "t0002": 1}

    waiting = make_coordinator(tmp_path / "second", samples=3, max_running=2)
    give_up_at = time.monotonic() + 2

    def give_up():
        if time.monotonic() > give_up_at:
            waiting.stop("no node can train")

    run(tmp_path / "second", Actor, waiting, cpus=50.0, on_ask=give_up)
    waiting.interrupt()
    assert {record.status for record in waiting.trials.values()} == {"interrupted"}
