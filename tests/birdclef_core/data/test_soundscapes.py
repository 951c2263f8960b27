import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from birdclef_core.data.cache import build_soundscape_cache
from birdclef_core.data.soundscapes import Soundscapes, _files_by_stem, labelled_audio, load_soundscapes
from birdclef_core.data.windows import SoundscapeWindows
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace

SPACE = LabelSpace.of("target", ["a", "b", "c"])


def make(
    root: Path,
    maker: Any,
    labels: dict[str, str],
    *,
    files: dict[str, float],
    folder: str = "test_soundscapes",
    csv: str = "test_soundscapes_labels.csv",
    column: str = "labels",
) -> Path:
    for number, (name, duration_s) in enumerate(files.items()):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, maker.tone(duration_s, 300 + 100 * number), 32_000)
    pd.DataFrame({"row_id": list(labels), column: list(labels.values())}).to_csv(root / csv, index=False)
    return root


def loaded(root: Path) -> Soundscapes:
    soundscapes = load_soundscapes(root)
    assert soundscapes is not None
    return soundscapes


@pytest.fixture
def soundscapes(tmp_path: Path, maker: Any) -> Soundscapes:
    labels = {"one_x_5": "a", "one_x_10": "", "two_5": "b c", "two_10": "ghost;a", "one_x_15": "nocall"}
    return loaded(make(tmp_path / "data", maker, labels, files={"one_x.wav": 12.6, "sub/two.wav": 10.0, "unlabelled.wav": 5.0}))


def test_windows_and_truth(soundscapes: Soundscapes) -> None:
    assert list(soundscapes.windows["row_id"]) == ["one_x_5", "one_x_10", "two_5", "two_10", "one_x_15"]
    assert soundscapes.truth(SPACE).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert list(soundscapes.files["path"]) == ["test_soundscapes/one_x.wav", "test_soundscapes/sub/two.wav"]
    assert list(soundscapes.windows["file"]) == [0, 0, 1, 1, 0]
    assert soundscapes.unknown_labels(SPACE)[0].examples == ("ghost (1 window)",) and soundscapes.findings == ()


