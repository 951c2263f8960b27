"""What differs between two sweeps."""

from dataclasses import replace

from made_up_sweep import made_up_sweep

from birdclef_core.recipes import sed_v2s
from sweeps.report.changes import changes, flags
from sweeps.search.space import Range

RECORD, _ = made_up_sweep(0, name="one")
PART = RECORD.parts[0]


def with_part(**values):
    return replace(RECORD, name="two", parts=(replace(PART, **values),))


def test_equal_sweeps_have_no_differences():
    assert changes(RECORD, replace(RECORD, name="two")) == [
        "one and two",
        "  have the same search, data, code, versions and options.",
    ]


def test_each_kind_of_difference_has_its_line():
    rate = "train_ce.learning_rate"
    search = replace(PART.search, objective="val/lrap", space={**PART.search.space, rate: Range(1e-5, 1e-3, log=True)})
    other = with_part(search=search, code_version="f00d", versions={"python": "3.12"}, pretrained={"tiny": "hub"})
    other = replace(other, data_fingerprint="e" * 64, options=replace(other.options, fold=2, settings={"epochs": 2}, note="mine"))
    assert changes(RECORD, other) == [
        "one and two",
        "  objective: val/cmap against val/lrap",
        f"  search {rate}: {PART.search.space[rate]!r} against {search.space[rate]!r}",
        "  data: dddddddddddd against eeeeeeeeeeee",
        "  first weights tiny: random against hub",
        "  code: c0de against f00d",
        "  version python: 3.11 against 3.12",
        "  option fold: nothing against 2",
        "  option set epochs: nothing against 2",
    ]
    assert flags(other) == ["--fold 2", "--set epochs 2"]


def test_a_recipe_that_one_of_them_lacks_is_one_line_and_a_changed_field_is_named():
    recipes = PART.search.recipes
    fewer = changes(RECORD, with_part(search=replace(PART.search, recipes=recipes[1:])))
    assert fewer == ["one and two", "  recipe sed_v2s: there against nothing"]
    stages = (replace(recipes[0].stages[0], epochs=3), *recipes[0].stages[1:])
    changed = changes(RECORD, with_part(search=replace(PART.search, recipes=(replace(recipes[0], stages=stages), *recipes[1:]))))
    assert len(changed) == 2 and changed[1].startswith("  recipe sed_v2s stages") and changed[1].endswith("70 against 3")
    assert sed_v2s().stages[0].epochs == 70
