"""Who may start: nobody whose stage another is training, here or elsewhere; whoever unblocks most goes first."""

from sweeps.schedule.queue import Gate
from sweeps.schedule.simulate import SimulatedStore, SimulatedView


def make_gate(published=(), elsewhere=()) -> tuple[Gate, SimulatedStore]:
    store = SimulatedStore(set(published), dict.fromkeys(elsewhere, "other"))
    return Gate(SimulatedView(store, "mine")), store


def start(gate: Gate, chains: dict[str, list[str]]) -> list[str]:
    """Starts all that may start."""
    started = []
    while (trial := gate.pop()) is not None:
        gate.claim(trial, chains[trial])
        started.append(trial)
    return started


def fill(gate: Gate, chains: dict[str, list[str]]) -> None:
    for trial, stage_ids in chains.items():
        gate.add(trial, stage_ids)


def test_one_trains_the_prefix_and_the_others_wait_for_it():
    gate, _ = make_gate()
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"], "c": ["P", "R", "c"], "d": ["X", "d"]}
    fill(gate, chains)
    assert start(gate, chains) == ["a", "d"]
    gate.published("P")
    assert start(gate, chains) == ["c"], "b waits for Q, which a goes on to train"
    gate.published("Q")
    assert start(gate, chains) == ["b"]
    assert len(gate) == 0


def test_the_prefix_that_most_wait_for_goes_first():
    gate, _ = make_gate()
    chains = {"a": ["P", "a"], "b": ["Q", "b"], "c": ["Q", "c"], "d": ["R", "d"], "e": ["R", "e"], "f": ["R", "f"]}
    fill(gate, chains)
    assert start(gate, chains) == ["d", "b", "a"]


def test_an_urgent_trial_goes_before_all_and_trains_the_prefix_that_it_shares():
    gate, _ = make_gate()
    chains = {"a": ["P", "a"], "b": ["P", "b"], "c": ["Q", "c"], "u": ["Q", "u"], "v": ["Q", "v"]}
    fill(gate, {name: chains[name] for name in "abc"})
    gate.add("u", chains["u"], urgent=True)
    gate.add("v", chains["v"], urgent=True)
    assert start(gate, chains) == ["u", "a"]
    gate.published("Q")
    assert start(gate, chains) == ["v", "c"]


def test_what_a_trial_claimed_is_free_when_it_ends():
    gate, _ = make_gate()
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"], "c": ["P", "Q", "c"]}
    fill(gate, chains)
    assert start(gate, chains) == ["a"]
    gate.published("P")
    gate.release("a")
    assert start(gate, chains) == ["b"]


def test_published_stages_are_not_waited_for():
    chains = {"a": ["P", "Q", "a"], "b": ["P", "Q", "b"]}
    gate, _ = make_gate(published=["P", "Q"])
    fill(gate, chains)
    assert start(gate, chains) == ["a", "b"]


def test_nobody_starts_on_what_another_sweep_is_training_until_it_is_there_or_given_up():
    chains = {"a": ["P", "a"], "b": ["P", "b"], "c": ["Q", "c"]}
    for published, then in ((True, ["a", "b"]), (False, ["a"])):
        gate, store = make_gate(elsewhere=["P"])
        fill(gate, chains)
        assert start(gate, chains) == ["c"]
        del store.trained_by["P"]
        if published:
            store.published.add("P")
        assert start(gate, chains) == then


def test_a_damaged_prefix_is_waited_for_while_its_finder_trains_it_again():
    gate, _ = make_gate(published=["P"])
    chains = {"a": ["P", "a"], "b": ["P", "b"]}
    gate.add("a", chains["a"])
    assert start(gate, chains) == ["a"]
    gate.in_training("a", "P")
    gate.add("b", chains["b"])
    assert start(gate, chains) == []
    gate.published("P")
    assert start(gate, chains) == ["b"]
