"""Measures on clips of noise how fast a stage would train on a device, in seconds: for plans before anything has been trained."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from birdclef_core.data.feed import TrainBatch
from birdclef_core.models.encoders import RANDOM
from birdclef_core.models.heads import EmbeddingHead
from birdclef_core.stages.embeddings.encoders import build_embed, onnx_file
from birdclef_core.stages.initial_model import initial_model
from birdclef_core.stages.optimizers import build_optimizer
from birdclef_core.stages.precision import Arithmetic
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training_step import TrainingStep
from birdclef_core.store.summary import Spread
from birdclef_core.taxonomy import LabelSpace

CPU_BATCH_SIZE = 8
"""Clips of a batch on a CPU, which takes minutes for a full recipe's batch. The time for a clip hardly depends on this number."""
HEAD_NUMBERS, HEAD_STEPS = 1280, 8
"""Numbers of the embeddings on which the time of a head is measured (what an encoder makes is known once it has run), and the steps."""


def measure_clips_per_s(
    task: StageTask, space: LabelSpace, device: torch.device, *, threads: int, limit_s: float = 5.0
) -> Spread:
    """Return the clips per second through augmentation, spectrogram, model and optimiser, without waiting for data; of a stage of embeddings
    the windows per second through its own encoder.

    The weights are random, but for those of an ONNX encoder. The first step is not counted; then at least one step is measured, and more until
    `limit_s` is over, at most seven in all. `threads` is the number of threads that a trial has.
    """
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if task.config.embeds:
            rates = _rates_of_encoder(task, device, limit_s)
        elif task.config.embeddings:
            rates = _rates_of_head(task, space, device)
        else:
            rates = _rates(task, space, device, limit_s)
    finally:
        torch.set_num_threads(threads_before)
    return Spread(low=min(rates), middle=statistics.median(rates), high=max(rates))


def _rates_of_head(task: StageTask, space: LabelSpace, device: torch.device) -> list[float]:
    """The same for a head on embeddings."""
    config = task.config
    head = EmbeddingHead(HEAD_NUMBERS, len(space), config.head_hidden, task.model.head_dropout).to(device)
    optimizer = build_optimizer(head, config)  # type: ignore[arg-type]
    embedding_BD, target_BC = torch.randn(config.batch_size, HEAD_NUMBERS), torch.zeros(config.batch_size, len(space))
    rates = []
    for _ in range(HEAD_STEPS):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.binary_cross_entropy_with_logits(head(embedding_BD.to(device)), target_BC.to(device)).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(config.batch_size / (time.perf_counter() - started))
    return rates[1:]


def _rates(task: StageTask, space: LabelSpace, device: torch.device, limit_s: float) -> list[float]:
    """The same for a stage that trains a whole model."""
    model, _ = initial_model(task.model, task.config, space, device)
    optimizer = build_optimizer(model, task.config)
    arithmetic = Arithmetic(task.config.precision, device)
    step = TrainingStep(model, optimizer, task.config, arithmetic, device, on_note=lambda note: None)
    model.train()
    batch = _noise_batch(task, space, device)
    return _timed(lambda number: float(step(batch, seed=number)), len(batch.wave_BT), limit_s)


def _rates_of_encoder(task: StageTask, device: torch.device, limit_s: float) -> list[float]:
    """The same for a stage of embeddings: windows per second. An ONNX encoder runs on the CPU wherever it is."""
    embed = build_embed(replace(task, pretrained=RANDOM), device)
    on_gpu = device.type == "cuda" and onnx_file(task.config) is None
    size = task.config.evaluation_batch_size if on_gpu else min(task.config.evaluation_batch_size, CPU_BATCH_SIZE)
    wave_BT = torch.rand((size, task.config.clip_samples), generator=torch.Generator().manual_seed(0)) - 0.5
    return _timed(lambda number: embed(wave_BT), size, limit_s)


def _timed(run: Callable[[int], object], num_clips: int, limit_s: float) -> list[float]:
    """Return the clips per second of each step but the first. `run` is called with the number of each step and waits for its end."""
    rates: list[float] = []
    started = time.perf_counter()
    while len(rates) < 2 or (len(rates) < 8 and time.perf_counter() - started < limit_s):
        begun = time.perf_counter()
        run(len(rates))
        rates.append(num_clips / (time.perf_counter() - begun))
    return rates[1:]


def _noise_batch(task: StageTask, space: LabelSpace, device: torch.device) -> TrainBatch:
    size = task.config.batch_size if device.type == "cuda" else min(task.config.batch_size, CPU_BATCH_SIZE)
    generator = torch.Generator().manual_seed(0)
    wave_BT = torch.randint(-8000, 8000, (size, task.config.clip_samples), generator=generator, dtype=torch.int16)
    target_BC = torch.zeros(size, len(space))
    target_BC[torch.arange(size), torch.arange(size) % len(space)] = 1.0
    return TrainBatch(
        wave_BT=wave_BT,
        target_BC=target_BC,
        weight_B=torch.ones(size),
        rows_B=torch.arange(size),
        noise_clip_M=torch.arange(size // 2),
        noise_wave_MT=wave_BT[: size // 2].flip(0),
        noise_snr_db_M=torch.full((size // 2,), 10.0),
    )
