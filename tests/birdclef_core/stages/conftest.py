"""What tests of stages use."""

import pytest

from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage.parse(str(tmp_path / "store")))
