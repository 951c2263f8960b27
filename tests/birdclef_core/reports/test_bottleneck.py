"""What held an epoch up, and the flag that helps."""

import pytest

from birdclef_core.reports.bottleneck import bottleneck_line


def line(**changes) -> str:
    known = {"waited_share": 0.01, "waits_for_data": False, "gpu_share": 0.95, "reader_share": 0.1, "precision": "float32"}
    return bottleneck_line(**{**known, **changes})


@pytest.mark.parametrize(
    ("changes", "said", "flag"),
    [
        ({}, "The GPU is the limit (busy 95% of the time)", "--set precision=bfloat16"),
        ({"gpu_share": None}, "The processor is the limit (1% of the time waiting for clips)", "--cpus-per-trial"),
        ({"gpu_share": 0.6}, "The GPU was busy 60% of the time while clips were ready", "--gpus-per-trial 0.5"),
        ({"waited_share": 0.4, "waits_for_data": True}, "Waited 40% of the time for clips: reading is slow", "--cache-dir"),
        (
            {"waited_share": 0.4, "waits_for_data": True, "reader_share": 0.97, "gpu_share": None},
            "the reading threads had no pause",
            "--max-concurrent",
        ),
    ],
)
def test_it_names_what_held_training_up_and_what_helps(changes, said, flag):
    assert said in line(**changes) and flag in line(**changes)


def test_what_is_already_done_is_not_advised():
    assert "bfloat16" not in line(precision="bfloat16")
