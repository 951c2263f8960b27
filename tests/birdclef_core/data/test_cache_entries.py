from pathlib import Path

import numpy as np
import pytest

from birdclef_core.data.cache_entries import DamagedEntry, entry_bytes, entry_path, read_entry, stored_samples, write_entry

BLOCK = 4096


def written(folder: Path, num_samples: int) -> tuple[str, np.ndarray]:
    samples_T = np.random.default_rng(num_samples).integers(-32_768, 32_767, num_samples, dtype=np.int16)
    path = str(folder / "ab" / f"{num_samples}.wave")
    assert write_entry(path, [samples_T], folder) == num_samples
    return path, samples_T


@pytest.mark.parametrize("num_samples", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_any_part_is_what_was_written(tmp_path: Path, num_samples: int) -> None:
    path, samples_T = written(tmp_path, num_samples)
    assert stored_samples(path) == num_samples
    assert Path(path).stat().st_size == entry_bytes(num_samples)
    rng = np.random.default_rng(0)
    for start, end in [(0, num_samples), (num_samples - 1, num_samples), *np.sort(rng.integers(0, num_samples, (20, 2)))]:
        assert np.array_equal(read_entry(path, num_samples, start, end - start), samples_T[start:end])
    assert not list(tmp_path.glob("*.tmp"))


def test_a_changed_bit_is_seen_by_whoever_reads_it(tmp_path: Path) -> None:
    path, samples_T = written(tmp_path, 5 * BLOCK)
    content = bytearray(Path(path).read_bytes())
    content[2 * (3 * BLOCK + 100)] ^= 4
    Path(path).write_bytes(content)
    assert stored_samples(path) == 5 * BLOCK
    with pytest.raises(DamagedEntry, match="changed"):
        read_entry(path, 5 * BLOCK, 3 * BLOCK - 10, 20)
    assert np.array_equal(read_entry(path, 5 * BLOCK, 0, 3 * BLOCK), samples_T[: 3 * BLOCK])


@pytest.mark.parametrize("damage", ["zeros", "swapped"])
def test_lost_and_misplaced_blocks_are_seen(tmp_path: Path, damage: str) -> None:
    """What a power cut or a wrong sector leaves; blocks and their sums alike."""
    path, _ = written(tmp_path, 2 * BLOCK)
    content = Path(path).read_bytes()
    if damage == "zeros":
        content = bytes(len(content))
    else:
        blocks, sums, end = content[: 4 * BLOCK], content[4 * BLOCK : -16], content[-16:]
        content = blocks[2 * BLOCK :] + blocks[: 2 * BLOCK] + sums[8:] + sums[:8] + end
    Path(path).write_bytes(content)
    with pytest.raises(DamagedEntry, match="changed"):
        read_entry(path, 2 * BLOCK, 0, 100)


def test_cut_and_missing(tmp_path: Path) -> None:
    path, _ = written(tmp_path, 2 * BLOCK)
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    assert stored_samples(path) is None
    with pytest.raises(DamagedEntry, match="cut off"):
        read_entry(path, 2 * BLOCK, BLOCK, 100)
    Path(path).write_bytes(b"")
    assert stored_samples(path) is None
    Path(path).unlink()
    assert stored_samples(path) is None
    with pytest.raises(DamagedEntry, match="No such file"):
        read_entry(path, 2 * BLOCK, 0, 100)


def test_blocks_make_the_same_entry_however_long_they_are(tmp_path: Path) -> None:
    _, samples_T = written(tmp_path, 5 * BLOCK + 17)
    expected = Path(written(tmp_path, 5 * BLOCK + 17)[0]).read_bytes()
    for step in (1000, BLOCK, BLOCK + 1, 3 * BLOCK):
        path = str(tmp_path / "b" / "c.wave")
        blocks = [samples_T[start : start + step] for start in range(0, len(samples_T), step)]
        assert write_entry(path, [*blocks, samples_T[:0]], tmp_path) == len(samples_T)
        assert Path(path).read_bytes() == expected


def test_nothing_is_left_of_an_entry_whose_samples_fail(tmp_path: Path) -> None:
    def blocks():
        yield np.zeros(BLOCK, dtype=np.int16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_entry(entry_path(str(tmp_path), "abc"), blocks(), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
