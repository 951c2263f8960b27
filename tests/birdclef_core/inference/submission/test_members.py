"""Files that fewer members heard are brought to the scale of the others, and it is written which those are."""

import numpy as np

from birdclef_core.inference.results.file_logits import FileLogits
from birdclef_core.inference.submission.members import OneScale, ScoredBy, ScoredFile, scale_of, scales


def logits(count: int, *, seed: int = 0, first: int = 0, species: int = 3) -> FileLogits:
    start_W = np.arange(first, first + count, dtype=np.int64) * 160_000
    values_WC = np.random.default_rng(seed).normal(-3, 2, (count, species)).astype(np.float32)
    return FileLogits(start_W, start_W + 160_000, values_WC, np.zeros((count, 0), dtype=np.float32))


def changed(heard: FileLogits, factor: float, shift: float) -> FileLogits:
    return FileLogits(heard.start_W, heard.end_W, (factor * heard.logits_WC + shift).astype(np.float32), heard.embedding_WD)


def test_a_scale_gives_the_logits_of_more_members_back():
    more = logits(60)
    few = changed(more, 2.0, 1.0)
    scale = scale_of(few.logits_WC, more.logits_WC)
    np.testing.assert_allclose(scale.factor_C, 0.5, atol=1e-6)
    assert scale.num_windows == 60
    np.testing.assert_allclose(scale.apply(few).logits_WC, more.logits_WC, atol=1e-5)


def test_the_shift_of_a_species_counts_by_how_many_windows_it_is_of():
    """One of three species lies 3 higher: of 20 windows half of that is believed, of 380 nearly all."""
    for count, share in ((20, 0.5), (380, 0.95)):
        more = logits(count)
        few_WC = more.logits_WC + np.array([3.0, 0.0, 0.0], dtype=np.float32)
        np.testing.assert_allclose(scale_of(few_WC, more.logits_WC).shift_C, -share * np.array([3.0, 0.0, 0.0]), atol=1e-4)


def test_too_few_windows_and_windows_that_do_not_differ_give_no_scale():
    few = logits(3)
    assert scale_of(few.logits_WC, few.logits_WC) is None
    assert scale_of(np.zeros((9, 3)), np.zeros((9, 3))) is None


def test_scales_are_of_windows_that_were_heard_in_both_ways_and_go_on_from_each_other():
    """Two heard a part of the file that three heard, and one a part of another that two heard."""
    first, second = logits(40, seed=1), logits(40, seed=2)
    files = [
        {3: first, 2: changed(logits(40, seed=1), 2.0, 1.0)},
        {2: changed(second, 2.0, 1.0), 1: changed(second, 4.0, -1.0)},
        {1: logits(9, first=100)},
    ]
    found = scales(files, [1, 2, 3])
    np.testing.assert_allclose(found[2].apply(files[0][2]).logits_WC, first.logits_WC, atol=1e-4)
    np.testing.assert_allclose(found[1].apply(files[1][1]).logits_WC, second.logits_WC, atol=1e-4)
    assert scales(files[2:], [1, 3]) == {} and scales(files, [3]) == {}


def test_files_are_counted_by_who_scored_them():
    files = [ScoredFile(file=str(number), num_members=2 if number else 3, num_windows=9, is_whole=True) for number in range(4)]
    scored = ScoredBy(members=("a", "b", "c"), files=tuple(files), scales=(OneScale.of(2, None),))
    assert scored.counts == {3: 1, 2: 3} and list(scored.counts) == [3, 2]
    assert scored.scales[0].num_windows == 0
