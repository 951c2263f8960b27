"""A page is one file with one style sheet, escapes all text, and does not pass over a value that is missing."""

import tomllib
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from pages import HOSTILE, Page

import birdclef_core
from birdclef_core.html.page import percent, render
from birdclef_core.html.table import Column, Table

ROOT = Path(birdclef_core.__file__).parent
TEMPLATES = ROOT / "html" / "templates"


def tree_page(**changes: object) -> str:
    table = Table(HOSTILE, [Column(HOSTILE, [HOSTILE]), Column("n", [3], is_number=True, has_bars=True)], is_sortable=True)
    front = {"cost": HOSTILE, "meaning": HOSTILE, "picture": HOSTILE, "table": table}
    compared = {"objective": HOSTILE, "objective_all": HOSTILE, "front": front}
    values = {"name": HOSTILE, "num_shown": 1, "num_trials": 2, "picture": HOSTILE, "table": table, **compared}
    return render("tree", **{**values, **changes})


def test_all_text_is_escaped_and_markup_is_not() -> None:
    page = Page(tree_page()).check()
    assert f"Stages of {HOSTILE}" in page.text and f"compared by {HOSTILE}" in page.text
    assert f"{HOSTILE} n {HOSTILE} 3" in page.text, "in a table"
    assert Page(tree_page(picture=Markup('<svg role="img" aria-label="a"></svg>'))).labels == ["a"]


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        render("plan", name="a", picture="")


def test_a_file_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(render("lineage", title="caf\udce9", picture="", text="", objective="a", objective_all="b"), encoding="utf-8")
    assert "caf\\udce9" in page.read_text(encoding="utf-8")


def test_there_is_one_style_sheet_and_no_page_has_its_own() -> None:
    assert [path.name for path in TEMPLATES.glob("*.css")] == ["style.css"]
    assert [path.name for path in TEMPLATES.glob("*.j2") if "<style" in path.read_text()] == ["page.html.j2"]
    assert tree_page().count("<style>") == 1 and "--best: " in tree_page()


def test_no_module_puts_tags_together_but_the_one_for_svg() -> None:
    offenders = [
        path.relative_to(ROOT.parent).as_posix()
        for package in (ROOT, ROOT.parent / "sweeps")
        for path in package.rglob("*.py")
        if any(
            tag in path.read_text()
            for tag in ("<div", "<p>", "<table", "<td", "<svg", "<rect", "<text", "<path", "html import escape")
        )
    ]
    assert sorted(offenders) == ["birdclef_core/html/svg.py", "birdclef_core/html/theme.py"]


def test_every_template_is_part_of_the_package() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["package-data"]["birdclef_core"]
    packed = {path for pattern in listed for path in ROOT.glob(pattern)}
    assert set(TEMPLATES.iterdir()) <= packed and len(list(TEMPLATES.iterdir())) >= 8


def test_shares_are_in_percent() -> None:
    assert [percent(0.123), percent(0.123, 1), percent(1.0)] == ["12%", "12.3%", "100%"]
