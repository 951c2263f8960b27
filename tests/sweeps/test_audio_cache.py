"""The cache as a sweep uses it: estimated aloud first, and part of the data's identity where it shortens recordings."""

import io
from dataclasses import replace

from rich.console import Console

from sweeps.audio_cache import AudioCache


def test_the_estimate_comes_first_and_a_second_build_has_nothing_to_do(tone_data, tmp_path):
    cache, out = AudioCache(folder=tmp_path / "cache"), io.StringIO()
    cache.build_aloud(tone_data.dataset, Console(file=out))
    assert "18 files to decode" in out.getvalue()
    cache.build_aloud(tone_data.dataset, Console(file=out))
    assert "nothing to decode" in out.getvalue()


def test_what_has_no_room_is_decoded_directly_and_that_is_said(tone_data, tmp_path):
    cache, out = AudioCache(folder=tmp_path / "cache", max_bytes=200_000), io.StringIO()
    cache.build_aloud(tone_data.dataset, Console(file=out, width=200))
    assert "do not fit" in out.getvalue()
    whole, small = (each.build(tone_data.dataset).cache for each in (AudioCache(folder=tmp_path / "whole"), cache))
    assert len(small.direct_rows)
    assert all((whole.read(row, 100, 5000) == small.read(row, 100, 5000)).all() for row in range(18))


def test_only_what_changes_training_changes_the_datas_identity(tone_data, tmp_path):
    cache = AudioCache(folder=tmp_path)
    assert cache.data_fingerprint(tone_data.dataset) == tone_data.dataset.fingerprint
    assert replace(cache, max_bytes=1).data_fingerprint(tone_data.dataset) == tone_data.dataset.fingerprint
    assert replace(cache, max_s_per_recording=90.0).data_fingerprint(tone_data.dataset) != tone_data.dataset.fingerprint