@pytest.mark.parametrize("context_s", [0.0, 2.5])
def test_each_window_is_its_five_seconds(soundscapes: Soundscapes, tmp_path: Path, context_s: float) -> None:
    cache = build_soundscape_cache(soundscapes, tmp_path / "cache")
    windows = SoundscapeWindows(soundscapes, cache, SPACE, context_s=context_s, batch_size=2)
    batches = list(windows)
    assert len(batches) == len(windows) == 3 and windows.num_windows == 5
    assert windows.group_R.tolist() == [0, 0, 1, 1, 0], "the windows of a file are alike"
    assert [batch.recording_B.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    padding = np.zeros(round(2.5 * 32_000), dtype=np.int16)
    for row, wave_T in enumerate(np.concatenate([batch.wave_BT.numpy() for batch in batches])):
        file, end_s = soundscapes.windows.loc[row, ["file", "end_s"]]
        whole_T = np.concatenate([padding, cache.read(file, 0, cache.num_samples(file)), padding, padding])
        first, last = (round((2.5 + second) * 32_000) for second in (end_s - 5 - context_s, end_s + context_s))
        assert np.array_equal(wave_T, whole_T[first:last])
        assert wave_T.any()


def test_the_layout_of_2021(tmp_path: Path, maker: Any) -> None:
    place = {"folder": "train_soundscapes", "csv": "train_soundscape_labels.csv", "column": "birds"}
    root = make(tmp_path, maker, {"7019_COR_5": "nocall", "7019_COR_10": "a"}, files={"7019_COR_20190904.wav": 10.0}, **place)
    assert loaded(root).truth(SPACE).tolist() == [[0, 0, 0], [1, 0, 0]]


TIMES_2026 = """filename,start,end,primary_label
one.ogg,00:00:00,00:00:05,a
one.wav,00:00:05,00:00:10,b;c
one.wav,00:00:05,00:00:10,b;c
one.wav,0:10,0:15,47158son01
one.wav,15,20,
"""


def test_the_layout_of_2026(tmp_path: Path, maker: Any) -> None:
    """Times in place of ids, rows twice, species that occur in soundscapes alone."""
    root = make(tmp_path, maker, {}, files={"one.wav": 20.0}, folder="train_soundscapes")
    (root / "test_soundscapes_labels.csv").rename(root / "train_soundscapes_labels.csv").write_text(TIMES_2026)
    found = loaded(root)
    assert list(found.windows["row_id"]) == ["one_5", "one_10", "one_15", "one_20"]
    assert found.truth(SPACE).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert [(finding.kind, finding.level) for finding in found.findings] == [("window_repeated", "note")]
    assert found.unknown_labels(SPACE)[0].examples == ("47158son01 (1 window)",)


def test_rows_of_2026_that_are_no_window_are_counted(tmp_path: Path, maker: Any) -> None:
    root = make(tmp_path, maker, {}, files={"one.wav": 20.0})
    (root / "test_soundscapes_labels.csv").write_text(
        "filename,start,end,labels\none.wav,0,5,a\none.wav,0,10,a\none.wav,2.5,7.5,a\n"
    )
    found = loaded(root)
    assert list(found.windows["row_id"]) == ["one_5"]
    assert found.findings[0].kind == "not_a_window" and found.findings[0].examples == (
        "0 to 10 in line 3",
        "2.5 to 7.5 in line 4",
    )
    (root / "test_soundscapes_labels.csv").write_text("filename,start,end,labels\none.wav,0,60,a\n")
    with pytest.raises(DataError, match="at least one window of 5 s, but has none: Example: 0 to 60 in line 2"):
        load_soundscapes(root)
    (root / "test_soundscapes_labels.csv").write_text("filename,start,end,labels\none.wav,soon,5,a\n")
    with pytest.raises(DataError, match=r"start must be a time such as 00:00:05, but line 2 .* has 'soon'"):
        load_soundscapes(root)


def test_a_window_before_the_file_and_a_second_table_are_said(tmp_path: Path, maker: Any) -> None:
    root = make(tmp_path, maker, {"one_0": "a", "one_5": "b"}, files={"one.wav": 5.0})
    (root / "train_soundscapes_labels.csv").write_text("row_id,labels\nother_5,a\n")
    found = loaded(root)
    assert list(found.windows["row_id"]) == ["one_5"]
    examples = {finding.kind: finding.examples for finding in found.findings}
    assert examples == {
        "second_soundscapes": ("train_soundscapes_labels.csv",),
        "window_without_audio": ("one_0: ends where the file begins",),
    }


def test_labels_in_another_spelling_of_unicode(tmp_path: Path, maker: Any) -> None:
    found = loaded(make(tmp_path, maker, {"mo\u0308w_5": "m\u00f6nch"}, files={"m\u00f6w.wav": 5.0}))
    space = LabelSpace.of("target", ["mo\u0308nch", "a"])
    assert found.truth(space).sum() == 0 and found.spelled_as(space).truth(space).tolist() == [[0, 1]]
    assert found.spelled_as(SPACE) is found


def test_only_labelled_files_are_opened(tmp_path: Path, maker: Any) -> None:
    """Of 10,000 soundscapes of 2026, 66 have labels."""
    root = make(tmp_path, maker, {"one_5": "a"}, files={"one.wav": 5.0})
    (root / "test_soundscapes/other.wav").write_bytes(b"damaged")
    assert loaded(root).findings == () and labelled_audio(root) == ["test_soundscapes/one.wav"]
    assert labelled_audio(tmp_path / "nowhere") == []


def test_many_names_are_matched_in_one_pass() -> None:
    """Comparing each name with each file took minutes at 10,000 soundscapes."""
    stems = [f"{number}_COR_2019" for number in range(60_000)]
    started = time.process_time()
    found = _files_by_stem([*stems, "7_COR_2020"], [f"{number}_COR" for number in range(60_000)])
    assert time.process_time() - started < 5
    assert found["59999_COR"] == 59_999 and "7_COR" not in found


def test_windows_without_audio_are_named(tmp_path: Path, maker: Any) -> None:
    root = make(tmp_path, maker, {"one_5": "a", "gone_5": "b", "one_10": "c"}, files={"one.wav": 7.0})
    found = loaded(root)
    assert list(found.windows["row_id"]) == ["one_5"]
    assert found.findings[0].examples == (
        "gone_5: no file of this name in test_soundscapes",
        "one_10: beyond the end of the file, which lasts 7.0 s",
    )
    with pytest.raises(DataError, match="none has"):
        load_soundscapes(make(tmp_path / "none", maker, {"gone_5": "a"}, files={"one.wav": 7.0}))


def test_no_labels_no_soundscapes(tmp_path: Path) -> None:
    assert load_soundscapes(tmp_path) is None


@pytest.mark.parametrize(
    ("labels", "column", "message"),
    [
        ({"one": "a"}, "labels", r"<end second>, but line 2 .* has 'one'"),
        ({"one_5": "a"}, "heard", "must have the columns labels"),
        ({"one_5": "['a'"}, "labels", "line 2 of .* has"),
    ],
)
def test_wrong_labels(tmp_path: Path, maker: Any, labels: dict[str, str], column: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_soundscapes(make(tmp_path, maker, labels, files={"one.wav": 5.0}, column=column))


def test_a_window_that_comes_twice_counts_once(tmp_path: Path, maker: Any) -> None:
    root = make(tmp_path, maker, {"one_5": "a"}, files={"one.wav": 10.0})
    (root / "test_soundscapes_labels.csv").write_text("row_id,labels\none_5,a\none_5,b\none_10,c\none_10,c\n")
    found = loaded(root)
    assert found.truth(SPACE).tolist() == [[1, 1, 0], [0, 0, 1]]
    kinds = {finding.kind: finding.examples for finding in found.findings}
    assert kinds == {"window_labelled_differently": ("one_5",), "window_repeated": ("one_10",)}
