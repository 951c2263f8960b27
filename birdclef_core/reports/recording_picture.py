"""A recording's mel spectrogram beside what a model heard in it, as SVG written by hand: a stage has six, and a figure takes long.

Shapes: F mel bins, N frames, W picture columns.
"""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib.image
import numpy as np
import torch
from numpy.typing import NDArray

from birdclef_core.audio.mel_scale import hz_to_bin
from birdclef_core.config import SpectrogramConfig

_TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)
_MAX_COLUMNS = 700
_SHOWN_DB = 60.0
_WIDTH, _HEIGHT = 1000, 190
_LEFT, _TOP, _PICTURE_WIDTH, _PICTURE_HEIGHT = 42, 6, 600, 150
_BARS_LEFT, _BARS_WIDTH = 770, 180


@dataclass(frozen=True)
class Heard:
    """A species with its probability, and whether it is named as heard."""

    species: str
    probability: float
    is_true: bool


def recording_picture(
    db_FN: NDArray[np.floating], duration_s: float, config: SpectrogramConfig, heard: Sequence[Heard], name: str
) -> str:
    """`db_FN` are decibels over `duration_s` seconds; `name` says what is to be seen, for those who cannot see it."""
    parts = [
        f'<svg role="img" aria-label="{escape(name)}" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="var(--font)" font-size="12">',
        f'<image x="{_LEFT}" y="{_TOP}" width="{_PICTURE_WIDTH}" height="{_PICTURE_HEIGHT}" preserveAspectRatio="none" '
        f'href="data:image/png;base64,{_png(db_FN)}"/>',
        *_frequency_ticks(config),
        *_time_ticks(duration_s),
        *_bars(heard),
        "</svg>",
    ]
    return "".join(parts)


def _png(db_FN: NDArray[np.floating]) -> str:
    """Base64 of the picture: the loudest of the frames that share a column, from the maximum down to `_SHOWN_DB` below it."""
    starts_W = np.unique(np.linspace(0, db_FN.shape[1], min(_MAX_COLUMNS, db_FN.shape[1]), endpoint=False).astype(int))
    db_FW = np.maximum.reduceat(db_FN, starts_W, axis=1)
    top = float(db_FW.max())
    buffer = io.BytesIO()
    matplotlib.image.imsave(buffer, db_FW, cmap="magma", vmin=top - _SHOWN_DB, vmax=top, origin="lower", format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def _frequency_ticks(config: SpectrogramConfig) -> Iterator[str]:
    for khz in _TICKS_KHZ:
        if config.f_min_hz <= 1000 * khz <= config.f_max_hz:
            place = float(hz_to_bin(torch.tensor(1000.0 * khz, dtype=torch.float64), config))
            share = min(max((place + 0.5) / config.num_mels, 0.0), 1.0)
            yield _text(_LEFT - 6, _TOP + _PICTURE_HEIGHT * (1 - share) + 4, f"{khz:g}", anchor="end")
    yield f'<text transform="translate(10 {_TOP + _PICTURE_HEIGHT / 2}) rotate(-90)" text-anchor="middle" fill="var(--muted)">kHz</text>'


def _time_ticks(duration_s: float) -> Iterator[str]:
    step_s = next(step for step in (1, 2, 5, 10, 20, 60) if duration_s / step <= 8 or step == 60)
    for tick_s in np.arange(0, duration_s + 1e-6, step_s):
        yield _text(_LEFT + _PICTURE_WIDTH * tick_s / duration_s, _TOP + _PICTURE_HEIGHT + 16, f"{tick_s:g} s")


def _bars(heard: Sequence[Heard]) -> Iterator[str]:
    height = _PICTURE_HEIGHT / len(heard)
    for row, item in enumerate(heard):
        y = _TOP + row * height
        bar, ink = ("var(--first)", "var(--first)") if item.is_true else ("var(--line)", "var(--ink)")
        width = max(1.0, item.probability * _BARS_WIDTH)
        weight = ' font-weight="700"' if item.is_true else ""
        yield f'<rect x="{_BARS_LEFT}" y="{y + 0.15 * height:.1f}" width="{width:.1f}" height="{0.7 * height:.1f}" fill="{bar}"/>'
        yield _text(_BARS_LEFT - 8, y + height / 2 + 4, item.species, anchor="end", fill=ink, more=weight)
        yield _text(_BARS_LEFT + width + 6, y + height / 2 + 4, f"{item.probability:.2g}", anchor="start")


def _text(x: float, y: float, text: str, *, anchor: str = "middle", fill: str = "var(--muted)", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"{more}>{escape(text)}</text>'
