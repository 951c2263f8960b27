"""Shares of sources: proportions count, whatever they add up to, and what is no proportion is refused."""

from dataclasses import replace

import pytest

from birdclef_core.config import evolve, flatten
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical, fingerprint
from birdclef_core.recipes import sed_v2s
from birdclef_core.source_config import SourceShares, checked_shares, proportions

STAGE = sed_v2s().stages[2]


@pytest.mark.parametrize("shares", [(("a", 7.0), ("b", 3.0)), (("a", 0.7), ("b", 0.3)), (("a", 1e-3), ("b", 1e-3), ("c", 1e-3))])
def test_proportions_add_up_to_one_and_stay_what_they_are(shares: SourceShares) -> None:
    made = proportions(shares)
    assert sum(share for _, share in made) == pytest.approx(1, abs=1e-12) and proportions(made) == made
    assert dict(made) == pytest.approx({name: share / sum(value for _, value in shares) for name, share in shares}, abs=2e-6)


def test_the_same_proportions_have_the_same_identity_and_the_default_is_not_in_it() -> None:
    ways = ((("a", 7), ("b", 3)), (("b", 0.3), ("a", 0.7)), (("a", 70.0), ("b", 30.0), ("c", 0.0)))
    assert len({fingerprint(replace(STAGE, sources=shares)) for shares in ways}) == 1
    assert canonical(replace(STAGE, sources=ways[0]))["sources"] == [["a", 0.7], ["b", 0.3]]
    assert "sources" not in canonical(STAGE)


@pytest.mark.parametrize(
    ("shares", "problem"),
    [
        ((("a", -0.1), ("b", 1.0)), r"every share in sources >= 0 and finite must hold, but got a=-0\.1"),
        ((("a", float("nan")),), "every share in sources >= 0 and finite"),
        ((("a", 0.0),), "at least one share in sources > 0"),
        ((("a", 0.5), ("a", 0.5)), "every name in sources only once"),
        ((("a", True),), "must be pairs of a name and a share"),
        (("a",), "must be pairs of a name and a share"),
    ],
)
def test_what_is_no_proportion_is_refused(shares: SourceShares, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        checked_shares(shares)


def test_one_share_can_be_set_by_its_name_and_others_stay() -> None:
    stage = replace(STAGE, sources=(("x.2023", 0.7), ("b", 0.3)))
    assert evolve(stage, {"sources.b": 1}).sources == (("b", 1.0), ("x.2023", 0.7))
    assert evolve(stage, {"sources.x.2023": 0.0}).sources == (("b", 0.3),)
    assert [item for item in flatten(stage) if item[0].startswith("sources")] == [("sources.b", 0.3), ("sources.x.2023", 0.7)]
    with pytest.raises(InputError, match="takes a float"):
        evolve(stage, {"sources.b": "much"})
