from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from birdclef_core.config import ClassBalance
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.targets import training_table, validation_truth
from birdclef_core.errors import DataError
from birdclef_core.taxonomy import LabelSpace

SPACE = LabelSpace.of("target", ["a", "b", "c"])


def dataset_of(*rows: tuple[str, tuple[str, ...], float, float, bool]) -> Dataset:
    columns = ["primary_label", "secondary_labels", "rating", "duration_s", "is_validation"]
    recordings = pd.DataFrame(list(rows), columns=columns)
    return Dataset(Path("made-up"), recordings, pd.DataFrame(), SPACE, SPACE, "", ())


def seed_table(dataset: Dataset, space: LabelSpace, power: float = 1.0) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
    """The rules of the 2023 solution, one cell at a time: rows, targets, weights, sampling weights."""
    best = dataset.recordings["rating"].max()
    rows, targets, weights, counts = [], [], [], dict.fromkeys(space.species, 0.0)
    for number, row in enumerate(dataset.recordings.itertuples()):
        known = [code for code in row.secondary_labels if code in space.index]
        background = row.primary_label not in space.index
        if row.is_validation or (background and (not known or row.duration_s > 60)):
            continue
        target = np.zeros(len(space))
        for code in known:
            target[space.index[code]] = 0.9
            counts[code] += 0.5
        if not background:
            target[space.index[row.primary_label]] = 1
            counts[row.primary_label] += 1
        rows.append(number)
        targets.append(target)
        weights.append(np.clip(row.rating / best, 0.1, 1) * (0.8 if background else 1))
    sampling = []
    counts = {code: count**power for code, count in counts.items()}
    for number in rows:
        row = dataset.recordings.iloc[number]
        known = [code for code in row.secondary_labels if code in space.index]
        heard = [row.primary_label] if row.primary_label in space.index else known
        sampling.append(np.mean([1 / counts[code] for code in heard]))
    return rows, np.array(targets), np.array(weights), np.array(sampling)


def test_a_recording_that_was_not_rated_has_full_weight() -> None:
    rows = [("a", (), rating, 5.0, False) for rating in (4.0, 2.0, 0.0, float("nan"))]
    background = [("x", ("a",), float("nan"), 5.0, False)]
    assert training_table(dataset_of(*rows, *background), SPACE).weight_R.tolist() == pytest.approx([1, 0.5, 0.1, 1, 0.8])
    unrated = [("a", (), float("nan"), 5.0, False)] * 2
    assert training_table(dataset_of(*unrated), SPACE).weight_R.tolist() == [1, 1]


