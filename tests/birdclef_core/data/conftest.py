"""Small data folders made of tones, so that what is read can be told from where it came."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

RATE_HZ = 32_000


class FolderMaker:
    """Writes BirdCLEF-shaped folders under `parent`."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    @staticmethod
    def tone(duration_s: float, frequency_hz: float = 1000.0, rate_hz: int = RATE_HZ) -> np.ndarray:
        """A sine wave that grows from silence, so that every part of it differs."""
        time_T = np.arange(round(duration_s * rate_hz)) / rate_hz
        return (0.3 * time_T / duration_s * np.sin(2 * np.pi * frequency_hz * time_T)).astype(np.float32)

    @staticmethod
    def row(
        species: str, name: str, *, author: str = "", secondary: tuple[str, ...] = (), rating: float = 4.0, s: float = 1.0
    ) -> dict[str, Any]:
        """The metadata of a recording that lasts `s` seconds; each has an author of its own unless one is given."""
        return {
            "primary_label": species,
            "secondary_labels": str(list(secondary)),
            "filename": f"{species}/{name}.wav",
            "author": author or f"{species}-{name}",
            "rating": rating,
            "seconds": s,
        }

    @classmethod
    def many(cls, species: str, count: int, **values: Any) -> list[dict[str, Any]]:
        return [cls.row(species, f"{species}{number}", **values) for number in range(count)]

    def make(self, rows: list[dict[str, Any]], noise_s: dict[str, float] | None = None, name: str = "data") -> Path:
        """A folder with one tone a row, its frequency by the row's number, and noise files by path and length."""
        root = self.parent / name
        for number, values in enumerate(rows):
            self._write(root / "train_audio" / values["filename"], values["seconds"], 500 + 10 * number)
        for inside, duration_s in (noise_s or {}).items():
            self._write(root / "background_noise" / inside, duration_s, 200)
        pd.DataFrame(rows).drop(columns="seconds").to_csv(root / "train.csv", index=False)
        return root

    def _write(self, path: Path, duration_s: float, frequency_hz: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, self.tone(duration_s, frequency_hz), RATE_HZ)


@pytest.fixture
def maker(tmp_path: Path) -> FolderMaker:
    return FolderMaker(tmp_path)
