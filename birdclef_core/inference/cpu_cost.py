"""What a model costs where it is used: the CPU seconds in which it hears 10 minutes of sound, measured once a model and kept in the store."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from birdclef_core.config import SAMPLE_RATE_HZ, ModelConfig, evolve
from birdclef_core.errors import FileContentError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.bundle.timing import network_ms, one_thread, spectrogram_ms
from birdclef_core.inference.logits import inference_code
from birdclef_core.inference.networks.network import input_shape
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import DEFAULT
from birdclef_core.inference.windows import num_windows
from birdclef_core.models.detector import Detector
from birdclef_core.stages.environment import environment
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import DROPOUTS

SOUND_S = 600.0
"""Seconds of the soundscape that the cost is of."""

_NUM_SPECIES = 200
"""How many species the measured head tells apart. Their number hardly changes the cost."""
_CPU = torch.device("cpu")


def measure_cpu_seconds(config: ModelConfig) -> float:
    """Return the CPU seconds in which one thread hears 10 minutes of sound with a model, as it is deployed in plain torch by default.

    Weights are random and the sound is noise, which change no time. Reading a file is not counted. It takes about three seconds.
    """
    with torch.random.fork_rng(devices=[]):
        model = Detector(config, _NUM_SPECIES)
    with one_thread():
        window_ms = spectrogram_ms(config, DEFAULT.context) + network_ms(TorchRuntime(model, _CPU), input_shape(config, DEFAULT))
    return window_ms / 1000 * num_windows(round(SOUND_S * SAMPLE_RATE_HZ), DEFAULT)


@dataclass(frozen=True, kw_only=True)
class CpuCost:
    """A measurement as the store keeps it."""

    encoder: str
    cpu: str
    """Name of the CPU."""
    torch: str
    """Version of torch."""
    cpu_seconds: float


class CpuCosts:
    """Gives the CPU seconds of models on this machine's kind of CPU: from the store if they were measured before, else measured now."""

    def __init__(
        self, storage: Storage, say: Callable[[str], None], measure: Callable[[ModelConfig], float] = measure_cpu_seconds
    ) -> None:
        """`storage`: the store's. `say` is called with a line on each measurement before it is made."""
        self._storage, self._say, self._measure = storage, say, measure
        self._known: dict[ModelConfig, float] = {}

    def __call__(self, config: ModelConfig) -> float:
        """Return the CPU seconds in which a model hears 10 minutes of sound."""
        same = evolve(config, dict.fromkeys(DROPOUTS, 0.0))  # nothing is dropped where a model is used
        if same not in self._known:
            self._known[same] = self._kept(same)
        return self._known[same]

    def _kept(self, config: ModelConfig) -> float:
        machine = environment(_CPU)
        cpu, version = machine["device"], machine["torch"]
        file = f"cpu_seconds/{fingerprint([config, DEFAULT, inference_code(), cpu, version])[:32]}.json"
        try:
            kept = self._storage.read_json(CpuCost, file)
        except FileContentError:  # it takes seconds to measure again
            kept = None
        if kept is not None and kept.cpu_seconds > 0:
            return kept.cpu_seconds
        self._say(f"Measuring what {config.encoder} ({config.head}) takes for 10 minutes of sound on {cpu}.")
        cpu_seconds = self._measure(config)
        self._storage.write_json(file, CpuCost(encoder=config.encoder, cpu=cpu, torch=version, cpu_seconds=cpu_seconds), indent=1)
        return cpu_seconds
