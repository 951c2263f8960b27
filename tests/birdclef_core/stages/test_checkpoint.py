"""An epoch checkpoint comes back as it was written, and counters that are damaged or of other code are refused."""

import pytest
import torch
from damage import damages

from birdclef_core.errors import FileContentError
from birdclef_core.json_files import to_json
from birdclef_core.stages.checkpoint import load_training_state, save_training_state
from birdclef_core.stages.epochs import EpochMetrics, StageCounters
from birdclef_core.stages.throughput import Throughput

METRICS = EpochMetrics(
    epoch=1,
    is_last=False,
    train_loss=float("inf"),
    learning_rate=1e-3,
    clips_per_s=2.5,
    waited_s=0.0,
    device_s=1.0,
    evaluate_s=0.5,
    epoch_s=2.0,
    memory_bytes=2**33,
    bottleneck="one line",
    waits_for_data=False,
    scores={"cmap": 0.5},
    time_s=0.0,
)
COUNTERS = StageCounters(
    epoch=1,
    step=3,
    checkpoints=2,
    cost_s=2.0,
    under_way=Throughput(clips=12, train_s=1.5),
    best_epoch=1,
    best_score=0.5,
    averaged=1,
    origin="started from random weights",
    micro_batch_size=4,
    compiled=True,
    history=[METRICS],
)


def test_groups_and_counters_come_back(tmp_path):
    groups = {"model": {"head.weight": torch.arange(6.0).reshape(2, 3).T}, "empty": {}}
    save_training_state(tmp_path, groups, COUNTERS)
    again, counters = load_training_state(tmp_path)
    assert counters == COUNTERS
    assert again.keys() == {"model"} and torch.equal(again["model"]["head.weight"], groups["model"]["head.weight"])


@pytest.mark.parametrize("damage", list(damages(StageCounters, to_json(COUNTERS))), ids=lambda damage: damage.what)
def test_damaged_counters_are_refused(tmp_path, damage):
    save_training_state(tmp_path, {"model": {"w": torch.zeros(1)}}, COUNTERS)
    (tmp_path / "counters.json").write_bytes(damage.content)
    with pytest.raises(FileContentError, match=r"counters\.json cannot be read") as error:
        load_training_state(tmp_path)
    assert damage.place in error.value.problem
