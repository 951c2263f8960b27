"""Example recordings as people and as models see them: waveform, spectrum, and mel spectrogram at every recipe's settings.

Shapes: T samples, F mel bins, N frames, K channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.signal import welch

from birdclef_core.audio.spectrogram import MelSpectrogram
from birdclef_core.config import SAMPLE_RATE_HZ, SpectrogramConfig
from birdclef_core.data.decode import decode
from birdclef_core.errors import DataError
from birdclef_core.html.theme import FIRST, SLOPES, quiet, themed

SHOWN_S = 10.0
"""As much of a recording is shown: its loudest stretch."""

_WIDTH = 13.6
_READ_S = 60.0
_TICKS_KHZ = (0.5, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Example:
    recording_id: str
    species: str
    start_s: float
    wave_T: NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """A spectrogram with the recipes that use it."""

    config: SpectrogramConfig
    recipes: tuple[str, ...]


def choose_examples(root: Path, recordings: pd.DataFrame, count: int) -> list[Example]:
    """`count` recordings of different species, from common to rare: of each the best rated that lasts as long as is shown, or the
    longest. One that cannot be decoded makes way for the next of its species."""
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
            continue  # The check names it; a picture needs any recording of the species.
        start = _loudest(wave_T)
        shown = wave_T[start : start + round(SHOWN_S * SAMPLE_RATE_HZ)]
        return Example(str(row.recording_id), str(row.primary_label), start / SAMPLE_RATE_HZ, shown)
    return None


def _loudest(wave_T: NDArray[np.float32]) -> int:
    """Where the stretch with most power begins, to half a second."""
    length, step = round(SHOWN_S * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ // 2
    if len(wave_T) <= length:
        return 0
    power = np.concatenate([[0.0], np.cumsum(wave_T.astype(np.float64) ** 2)])
    starts = np.arange(0, len(wave_T) - length + 1, step)
    return int(starts[np.argmax(power[starts + length] - power[starts])])


def settings_of(recipes: dict[str, SpectrogramConfig]) -> list[Setting]:
    """The recipes' spectrograms, those with the same bins and frames together."""
    groups: dict[tuple[float, ...], list[str]] = {}
    for name, config in recipes.items():
        groups.setdefault((config.num_mels, config.n_fft, config.hop_length, config.f_min_hz, config.f_max_hz), []).append(name)
    return [Setting(recipes[names[0]], tuple(names)) for names in groups.values()]


def wave_picture(example: Example) -> str:
    """Waveform and spectrum."""
    with themed(_WIDTH, 2.7, f"waveform and spectrum of {example.recording_id}") as (figure, svg):
        wave_axes, spectrum_axes = figure.subplots(1, 2, width_ratios=(1.7, 1))
        _draw_wave(wave_axes, example)
        frequency_hz, power = welch(example.wave_T, SAMPLE_RATE_HZ, nperseg=min(2048, len(example.wave_T)))
        level_db = 10 * np.log10(power + 1e-14)
        spectrum_axes.fill_between(frequency_hz / 1000, level_db, level_db.min(), color=FIRST, alpha=0.22, linewidth=0)
        spectrum_axes.plot(frequency_hz / 1000, level_db, color=FIRST, linewidth=1.2)
        spectrum_axes.set(xlabel="frequency, kHz", ylabel="dB", xlim=(0, SAMPLE_RATE_HZ / 2000))
        spectrum_axes.set_title("Spectrum")
        quiet(spectrum_axes)
    return svg[0]


def _draw_wave(axes: Axes, example: Example) -> None:
    """Highest and lowest sample of each column: at this width single samples cannot be seen."""
    columns = np.array_split(example.wave_T, min(900, len(example.wave_T)))
    time_s = example.start_s + np.linspace(0, len(example.wave_T) / SAMPLE_RATE_HZ, len(columns))
    axes.fill_between(
        time_s, [part.min() for part in columns], [part.max() for part in columns], color=FIRST, linewidth=0.4, edgecolor=FIRST
    )
    limit = max(1e-3, float(np.abs(example.wave_T).max())) * 1.05
    axes.set(xlim=(time_s[0], time_s[-1]), ylim=(-limit, limit), xlabel="seconds", ylabel="full scale = 1")
    axes.set_title("Waveform")
    quiet(axes)


def mel_pictures(example: Example, settings: Sequence[Setting]) -> str:
    """A mel spectrogram for each setting."""
    rows = -(-len(settings) // 2)
    with themed(_WIDTH, 3.1 * rows, f"mel spectrograms of {example.recording_id}") as (figure, svg):
        figure.get_layout_engine().set(hspace=0.07, wspace=0.03)  # type: ignore[union-attr, call-arg]
        panels = figure.subplots(rows, 2, squeeze=False).ravel()
        for axes, setting in zip(panels, settings, strict=False):
            _draw_mel(figure, axes, example, setting)
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
    return svg[0]


def delta_pictures(example: Example, setting: Setting) -> str:
    """The channels of a setting with deltas: the mel spectrogram and its slopes along frequency."""
    channels_KFN = MelSpectrogram(setting.config)(torch.from_numpy(example.wave_T)[None])[0].numpy()
    names = ("mel", "delta", "delta of delta")
    with themed(_WIDTH, 2.6, f"channels of {example.recording_id}") as (figure, svg):
        for axes, channel_FN, name in zip(figure.subplots(1, 3), channels_KFN, names, strict=True):
            limit = float(np.quantile(np.abs(channel_FN), 0.999)) or 1.0
            colours = {"cmap": "magma"} if name == "mel" else {"cmap": SLOPES, "vmin": -limit, "vmax": limit}
            axes.imshow(channel_FN, origin="lower", aspect="auto", interpolation="none", **colours)
            axes.set_title(f"Channel {names.index(name) + 1}: {name}")
            axes.set_xticks([])
            axes.set_yticks([])
    return svg[0]


def _draw_mel(figure: Figure, axes: Axes, example: Example, setting: Setting) -> None:
    mel = MelSpectrogram(setting.config)
    db_FN = mel.mel_db(torch.from_numpy(example.wave_T)[None])[0].numpy()
    end_s = example.start_s + len(example.wave_T) / SAMPLE_RATE_HZ
    image = axes.imshow(
        db_FN - db_FN.max(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        interpolation="none",
        extent=(example.start_s, end_s, -0.5, len(db_FN) - 0.5),
    )
    config = setting.config
    step_ms, window_ms = 1000 * config.hop_length / SAMPLE_RATE_HZ, 1000 * config.n_fft / SAMPLE_RATE_HZ
    axes.set_title(", ".join(setting.recipes))
    axes.set_xlabel(
        f"{config.num_mels} bins, {config.f_min_hz / 1000:g} to {config.f_max_hz / 1000:g} kHz, "
        f"window {window_ms:.0f} ms, step {step_ms:.1f} ms"
    )
    centre_hz = mel.filters.argmax(dim=1).numpy() * SAMPLE_RATE_HZ / config.n_fft
    ticks_khz = [tick for tick in _TICKS_KHZ if centre_hz[0] <= 1000 * tick <= centre_hz[-1] * 1.02]
    axes.set_yticks(
        np.interp([1000 * tick for tick in ticks_khz], centre_hz, np.arange(len(centre_hz))), [f"{t:g}" for t in ticks_khz]
    )
    axes.set_ylabel("kHz")
    axes.tick_params(length=2)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("dB below the loudest")
