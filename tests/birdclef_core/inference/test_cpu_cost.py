"""What a model costs where it is used is measured once for a model and a machine, and kept in the store."""

from dataclasses import replace

import pytest
import torch
from made_up_detector import tiny_config

from birdclef_core.inference import cpu_cost
from birdclef_core.inference.cpu_cost import CpuCosts, measure_cpu_seconds
from birdclef_core.store.storage import Storage

CONFIG = tiny_config("sed")


@pytest.fixture
def storage(tmp_path) -> Storage:
    return Storage.parse(str(tmp_path))


class Measure:
    def __init__(self) -> None:
        self.measured = []

    def __call__(self, config) -> float:
        self.measured.append(config)
        return 10.0 * len(self.measured)


def test_a_measurement_is_of_120_windows_by_one_thread_and_leaves_random_numbers_as_they_are(monkeypatch):
    threads = []

    def took(milliseconds: float):
        return lambda *_: threads.append(torch.get_num_threads()) or milliseconds

    monkeypatch.setattr(cpu_cost, "network_ms", took(30.0))
    monkeypatch.setattr(cpu_cost, "spectrogram_ms", took(3.0))
    torch.manual_seed(1)
    before, threads_before = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert measure_cpu_seconds(CONFIG) == pytest.approx(0.033 * 120)
        assert threads == [1, 1] and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads_before)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_larger_model_takes_more():
    large = replace(CONFIG, spectrogram=replace(CONFIG.spectrogram, num_mels=4 * CONFIG.spectrogram.num_mels, hop_length=320))
    assert 0 < measure_cpu_seconds(CONFIG) < measure_cpu_seconds(large)


def test_what_was_measured_is_kept_for_this_kind_of_cpu(storage, monkeypatch):
    measure, said = Measure(), []
    costs = CpuCosts(storage, said.append, measure)
    assert costs(CONFIG) == costs(CONFIG) == 10.0 and len(said) == 1 and CONFIG.encoder in said[0]
    assert costs(replace(CONFIG, drop_path_rate=0.1, head_dropout=0.3)) == 10.0, "nothing is dropped where a model is used"
    assert costs(replace(CONFIG, head="cnn")) == 20.0
    again = CpuCosts(storage, said.append, measure)
    assert again(CONFIG) == 10.0 and len(measure.measured) == len(said) == 2, "from the store"
    monkeypatch.setattr(cpu_cost, "environment", lambda device: {"device": "another CPU", "torch": torch.__version__})
    assert CpuCosts(storage, said.append, measure)(CONFIG) == 30.0
    assert said[-1].endswith("on another CPU.")


def test_a_damaged_measurement_is_made_again(storage):
    measure = Measure()
    CpuCosts(storage, print, measure)(CONFIG)
    (name,) = storage.at("cpu_seconds").names()
    storage.write_text(f"cpu_seconds/{name}", "rubbish")
    assert CpuCosts(storage, print, measure)(CONFIG) == 20.0
    assert CpuCosts(storage, print, measure)(CONFIG) == 20.0
