"""A recording's mel spectrogram beside what a model heard in it, drawn by hand: a stage has six, and matplotlib takes long.

Shapes: F mel bins, N frames, W picture columns.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib.image
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from birdclef_core.audio.mel_scale import hz_to_bin
from birdclef_core.config import SpectrogramConfig
from birdclef_core.html.svg import drawing, fitted, image, rectangle, text
from birdclef_core.html.theme import LOUDNESS

_TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)
_MAX_COLUMNS = 700
_SHOWN_DB = 60.0
_WIDTH, _HEIGHT = 1000, 180
_LEFT, _TOP, _PICTURE_WIDTH, _PICTURE_HEIGHT = 42, 6, 600, 150
_BARS_LEFT, _BARS_WIDTH = 780, 170
_MAX_CHARACTERS = 18


@dataclass(frozen=True)
class Heard:
    """A species, its probability, and whether it is named as heard."""

    species: str
    probability: float
    is_true: bool


def recording_picture(
    db_FN: NDArray[np.floating], duration_s: float, config: SpectrogramConfig, heard: Sequence[Heard], label: str
) -> Markup:
    """Return the picture as SVG. `db_FN` are decibels over `duration_s` seconds, `label` says what is to be seen."""
    parts = [
        image(_LEFT, _TOP, _PICTURE_WIDTH, _PICTURE_HEIGHT, _png(db_FN)),
        *_frequency_ticks(config),
        *_time_ticks(duration_s),
        *_bars(heard),
    ]
    return drawing(_WIDTH, _HEIGHT, parts, label)


def _png(db_FN: NDArray[np.floating]) -> bytes:
    """Return the spectrogram as a PNG, from its maximum down to `_SHOWN_DB` below. Of frames that share a column, the loudest counts."""
    starts_W = np.unique(np.linspace(0, db_FN.shape[1], min(_MAX_COLUMNS, db_FN.shape[1]), endpoint=False).astype(int))
    db_FW = np.maximum.reduceat(db_FN, starts_W, axis=1)
    top = float(db_FW.max())
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, db_FW, cmap=LOUDNESS, vmin=top - _SHOWN_DB, vmax=top, origin="lower", format="png")
    return buffer.getvalue()


def _frequency_ticks(config: SpectrogramConfig) -> Iterator[Markup]:
    for khz in _TICKS_KHZ:
        if config.f_min_hz <= 1000 * khz <= config.f_max_hz:
            place = float(hz_to_bin(torch.tensor(1000.0 * khz, dtype=torch.float64), config))
            share = min(max((place + 0.5) / config.num_mels, 0.0), 1.0)
            yield text(_LEFT - 6, _TOP + _PICTURE_HEIGHT * (1 - share) + 4, f"{khz:g}", anchor="end", colour="muted")
    yield text(12, _TOP + _PICTURE_HEIGHT / 2, "kHz", anchor="middle", colour="muted", upwards=True)


def _time_ticks(duration_s: float) -> Iterator[Markup]:
    step_s = next(step for step in (1, 2, 5, 10, 20, 60) if duration_s / step <= 8 or step == 60)
    for tick_s in np.arange(0, duration_s + 1e-6, step_s):
        x = _LEFT + _PICTURE_WIDTH * tick_s / duration_s
        yield text(x, _TOP + _PICTURE_HEIGHT + 16, f"{tick_s:g} s", anchor="middle", colour="muted")


def _bars(heard: Sequence[Heard]) -> Iterator[Markup]:
    height = _PICTURE_HEIGHT / len(heard)
    for row, item in enumerate(heard):
        y = _TOP + row * height
        width = max(1.0, item.probability * _BARS_WIDTH)
        colour = "first" if item.is_true else "ink"
        name = fitted(item.species, _MAX_CHARACTERS)
        yield rectangle(_BARS_LEFT, y + 0.15 * height, width, 0.7 * height, fill="first" if item.is_true else "muted")
        yield text(_BARS_LEFT - 8, y + height / 2 + 4, name, anchor="end", colour=colour, bold=item.is_true)
        yield text(_BARS_LEFT + width + 6, y + height / 2 + 4, f"{item.probability:.2g}", colour="muted")
