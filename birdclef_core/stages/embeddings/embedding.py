"""Makes a stage of embeddings: an encoder that is not trained hears all windows once.

Shapes: W windows, D numbers of an embedding.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from birdclef_core.config import SAMPLE_RATE_HZ, StageConfig
from birdclef_core.data.soundscapes import WINDOW_S
from birdclef_core.data.windows import PredictionWindows, SoundscapeWindows, Windows, window_grid
from birdclef_core.errors import DataError, FileContentError, TrainingError
from birdclef_core.stages.embeddings.clips import clips_of
from birdclef_core.stages.embeddings.encoders import Embed, build_embed
from birdclef_core.stages.embeddings.stored import Embeddings
from birdclef_core.stages.environment import environment
from birdclef_core.stages.epochs import EpochMetrics, metrics_of_hearing
from birdclef_core.stages.interruption import StageInterrupted, Stop, never
from birdclef_core.stages.task import StageTask
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.stages.training_step import to_float
from birdclef_core.store.stage_store import StageRecord, StageStore

AT_ONCE = 2048
"""Windows between two looks at the clock for a checkpoint."""
_DONE = "embeddings_done.safetensors"
CPU = torch.device("cpu")


def embed_stage(
    task: StageTask, data: TrainingData, store: StageStore, device: torch.device, *, stop: Stop = never, trained_by: str = ""
) -> Iterator[EpochMetrics]:
    """Make the embeddings, publish them with their encoder, and yield once. An interrupted stage continues with the windows that are left.

    Raises DataError when there is nothing to hear, TrainingError for embeddings that are not finite in half precision, StageInterrupted
    when `stop` gives a reason, and as `build_embed` does.
    """
    started, config, dataset = time.perf_counter(), task.config, data.dataset
    embed = build_embed(task, device)
    rows_R = np.arange(len(dataset.recordings))
    row_W, start_W = window_grid(np.array([data.cache.num_samples(int(row)) for row in rows_R]), rows_R, config.clip_samples)
    if not len(row_W):
        raise DataError(f"Stage {config.name} must have at least one window, but no recording could be decoded.")
    parts, number, earlier_s = store.latest_epoch_checkpoint(task.stage_id, _read) or ([], 0, 0.0)
    saved, done = time.monotonic(), sum(map(len, parts))
    while done < len(row_W):
        part = slice(done, done + AT_ONCE)
        windows = PredictionWindows(
            data.cache, row_W[part], start_W[part], config.clip_samples, num_species=1, batch_size=config.evaluation_batch_size
        )
        parts.append(_embedded(embed, windows, config, (0,)))
        done += len(parts[-1])
        reason = stop()
        if reason or time.monotonic() - saved >= config.checkpoint_every_s:
            number, saved = number + 1, time.monotonic()
            with store.save_epoch_checkpoint(task.stage_id, number) as folder:
                state = np.array([number, earlier_s + time.perf_counter() - started])
                save_file({"embeddings": np.concatenate(parts), "state": state}, folder / _DONE)
        if reason:
            raise StageInterrupted(f"Stage {config.name} was interrupted after {done:,} of {len(row_W):,} windows: {reason}")
    embedding_WD = np.concatenate(parts)

    made = Embeddings(
        row_W=row_W, start_W=start_W, embedding_WD=embedding_WD, scored_WD=_scored(task, data, embed, embedding_WD.shape[1])
    )
    seconds = earlier_s + time.perf_counter() - started
    metrics = metrics_of_hearing(len(row_W), heard_s=seconds, evaluate_s=0.0, all_s=seconds, scores={})

    def record() -> StageRecord:
        return StageRecord(
            stage_id=task.stage_id,
            parent_id=None,
            recipe=task.recipe,
            stage=config.name,
            identity=task.identity,
            species=[],
            metrics={},
            history=[asdict(metrics)],
            cost_s=seconds,
            surgery=f"{len(row_W):,} windows of {config.clip_s:g} s, {embedding_WD.shape[1]} numbers each",
            environment=environment(device),
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            trained_by=trained_by,
        )

    with store.publish(record, task.stage_id) as folder:
        made.save(folder)
        embed.save(folder)
    yield metrics


def _scored(task: StageTask, data: TrainingData, embed: Embed, num_numbers: int) -> NDArray[np.float16]:
    """Embeddings of the labelled windows of soundscapes: each by one clip around it, or by several that cover it."""
    config, soundscapes, cache = task.config, data.dataset.soundscapes, data.soundscape_cache
    if soundscapes is None or cache is None or not len(soundscapes.windows):
        return np.zeros((0, num_numbers), np.float16)
    windows = SoundscapeWindows(
        soundscapes,
        cache,
        data.dataset.all_species,
        context_s=max(0.0, (config.clip_s - WINDOW_S) / 2),
        batch_size=config.evaluation_batch_size,
    )
    return _embedded(embed, windows, config, clips_of(WINDOW_S * SAMPLE_RATE_HZ, config.clip_samples))


def _embedded(embed: Embed, windows: Windows, config: StageConfig, starts: tuple[int, ...]) -> NDArray[np.float16]:
    """Embeddings of windows in their order; of each, those of the clips that begin at `starts`."""
    parts = []
    for batch in windows:
        wave_BT = to_float(batch.wave_BT, CPU)
        clips = [embed(wave_BT[:, start : start + config.clip_samples]) for start in starts]
        parts.append(torch.stack(clips, dim=1).flatten(0, 1).numpy())
    made = np.concatenate(parts).astype(np.float16)
    if not np.isfinite(made).all():
        raise TrainingError(
            f"Embeddings of stage {config.name} must be finite in half precision (below 65,504), but some are not."
        )
    return made


def _read(folder: Path) -> tuple[list[NDArray[np.float16]], int, float]:
    try:
        arrays = load_file(folder / _DONE)
        return [arrays["embeddings"]], int(arrays["state"][0]), float(arrays["state"][1])
    except (OSError, KeyError, ValueError) as error:
        raise FileContentError(str(folder / _DONE), str(error)) from None
