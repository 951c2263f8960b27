"""Where an epoch's time went."""

import pytest
import torch

from birdclef_core.stages.throughput import StepClock, Throughput, peak_memory_bytes

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def passed(**changes) -> Throughput:
    return Throughput(**{"clips": 1000, "train_s": 100.0, "device_s": 95.0, "waited_s": 1.0, "reader_s": 20.0, **changes})


@pytest.mark.parametrize(("waited_s", "waits"), [(1.0, False), (40.0, True)])
def test_waiting_counts_from_a_tenth_of_the_time_on(waited_s, waits):
    assert passed(waited_s=waited_s).waits_for_data is waits


def test_parts_of_an_epoch_add_up():
    whole = passed() + passed(clips=500, waited_s=3.0)
    assert (whole.clips, whole.train_s, whole.waited_s) == (1500, 200.0, 4.0)
    assert whole.clips_per_s == 7.5


def test_the_clock_counts_steps_only():
    clock = StepClock(CPU)
    with clock.step():
        sum(range(200_000))
    first = clock.total_s()
    assert first > 0
    assert clock.total_s() == first


def test_memory_of_this_process_is_counted():
    assert peak_memory_bytes(CPU) > 50 * 2**20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_the_clock_of_a_gpu_counts_the_gpus_time():
    clock = StepClock(GPU)
    matrix = torch.randn(4096, 4096, device=GPU)
    for _ in range(3):
        with clock.step():
            matrix = matrix @ matrix
    assert clock.total_s() > 0.001
    assert peak_memory_bytes(GPU) >= matrix.nbytes
