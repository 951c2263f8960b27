"""A small data folder with recordings, noise and labelled soundscapes, and the shards of it in a folder."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdclef_core.data.packed.writing import PackReport, pack


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two species by six authors, two noise files, two labelled soundscapes of which one has no labels, and names with accents."""
    root = tmp_path_factory.mktemp("packing") / "data"
    generator = np.random.default_rng(0)
    names = [f"{species}/{species}{number}é.wav" for species in ("low", "top") for number in range(6)]
    files = [f"train_audio/{name}" for name in names] + ["background_noise/rain/a.wav", "background_noise/b.wav"]
    lengths = {path: 0.2 + 0.05 * number for number, path in enumerate(files)}
    lengths |= {"test_soundscapes/s1.wav": 10.0, "test_soundscapes/unlabelled.wav": 6.0}
    for path, length_s in lengths.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / path, 0.1 * generator.standard_normal(round(8000 * length_s)), 8000)
    (root / "train_audio" / "low" / "nobody_names_this.wav").write_bytes(b"RIFF")
    rows = [(name.split("/")[0], "[]", name, f"author {number % 6}", 4.0) for number, name in enumerate(names)]
    table = pd.DataFrame(rows, columns=["primary_label", "secondary_labels", "filename", "author", "rating"])
    table.to_csv(root / "train.csv", index=False)
    (root / "target_species.txt").write_text("low\n")
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\ns1_5,low\ns1_10,\n")
    (root / "report.html").write_text("not data")
    return root


@pytest.fixture(scope="session")
def _packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackReport]:
    place = tmp_path_factory.mktemp("packed") / "set"
    return place, pack(folder, str(place), shard_bytes=20_000)


@pytest.fixture
def packed(_packed: tuple[Path, PackReport], tmp_path: Path) -> Path:
    """A copy of the packed set, in shards of 20 kB."""
    return Path(shutil.copytree(_packed[0], tmp_path / "set"))


@pytest.fixture(scope="session")
def report(_packed: tuple[Path, PackReport]) -> PackReport:
    return _packed[1]
