"""Example recordings as people and as models see them: waveform, spectrum, and mel spectrogram at every recipe's settings.

Shapes: T samples, F mel bins, N frames, K channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.signal import welch

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig
from birdclef_core.data.decode import decode
from birdclef_core.errors import DataError
from birdclef_core.html.charts import HALF, WIDE, area, drawable, loudness, quiet
from birdclef_core.html.theme import FIRST, SLOPES, inline_svg

SHOWN_S = 10.0
"""Seconds of a recording that are shown: its loudest stretch."""

_READ_S = 60.0
_WAVE_COLUMNS = 900
_TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)
_CHANNELS = ("mel", "delta", "delta of delta")


@dataclass(frozen=True)
class Example:
    """The loudest stretch of a recording."""

    recording_id: str
    species: str
    start_s: float
    """Where the stretch begins in the recording."""
    wave_T: NDArray[np.float32]

    @property
    def end_s(self) -> float:
        """Where the stretch ends in the recording."""
        return self.start_s + len(self.wave_T) / SAMPLE_RATE_HZ


@dataclass(frozen=True)
class Setting:
    """A spectrogram and the recipes that use it."""

    config: SpectrogramConfig
    recipes: tuple[str, ...]


def choose_examples(root: Path, recordings: pd.DataFrame, count: int) -> list[Example]:
    """Return `count` recordings of different species, from common species to rare ones.

    Of each species it is the best rated recording that lasts as long as is shown, or else the longest. If one cannot be decoded,
    the next of its species is taken.
    """
    totals = recordings["primary_label"].value_counts()
    places = np.unique(np.linspace(0, len(totals) - 1, count).round().astype(int))
    ranked = recordings.assign(shown_s=recordings["duration_s"].clip(upper=SHOWN_S)).sort_values(
        ["shown_s", "rating"], ascending=False, kind="stable"
    )
    found = [_first_decodable(root, ranked[ranked["primary_label"] == code]) for code in totals.index[places]]
    return [example for example in found if example is not None]


def _first_decodable(root: Path, candidates: pd.DataFrame) -> Example | None:
    for row in candidates.itertuples():
        try:
            wave_T = decode(root / str(row.path), max_s=_READ_S)
        except DataError:
            continue  # `birdclef data check` names it; a picture needs any recording of the species.
        start = _loudest(wave_T)
        shown = wave_T[start : start + round(SHOWN_S * SAMPLE_RATE_HZ)]
        return Example(str(row.recording_id), str(row.primary_label), start / SAMPLE_RATE_HZ, shown)
    return None


def _loudest(wave_T: NDArray[np.float32]) -> int:
    """Return the first sample of the stretch with most power, in steps of half a second."""
    length, step = round(SHOWN_S * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ // 2
    if len(wave_T) <= length:
        return 0
    power = np.concatenate([[0.0], np.cumsum(wave_T.astype(np.float64) ** 2)])
    starts = np.arange(0, len(wave_T) - length + 1, step)
    return int(starts[np.argmax(power[starts + length] - power[starts])])


def settings_of(recipes: Mapping[str, SpectrogramConfig]) -> list[Setting]:
    """Return the recipes' spectrograms; recipes with the same bins and frames share one."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, config in recipes.items():
        groups.setdefault((config.num_mels, config.n_fft, config.hop_length, config.f_min_hz, config.f_max_hz), []).append(name)
    return [Setting(recipes[names[0]], tuple(names)) for names in groups.values()]


def wave_picture(example: Example) -> Markup:
    """Return the waveform and the spectrum of an example."""
    with inline_svg(WIDE, 2.7, f"waveform and spectrum of {example.recording_id}") as canvas:
        wave_axes, spectrum_axes = canvas.figure.subplots(1, 2, width_ratios=(1.7, 1))
        _draw_wave(wave_axes, example)
        frequency_hz, power = welch(example.wave_T, SAMPLE_RATE_HZ, nperseg=min(2048, len(example.wave_T)))
        level_db = 10 * np.log10(power + 1e-14)
        area(spectrum_axes, frequency_hz / 1000, level_db, base=float(level_db.min()))
        spectrum_axes.set(xlabel="frequency, kHz", ylabel="dB", xlim=(0, SAMPLE_RATE_HZ / 2000))
        spectrum_axes.set_title("Spectrum")
    return canvas.svg


