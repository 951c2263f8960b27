"""What tests of stages use."""

import pytest
import torch

from birdclef_core.stages.store import StageStore
from birdclef_core.storage import Storage


@pytest.fixture(autouse=True)
def one_thread():
    """The same bits ask for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage.parse(str(tmp_path / "store")))
