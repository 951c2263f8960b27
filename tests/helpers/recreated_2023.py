"""The procedure of the 2023 solution in plain numpy and float64, written from its rules and not from this project's code.

Rules: windows end at 5, 10, ... s; a model hears 10 s of each, silent before the first window and behind the last one. Decibels are cut
80 dB below the maximum of the 10 s, before a CNN's five seconds are cut out. A SED takes the largest logit over the segments of the
five seconds, three times: shifted by 0, -d and +d segments, and averages the probabilities by .5, .25, .25. Logits of models are
added up by weight.

The networks are made up, from formulas instead of random numbers, so that every result can be computed here. Run this file to write the
golden results.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "procedure_2023.npz"
RATE = 32_000
NUM_SPECIES = 5


@dataclass(frozen=True)
class Model:
    """The facts of one recipe, as the 2023 solution has them."""

    head: str
    n_mels: int
    n_fft: int
    hop: int
    f_min: float
    f_max: float
    unit: bool
    deltas: bool
    crop: tuple[int, int] | None
    shift: int
    weight: float


MODELS = {
    "sed_v2s": Model("sed", 128, 2048, 417, 0, 16000, True, True, None, 3, 0.25),
    "sed_b3ns": Model("sed", 128, 1024, 535, 50, 14000, False, True, None, 3, 0.21),
    "sed_seresnext26t": Model("sed", 128, 2048, 627, 0, 16000, False, False, None, 2, 0.10),
    "cnn_v2s": Model("cnn", 64, 1024, 320, 50, 14000, True, True, (250, 750), 0, 0.15),
    "cnn_b3ns": Model("cnn", 128, 1024, 535, 50, 14000, True, True, (150, 450), 0, 0.15),
    "cnn_resnet34d": Model("cnn", 128, 2048, 627, 0, 16000, False, True, (128, 384), 0, 0.10),
    "cnn_b0ns": Model("cnn", 128, 2048, 627, 0, 16000, False, False, (128, 384), 0, 0.04),
}


def sound(num_samples: int) -> np.ndarray:
    """Tones that come and go over a noise from a formula, with a mean that is not 0; exact in int16."""
    t = np.arange(num_samples) / RATE
    i = np.arange(num_samples, dtype=np.int64)
    noise = ((i * i * 7919 + i * 104729) % 65521) / 65521 - 0.5
    tones = sum(
        np.sin(2 * np.pi * f * t) * (np.sin(2 * np.pi * t / period) > 0.3)
        for f, period in ((1200, 3.1), (4700, 7.3), (9100, 4.4))
    )
    return np.round((0.1 * tones + 0.05 * noise + 0.02) * 32768) / 32768


def weights(model: Model, num_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Made-up weights (features, species) and biases of a network whose features are means over mel bins in 8 bands."""
    number = list(MODELS.values()).index(model) + 1
    features = np.arange(8 * num_channels)[:, None] + 1
    species = np.arange(NUM_SPECIES)[None] + 1
    return 10 * np.sin(features * species * 0.7 * number), 3 * np.cos(np.arange(NUM_SPECIES) + number)


def made_up_features(mel: np.ndarray, model: Model) -> np.ndarray:
    """Features of each segment of 32 frames (the last one shorter), (channels * 8, segments)."""
    bands = mel.reshape(mel.shape[0], 8, -1, mel.shape[2]).mean(axis=2).reshape(-1, mel.shape[2])
    return np.stack([bands[:, first : first + 32].mean(axis=1) for first in range(0, mel.shape[2], 32)], axis=1)


def windows(wave: np.ndarray) -> list[np.ndarray]:
    """What a model hears of each window; of the rest behind the last whole five seconds, nothing."""
    count = len(wave) // (5 * RATE)
    around = np.concatenate([np.zeros(80_000), wave[: count * 5 * RATE], np.zeros(80_000)])
    return [around[number * 5 * RATE :][: 10 * RATE] for number in range(count)]


def slaney_hz(mels: np.ndarray) -> np.ndarray:
    step = np.log(6.4) / 27
    return np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(step * (mels - 15)))


def slaney_mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def mel_filters(model: Model) -> np.ndarray:
    edges = slaney_hz(np.linspace(slaney_mel(model.f_min), slaney_mel(model.f_max), model.n_mels + 2))
    bins = np.arange(model.n_fft // 2 + 1) * RATE / model.n_fft
    filters = np.zeros((model.n_mels, len(bins)))
    for m in range(model.n_mels):
        low, centre, high = edges[m : m + 3]
        rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
        filters[m] = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    return filters


def spectrogram(heard: np.ndarray, model: Model) -> np.ndarray:
    """Mel spectrogram with its channels, (channels, mels, frames), whole 10 s."""
    half = model.n_fft // 2
    padded = np.concatenate([np.zeros(half), heard, np.zeros(half)])
    count = len(heard) // model.hop + 1
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(model.n_fft) / model.n_fft)
    frames = np.stack([padded[i * model.hop : i * model.hop + model.n_fft] * window for i in range(count)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    decibels = 10 * np.log10(np.maximum(mel_filters(model) @ power.T, 1e-10))
    decibels = np.maximum(decibels, decibels.max() - 80)
    scaled = (decibels + 80) / 80 if model.unit else decibels / 255
    if not model.deltas:
        return scaled[None]
    return np.stack([scaled, delta(scaled), delta(delta(scaled))])


def delta(mel: np.ndarray) -> np.ndarray:
    out = np.zeros_like(mel)
    last = len(mel) - 1
    for f in range(len(mel)):
        out[f] = sum(n * (mel[min(last, f + n)] - mel[max(0, f - n)]) for n in (1, 2)) / 10
    return out


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -x)


def logits_of(wave: np.ndarray, model: Model) -> np.ndarray:
    """Logits of every window of a sound, (windows, species)."""
    rows = []
    for heard in windows(wave):
        mel = spectrogram(heard, model)
        matrix, bias = weights(model, len(mel))
        if model.head == "cnn":
            first, last = model.crop
            features = made_up_features(mel[:, :, first:last], model)
            rows.append(features.mean(axis=1) @ matrix + bias)
            continue
        segments = made_up_features(mel, model).T @ matrix + bias
        count = len(segments)
        start = int(count / 2 - count / 4)
        end = int(count / 2 - count / 4 + count / 2)
        x = np.stack([segments[start + k : end + k].max(axis=0) for k in (0, -model.shift, model.shift)])
        log_w = np.log([[0.5], [0.25], [0.25]])
        rows.append(np.logaddexp.reduce(log_w + log_sigmoid(x)) - np.logaddexp.reduce(log_w + log_sigmoid(-x)))
    return np.stack(rows)


def recreate() -> dict[str, np.ndarray]:
    """Logits of each model on 22.5 s of sound, whose last 2.5 s are in no window, and those of all seven together."""
    wave = sound(round(22.5 * RATE))
    logits = {name: logits_of(wave, model) for name, model in MODELS.items()}
    return {**logits, "blend": sum(model.weight * logits[name] for name, model in MODELS.items())}


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **recreate())