def _draw_wave(axes: Axes, example: Example) -> None:
    """Draw the highest and the lowest sample of each column: at this width, single samples cannot be seen."""
    columns = np.array_split(example.wave_T, min(_WAVE_COLUMNS, len(example.wave_T)))
    time_s = np.linspace(example.start_s, example.end_s, len(columns))
    lowest, highest = [part.min() for part in columns], [part.max() for part in columns]
    axes.fill_between(time_s, lowest, highest, color=FIRST, linewidth=0.4, edgecolor=FIRST)
    limit = max(1e-3, float(np.abs(example.wave_T).max())) * 1.05
    axes.set(xlim=(time_s[0], time_s[-1]), ylim=(-limit, limit), xlabel="seconds", ylabel="full scale = 1")
    axes.set_title("Waveform")
    quiet(axes)


def mel_pictures(example: Example, settings: Sequence[Setting]) -> list[Markup]:
    """Return a mel spectrogram of an example for each setting."""
    return [_mel_picture(example, setting) for setting in settings]


def _mel_picture(example: Example, setting: Setting) -> Markup:
    config, mel = setting.config, MelSpectrogram(setting.config)
    db_FN = mel.mel_db(torch.from_numpy(example.wave_T)[None])[0].numpy()
    names = ", ".join(setting.recipes)
    step_ms, window_ms = 1000 * config.hop_length / SAMPLE_RATE_HZ, 1000 * config.n_fft / SAMPLE_RATE_HZ
    centre_hz = mel.filters.argmax(dim=1).numpy() * SAMPLE_RATE_HZ / config.n_fft
    ticks_khz = [tick for tick in _TICKS_KHZ if centre_hz[0] <= 1000 * tick <= centre_hz[-1] * 1.02]
    places = np.interp([1000 * tick for tick in ticks_khz], centre_hz, np.arange(len(centre_hz)))
    with inline_svg(HALF, 2.7, f"mel spectrogram of {example.recording_id} as {names} see it") as canvas:
        axes = canvas.figure.subplots()
        image = loudness(axes, db_FN - db_FN.max(), (example.start_s, example.end_s, -0.5, len(db_FN) - 0.5))
        axes.set_title(drawable(names))
        axes.set_xlabel(
            f"{config.num_mels} bins, {config.f_min_hz / 1000:g} to {config.f_max_hz / 1000:g} kHz, "
            f"window {window_ms:.0f} ms, step {step_ms:.1f} ms"
        )
        axes.set_yticks(places, [f"{tick:g}" for tick in ticks_khz])
        axes.set_ylabel("kHz")
        axes.tick_params(length=2)
        bar = canvas.figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label("dB below the loudest")
    return canvas.svg


def delta_pictures(example: Example, setting: Setting) -> list[Markup]:
    """Return the channels of a setting with deltas: the mel spectrogram and its slopes along frequency."""
    channels_KFN = MelSpectrogram(setting.config)(torch.from_numpy(example.wave_T)[None])[0].numpy()
    pictures = []
    for number, (channel_FN, name) in enumerate(zip(channels_KFN, _CHANNELS, strict=True), start=1):
        with inline_svg(4.4, 2.6, f"channel {number} of {example.recording_id}: {name}") as canvas:
            axes = canvas.figure.subplots()
            image = loudness(axes, channel_FN)
            if name != "mel":
                limit = float(np.quantile(np.abs(channel_FN), 0.99)) or 1.0
                image.set(cmap=SLOPES, clim=(-limit, limit))
            axes.set_title(f"Channel {number}: {name}")
            axes.set_xticks([])
            axes.set_yticks([])
        pictures.append(canvas.svg)
    return pictures
