import numpy as np
import pandas as pd

from birdclef_core.inventory.labels_together import SharedRecordings


def shared(rows: list[tuple[str, tuple[str, ...]]]) -> SharedRecordings:
    table = pd.DataFrame(rows, columns=["primary", "secondary"])
    return SharedRecordings.of(table["primary"], table["secondary"])


def test_counts_of_recordings_that_two_species_share() -> None:
    found = shared([("a", ("b", "c")), ("b", ("a",)), ("a", ()), ("d", ("d",))])
    assert found.best_pairs(9) == [("a", "b", 2), ("a", "c", 1), ("b", "c", 1)]
    names, counts = found.sharing_most(2)
    assert names == ["a", "b"] and counts.tolist() == [[0, 2], [2, 0]]


def test_the_best_pair_is_found_although_its_species_share_little_with_others() -> None:
    """Pairs were once looked for only among the species that share most with all others: 50 shared recordings were missed."""
    rows = [("x", ("y",))] * 50
    hubs = [f"hub{number}" for number in range(30)]
    rows += [(hub, tuple(other for other in hubs if other != hub)) for hub in hubs]
    found = shared(rows)
    assert found.best_pairs(1) == [("x", "y", 50)]
    assert "x" not in found.sharing_most(18)[0], "so the matrix alone would not show it"


def test_nothing_is_shared() -> None:
    found = shared([("a", ()), ("b", ())])
    assert found.best_pairs(3) == [] and found.sharing_most(3)[0] == []
    assert np.array_equal(found.sharing_most(3)[1], np.zeros((0, 0)))
