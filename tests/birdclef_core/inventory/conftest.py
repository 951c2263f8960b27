"""Collections in the layouts that the years and the sites use, made of short tones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

RATE_HZ = 8_000


class CollectionMaker:
    """Writes audio and tables under `parent`."""

    def __init__(self, parent: Path) -> None:
        self.parent = parent

    @staticmethod
    def tone(pitch: int, duration_s: float = 0.1, rate_hz: int = RATE_HZ) -> np.ndarray:
        """Another sound for every `pitch`."""
        return 0.3 * np.sin(2 * np.pi * (300 + 7 * pitch) * np.arange(round(duration_s * rate_hz)) / rate_hz)

    def audio(self, *names: str, pitch: int | None = None, duration_s: float = 0.1) -> None:
        """A file for each path under `parent`, its sound by its Xeno-canto number, by `pitch`, or by its name."""
        for name in names:
            path = self.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            number = pitch if pitch is not None else sum(map(ord, path.stem))
            soundfile.write(path, self.tone(number, duration_s), RATE_HZ, format="WAV" if path.suffix == ".wav" else None)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        path = self.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(list(rows)).to_csv(path, index=False)
        return path

    def year_2023(self, folder: str, species: Mapping[str, Sequence[int]], **values: Any) -> Path:
        """BirdCLEF 2023's layout with Xeno-canto numbers by species; an author each unless `values` has one."""
        rows = []
        for code, numbers in species.items():
            for number in numbers:
                filename = f"{code}/XC{number}.ogg"
                self.audio(f"{folder}/train_audio/{filename}", pitch=number)
                row = {
                    "primary_label": code,
                    "secondary_labels": "[]",
                    "filename": filename,
                    "author": f"ann {number}",
                    "rating": 4,
                }
                rows.append({**row, **values})
        self.table(f"{folder}/train_metadata.csv", rows)
        return self.parent / folder


@pytest.fixture
def collections(tmp_path: Path) -> CollectionMaker:
    return CollectionMaker(tmp_path)


@pytest.fixture(scope="module")
def shared_collections(tmp_path_factory: pytest.TempPathFactory) -> CollectionMaker:
    """The same for all tests of a file: to be read only."""
    return CollectionMaker(tmp_path_factory.mktemp("collections"))
