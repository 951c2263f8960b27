from pathlib import Path
from typing import Any

import soundfile

from birdclef_core.data.dataset import load_dataset
from birdclef_core.data.listing import list_folder
from birdclef_core.inventory.collect import collect
from birdclef_core.inventory.sound_formats import sound_formats


def test_facts_come_from_the_files_or_from_the_manifest(collections: Any, tmp_path: Path) -> None:
    root = collections.year_2023("d", {"a": range(4), "b": range(10, 14)})
    stereo = collections.tone(3).repeat(2).reshape(-1, 2)
    soundfile.write(root / "train_audio/a/XC1.ogg", stereo, 44_100, format="WAV")
    collect([root], tmp_path / "out")
    opened, told = (
        sound_formats(folder, load_dataset(folder).recordings["path"], list_folder(folder).recordings)
        for folder in (root, tmp_path / "out")
    )
    assert opened.loc[1].tolist() == [44_100, 2, "WAV"] and opened.loc[0].tolist() == [8_000, 1, "OGG"]
    assert opened.to_numpy().tolist() == told.to_numpy().tolist()
