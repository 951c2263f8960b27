"""Who may start: nobody whose stage another is training, here or elsewhere; whoever unblocks most goes first."""

from sweeps.plan.simulate import SimulatedStore, SimulatedView
from sweeps.schedule.queue import TrialQueue


def make_gate(published=(), elsewhere=()) -> tuple[TrialQueue, SimulatedStore]:
    store = SimulatedStore(set(published), dict.fromkeys(elsewhere, "other"))
    return TrialQueue(SimulatedView(store, "mine")), store


def start(queue: TrialQueue, chains: dict[str, list[str]]) -> list[str]:
    """Starts all that may start."""
    started = []
    while (trial := queue.pop()) is not None:
        queue.claim(trial, chains[trial])
        started.append(trial)
    return started


def fill(queue: TrialQueue, chains: dict[str, list[str]]) -> None:
    for trial, stage_ids in chains.items():
        queue.add(trial, stage_ids)


def test_one_trains_the_prefix_and_the_others_wait_for_it():
    queue, _ = make_gate()
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"], "c": ["P", "R", "c"], "d": ["X", "d"]}
    fill(queue, chains)
    assert start(queue, chains) == ["a", "d"]
    queue.stage_published("P")
    assert start(queue, chains) == ["c"], "b waits for Q, which a goes on to train"
    queue.stage_published("Q")
    assert start(queue, chains) == ["b"]
    assert len(queue) == 0


def test_the_prefix_that_most_wait_for_goes_first():
    queue, _ = make_gate()
    chains = {"a": ["P", "a"], "b": ["Q", "b"], "c": ["Q", "c"], "d": ["R", "d"], "e": ["R", "e"], "f": ["R", "f"]}
    fill(queue, chains)
    assert start(queue, chains) == ["d", "b", "a"]


def test_an_urgent_trial_goes_before_all_and_trains_the_prefix_that_it_shares():
    queue, _ = make_gate()
    chains = {"a": ["P", "a"], "b": ["P", "b"], "c": ["Q", "c"], "u": ["Q", "u"], "v": ["Q", "v"]}
    fill(queue, {name: chains[name] for name in "abc"})
    queue.add("u", chains["u"], urgent=True)
    queue.add("v", chains["v"], urgent=True)
    assert start(queue, chains) == ["u", "a"]
    queue.stage_published("Q")
    assert start(queue, chains) == ["v", "c"]


def test_what_a_trial_claimed_is_free_when_it_ends():
    queue, _ = make_gate()
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"], "c": ["P", "Q", "c"]}
    fill(queue, chains)
    assert start(queue, chains) == ["a"]
    queue.stage_published("P")
    queue.release("a")
    assert start(queue, chains) == ["b"]


def test_published_stages_are_not_waited_for():
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"]}
    queue, _ = make_gate(published=["P", "Q"])
    fill(queue, chains)
    assert start(queue, chains) == ["a", "b"]


def test_nobody_starts_on_what_another_sweep_is_training_until_it_is_there_or_given_up():
    chains = {"a": ["P", "a"], "b": ["P", "b"], "c": ["Q", "c"]}
    for published, then in ((True, ["a", "b"]), (False, ["a"])):
        queue, store = make_gate(elsewhere=["P"])
        fill(queue, chains)
        assert start(queue, chains) == ["c"]
        del store.trained_by["P"]
        if published:
            store.published.add("P")
        assert start(queue, chains) == then


def test_a_damaged_prefix_is_waited_for_while_its_finder_trains_it_again():
    queue, _ = make_gate(published=["P"])
    chains = {"a": ["P", "a"], "b": ["P", "b"]}
    queue.add("a", chains["a"])
    assert start(queue, chains) == ["a"]
    queue.stage_in_training("a", "P")
    queue.add("b", chains["b"])
    assert start(queue, chains) == []
    queue.stage_published("P")
    assert start(queue, chains) == ["b"]


def test_a_damaged_prefix_is_free_again_when_its_finder_ends_without_it():
    queue, _ = make_gate(published=["P"])
    chains = {"a": ["P", "a"], "b": ["P", "b"]}
    queue.add("a", chains["a"])
    assert start(queue, chains) == ["a"]
    queue.stage_in_training("a", "P")
    queue.add("b", chains["b"])
    assert start(queue, chains) == []
    queue.release("a")
    assert start(queue, chains) == ["b"]


def test_a_trial_that_ends_frees_no_stage_that_another_has_claimed_since():
    queue, _ = make_gate()
    chains = {"a": ["P", "Q", "a"], "b": ["P", "b"], "c": ["P", "c"]}
    queue.add("a", chains["a"])
    assert start(queue, chains) == ["a"]
    queue.stage_published("P")
    queue.stage_removed("P")
    queue.add("b", chains["b"])
    assert start(queue, chains) == ["b"], "it trains P again"
    queue.release("a")
    queue.add("c", chains["c"])
    assert start(queue, chains) == []
    queue.stage_published("P")
    assert start(queue, chains) == ["c"]


def test_a_group_counts_with_its_present_size():
    """Trials that are taken out are not always started: some end at once, and claim nothing."""
    queue, _ = make_gate()
    fill(queue, {"a": ["P", "a"], "b": ["P", "b"], "c": ["P", "c"], "d": ["Q", "d"], "e": ["Q", "e"]})
    assert [queue.pop() for _ in range(3)] == ["a", "b", "d"]