def random_dataset(seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    codes = ["a", "b", "c", "x", "y"]
    rows: list[Any] = []
    for _ in range(300):
        primary = str(rng.choice(codes))
        secondary = tuple(str(code) for code in rng.choice(codes, rng.integers(0, 3), replace=False) if code != primary)
        rows.append((primary, secondary, float(rng.integers(0, 6)), float(rng.uniform(1, 120)), bool(rng.random() < 0.2)))
    return dataset_of(*rows)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_rules_one_cell_at_a_time(seed: int) -> None:
    dataset = random_dataset(seed)
    table = training_table(dataset, SPACE)
    rows, targets, weights, sampling = seed_table(dataset, SPACE)
    assert table.rows_R.tolist() == rows
    np.testing.assert_allclose(table.target_RC.toarray(), targets, rtol=1e-6)
    np.testing.assert_allclose(table.weight_R, weights, rtol=1e-6)
    np.testing.assert_allclose(table.sampling_weight_R, sampling)


@pytest.mark.parametrize(("class_balance", "power"), [("inverse_sqrt", 0.5), ("none", 0.0)])
def test_class_balance_takes_a_power_of_the_counts(class_balance: ClassBalance, power: float) -> None:
    dataset = random_dataset(0)
    table = training_table(dataset, SPACE, class_balance=class_balance)
    np.testing.assert_allclose(table.sampling_weight_R, seed_table(dataset, SPACE, power)[3])
    assert power or set(table.sampling_weight_R) == {1.0}


def test_labels_stay_with_their_rows_when_a_long_background_row_is_dropped() -> None:
    """The seed filtered the rows and not their labels, so every later label slipped by one."""
    dataset = dataset_of(
        ("x", ("a",), 5.0, 90.0, False),
        ("b", (), 5.0, 90.0, False),
        ("x", ("c",), 5.0, 60.0, False),
    )
    table = training_table(dataset, SPACE)
    assert table.rows_R.tolist() == [1, 2]
    np.testing.assert_allclose(table.target_RC.toarray(), [[0, 1, 0], [0, 0, 0.9]])
    np.testing.assert_allclose(table.weight_R, [1.0, 0.8])
    assert table.is_mixture_R.tolist() == [False, True]


def test_secondary_target_and_mixtures() -> None:
    dataset = dataset_of(("a", ("b", "ghost"), 5.0, 5.0, False), ("a", ("ghost",), 1e-9, 5.0, False))
    table = training_table(dataset, SPACE, secondary_target=0.5)
    np.testing.assert_allclose(table.target_RC.toarray(), [[1, 0.5, 0], [1, 0, 0]])
    assert table.is_mixture_R.tolist() == [True, False]
    np.testing.assert_allclose(table.weight_R, [1.0, 0.1])


def test_a_species_that_a_row_names_twice_counts_once() -> None:
    """Sums of the two targets (1.9 and 1.8) made the binary cross-entropy negative without bound."""
    rows = [("a", ("a",), 5.0, 5.0, False), ("b", ("c", "b", "c"), 5.0, 5.0, False), ("x", ("c", "c"), 5.0, 5.0, False)]
    table = training_table(dataset_of(*rows), SPACE)
    np.testing.assert_allclose(table.target_RC.toarray(), [[1, 0, 0], [0, 1, 0.9], [0, 0, 0.9]])
    assert table.is_mixture_R.tolist() == [False, True, True]
    once = training_table(
        dataset_of(("a", (), 5.0, 5.0, False), ("b", ("c",), 5.0, 5.0, False), ("x", ("c",), 5.0, 5.0, False)), SPACE
    )
    np.testing.assert_allclose(table.sampling_weight_R, once.sampling_weight_R)


def test_no_ratings_at_all() -> None:
    assert training_table(dataset_of(("a", (), 0.0, 5.0, False)), SPACE).weight_R.tolist() == [pytest.approx(0.1)]


def test_nothing_to_train() -> None:
    with pytest.raises(DataError, match="label space 'target'"):
        training_table(dataset_of(("x", (), 5.0, 5.0, False), ("a", (), 5.0, 5.0, True)), SPACE)


def test_truth_has_the_primary_species_alone() -> None:
    dataset = dataset_of(
        ("a", (), 5.0, 5.0, False),
        ("c", ("a",), 5.0, 5.0, True),
        ("x", ("a",), 5.0, 5.0, True),
        ("b", (), 5.0, 90.0, True),
    )
    rows_R, truth_RC = validation_truth(dataset, SPACE)
    assert rows_R.tolist() == [1, 3]
    assert truth_RC.dtype == np.uint8 and truth_RC.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_sources_have_their_shares_and_class_weights_within_them() -> None:
    data = dataset_of(*[("a", (), 4.0, 5.0, False)] * 2, ("b", (), 4.0, 5.0, False), *[("a", (), 4.0, 5.0, False)] * 5)
    data.recordings["source"] = ["x", "x", "x", "y", "y", "z", "z", "z"]
    table = training_table(data, SPACE, sources=(("y", 1.0), ("x", 3.0)))
    weight_R = table.shared(table.sampling_weight_R)
    assert weight_R.sum() == pytest.approx(1) and (weight_R[5:] == 0).all(), "a source that is not named does not train"
    # There are 4 a and 1 b in x and y together: b is drawn four times as often as each a of its source.
    assert weight_R == pytest.approx([0.75 / 6, 0.75 / 6, 0.75 * 4 / 6, 0.125, 0.125, 0, 0, 0])
    assert len(table.rows_R) == 8, "so that an epoch is as long as without sources"
    plain = training_table(data, SPACE)
    assert plain.shared(plain.sampling_weight_R) is plain.sampling_weight_R


def test_a_source_without_a_recording_that_can_be_used_is_refused() -> None:
    data = dataset_of(("a", (), 4.0, 5.0, False), ("b", (), 4.0, 5.0, True))
    data.recordings["source"] = ["x", "y"]
    table = training_table(data, SPACE, sources=(("x", 1.0), ("y", 1.0)))
    with pytest.raises(DataError, match="but y has none: all are for validation"):
        table.shared(table.sampling_weight_R)
