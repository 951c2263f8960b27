"""A picture holds what is loud, its ticks lie on the scale, and long recordings stay small."""

import base64
import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from birdclef_core.config import SpectrogramConfig
from birdclef_core.reports.recording_picture import Heard, recording_picture

CONFIG = SpectrogramConfig(num_mels=64, f_min_hz=50, f_max_hz=14_000)
HEARD = [Heard("a<b", 0.5, False), Heard("true one", 0.25, True)]


def picture(svg: str) -> np.ndarray:
    found = re.search(r"base64,([^\"]+)", svg)
    assert found
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(found[1])))


def test_it_is_svg_with_names_numbers_and_ticks():
    svg = recording_picture(np.zeros((64, 50)), 10.0, CONFIG, HEARD, 'he said "x" & left')
    root = ElementTree.fromstring(svg)
    texts = ["".join(item.itertext()) for item in root.iter() if item.tag == "text"]
    assert {"a<b", "true one", "0.5", "0.25", "0 s", "10 s", "8", "kHz"} <= set(texts)
    assert "16" not in texts, "beyond the spectrogram"
    assert root.get("aria-label") == 'he said "x" & left'
    widths = [float(item.attrib["width"]) for item in root.iter() if item.tag == "rect"]
    assert widths[0] == pytest.approx(2 * widths[1])


def test_a_short_click_in_a_long_recording_is_still_seen_low_bins_below():
    db_FN = np.full((64, 30_000), -80.0)
    db_FN[10, 12_345] = 0.0
    image = picture(recording_picture(db_FN, 300.0, CONFIG, HEARD, "click"))
    assert image.shape[:2] == (64, 700)
    row, column = np.argwhere(image[:, :, 0] > 0.9)[0]
    assert (row, column) == (63 - 10, 12_345 * 700 // 30_000)


def test_a_long_name_is_cut_and_does_not_lie_on_the_spectrogram():
    svg = recording_picture(np.zeros((64, 50)), 10.0, CONFIG, [Heard("x" * 40, 0.5, False)], "long")
    assert f">{'x' * 17}…<" in svg
