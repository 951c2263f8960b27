import torch

from birdclef_core.data.buffers import WaveBuffers


def test_memory_is_used_again_and_never_while_somebody_sees_it() -> None:
    buffers = WaveBuffers(keep=2)
    first = buffers.take(3, 100).fill_(1)
    address, row = first.data_ptr(), first[1]
    other = buffers.take(3, 100).fill_(2)
    assert other.data_ptr() != address
    del first
    assert buffers.take(3, 100).fill_(3).data_ptr() != address and row.tolist() == [1] * 100
    del row
    smaller = buffers.take(2, 50)
    assert smaller.data_ptr() == address and smaller.shape == (2, 50) and smaller.dtype == torch.int16
    assert other.unique().tolist() == [2]


def test_what_is_kept_is_bounded_and_grows_to_what_is_needed() -> None:
    buffers = WaveBuffers(keep=2)
    batches = [buffers.take(1, 10) for _ in range(5)]
    del batches
    assert len(buffers._free) == 2
    assert buffers.take(4, 10).fill_(7).shape == (4, 10)
    assert buffers.take(0, 10).shape == (0, 10)


def test_memory_for_floats() -> None:
    assert WaveBuffers(1, "float32").take(2, 10).fill_(0.5).unique().tolist() == [0.5]
