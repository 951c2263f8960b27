"""Work runs on as many threads as torch has, and gives what it gives on one."""

import threading
import time

import numpy as np
import pytest
import torch
from made_up_detector import SPECIES, tiny_config

from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import DEFAULT
from birdclef_core.inference.threads import on_each_thread
from birdclef_core.models.detector import Detector


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_run_at_once_on_a_thread_of_torch_each_and_keep_their_order(two_threads):
    both_are_there = threading.Barrier(2, timeout=20)

    def work(part: int) -> tuple[int, int]:
        both_are_there.wait()
        return part, torch.get_num_threads()

    assert list(on_each_thread(work, [range(6)])) == [[(part, 1) for part in range(6)]]
    assert torch.get_num_threads() == 2
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [2], "threads that begin later have torch's number"


def test_an_error_is_raised_and_torch_keeps_its_threads(two_threads):
    with pytest.raises(ZeroDivisionError):
        list(on_each_thread(lambda part: 1 // part, [[1, 0, 1]]))
    assert torch.get_num_threads() == 2


def test_the_next_group_is_taken_and_begun_while_one_is_at_work(two_threads):
    next_is_there, next_is_begun = threading.Event(), threading.Event()

    def groups():
        yield ["waits for the next"]
        next_is_there.set()
        yield ["next"]

    def work(part: str) -> bool:
        if part == "next":
            next_is_begun.set()
            return True
        return next_is_there.wait(20) and next_is_begun.wait(20)

    assert list(on_each_thread(work, groups())) == [[True], [True]]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_groups_of_any_size_keep_their_order_and_are_not_taken_all_at_once(two_threads, num_threads):
    torch.set_num_threads(num_threads)
    taken = []

    def groups():
        for size in (3, 1, 0, 5, 2):
            taken.append(size)
            yield [size] * size

    found = on_each_thread(lambda part: part, groups())
    assert next(found) == [3, 3, 3] and taken == [3, 1][:num_threads]
    assert list(found) == [[1], [], [5] * 5, [2, 2]]


def test_one_that_stops_early_leaves_no_work_behind(two_threads):
    begun = []

    def work(part: int) -> None:
        begun.append(part)
        time.sleep(0.005)

    found = on_each_thread(work, ([number] * 10 for number in range(3)))
    next(found)
    found.close()
    count = len(begun)
    assert 10 <= count < 20 and torch.get_num_threads() == 2
    time.sleep(0.05)
    assert len(begun) == count


def test_a_detector_gives_the_same_bits_with_any_number_of_threads(two_threads):
    torch.manual_seed(0)
    config = tiny_config("sed")
    runtime = TorchRuntime(Detector(config, len(SPECIES)), torch.device("cpu"))
    detector = DeployedDetector((Member(model_id="a", config=config, species=tuple(SPECIES), runtime=runtime),))
    wave_BT = np.random.default_rng(0).standard_normal((11, DEFAULT.context), dtype=np.float32)
    on_two = detector.hear(wave_BT)
    torch.set_num_threads(1)
    on_one = detector.hear(wave_BT)
    assert on_two.logits_BC.shape == (11, len(SPECIES))
    np.testing.assert_array_equal(on_two.logits_BC, on_one.logits_BC)
    np.testing.assert_array_equal(on_two.embedding_BD, on_one.embedding_BD)
