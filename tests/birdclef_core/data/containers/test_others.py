from pathlib import Path

import damaged_audio
import pytest

from birdclef_core.data.containers.file_bytes import FileBytes
from birdclef_core.data.containers.others import is_other, scan_other


@pytest.mark.parametrize(
    "options",
    [{"format": "AIFF"}, {"format": "AU"}, {"format": "CAF"}, {"format": "WAV", "endian": "BIG"}],
    ids=lambda options: str(options),
)
def test_a_missing_end_is_seen(tmp_path: Path, options: dict) -> None:
    content = damaged_audio.wav(**options)
    for kept, kinds in ((content, []), (content[: len(content) // 2], ["cut"])):
        (tmp_path / "a").write_bytes(kept)
        with FileBytes(tmp_path / "a") as file:
            assert is_other(kept) and [fault.kind for fault in scan_other(file).faults] == kinds
