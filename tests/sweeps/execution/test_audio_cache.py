"""The cache as a sweep uses it: estimated aloud first, and part of the data's identity where it shortens recordings."""

import io
from dataclasses import replace

import numpy as np
import soundfile
from rich.console import Console

from birdclef_core.data.soundscapes import load_soundscapes
from sweeps.execution.audio_cache import AudioCache


def test_the_estimate_comes_first_and_a_second_build_has_nothing_to_do(tone_data, tmp_path):
    cache, out = AudioCache(folder=tmp_path / "cache"), io.StringIO()
    cache.build_and_say(tone_data.dataset, Console(file=out))
    assert "18 files to decode" in out.getvalue()
    cache.build_and_say(tone_data.dataset, Console(file=out))
    assert "nothing to decode" in out.getvalue()


def test_what_has_no_room_is_decoded_directly_and_that_is_said(tone_data, tmp_path):
    cache, out = AudioCache(folder=tmp_path / "cache", max_bytes=200_000), io.StringIO()
    cache.build_and_say(tone_data.dataset, Console(file=out, width=200))
    assert "do not fit" in out.getvalue()
    whole, small = (each.build(tone_data.dataset).cache for each in (AudioCache(folder=tmp_path / "whole"), cache))
    assert len(small.direct_rows)
    assert all((whole.read(row, 100, 5000) == small.read(row, 100, 5000)).all() for row in range(18))


def test_labelled_soundscapes_are_estimated_and_cached_too(tone_data, tmp_path):
    (tmp_path / "test_soundscapes").mkdir()
    soundfile.write(tmp_path / "test_soundscapes" / "S.wav", np.full(160_000, 0.25) * np.resize([1, -1], 160_000), 32_000)
    (tmp_path / "test_soundscapes_labels.csv").write_text("row_id,labels\nS_5,low\n")
    dataset = replace(tone_data.dataset, soundscapes=load_soundscapes(tmp_path))
    cache, out = AudioCache(folder=tmp_path / "cache"), io.StringIO()
    cache.build_and_say(dataset, Console(file=out, width=200))
    assert "soundscapes: 1 files to decode" in out.getvalue()
    data = cache.build(dataset)
    assert data.soundscape_cache.read(0, 0, 4).tolist() == [8192, -8192] * 2
    assert cache.build(tone_data.dataset).soundscape_cache is None


def test_only_what_changes_training_changes_the_datas_identity(tone_data, tmp_path):
    cache = AudioCache(folder=tmp_path)
    assert cache.data_fingerprint(tone_data.dataset) == tone_data.dataset.fingerprint
    assert replace(cache, max_bytes=1).data_fingerprint(tone_data.dataset) == tone_data.dataset.fingerprint
    assert replace(cache, max_s_per_recording=90.0).data_fingerprint(tone_data.dataset) != tone_data.dataset.fingerprint
