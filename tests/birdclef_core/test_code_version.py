"""The code version changes with the code that can change a result, and with nothing else: moving and renaming keeps it."""

import re
import shutil
from functools import cache
from pathlib import Path

import pytest

import birdclef_core
from birdclef_core import code_version as code_version_module
from birdclef_core.code_version import EQUAL, RESULT, code_version, covered_modules, hash_of, read_module, version_of

SOURCE = Path(birdclef_core.__file__).parent


@pytest.fixture(autouse=True, scope="module")
def parsed_once():
    """A module whose source has not changed is not parsed again, which takes nearly all of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code_version_module, "read_module", cache(read_module))
        yield


@pytest.fixture
def package(tmp_path):
    """A copy of the package that a test may edit."""
    return Path(shutil.copytree(SOURCE, tmp_path / SOURCE.name, ignore=shutil.ignore_patterns("__pycache__")))


def test_stages_of_the_version_before_keep_their_ids():
    """Fails when covered code changes. If it only adds settings, show that with `benchmarks/equal_code.py` and enter the new hash in
    `EQUAL`; if it changes what a stage of before becomes, take the entry out, and say in the changelog that stages are trained again."""
    assert code_version() == "48bbf8db3523e151"
    assert EQUAL.get(hash_of(SOURCE), hash_of(SOURCE)) == code_version()


def move(package: Path, old: str, new: str) -> None:
    """Move a module and change every import of it; names without the package's name, such as `data.cache`."""
    source, target = (package / f"{name.replace('.', '/')}.py" for name in (old, new))
    if not target.parent.exists():
        target.parent.mkdir()
        (target.parent / "__init__.py").write_text('"""A new package."""\n')
    source.rename(target)
    for path in package.rglob("*.py"):
        text = path.read_text()
        path.write_text(re.sub(rf"\b{package.name}\.{re.escape(old)}\b", f"{package.name}.{new}", text))


def edit(package: Path, file: str, old: str, new: str) -> None:
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("stages.training_step", "stages.a_step"),
        ("evaluation.metrics", "stages.metrics"),
        ("data.windows", "data.batches.windows"),
        ("store.stage_store", "store.of_stages"),
        ("config", "reports.config"),
    ],
)
def test_a_module_that_moves_or_is_renamed_keeps_the_version(package, old, new):
    move(package, old, new)
    assert version_of(package) == code_version()


@pytest.mark.slow
def test_a_constant_of_any_covered_module_changes_the_version(package):
    changed = set()
    for name in sorted(covered_modules(SOURCE))[::12]:
        module = package.parent.joinpath(*name.split("."))
        path = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
        text = path.read_text()
        path.write_text(f"{text}\nA_CONSTANT = 1\n")
        changed.add(version_of(package))
        path.write_text(text)
    assert len(changed) > 3 and code_version() not in changed
    assert version_of(package) == code_version(), "it is the same again when nothing is left of the changes"


@pytest.mark.parametrize(
    "file",
    [
        "store/stage_store.py",
        "html/theme.py",
        "reports/card.py",
        "config.py",
        "recipes.py",
        "errors.py",
        "identity.py",
        "inventory/report.py",
        "inference/deployed.py",
        "inference/procedure.py",
        "stages/import_checkpoint.py",
        "evaluation/reliability.py",
    ],
)
def test_code_that_keeps_or_shows_results_or_is_not_imported_keeps_the_version(package, file):
    edit(package, file, '"""\n', '"""\n\nA_CONSTANT = 1\n')
    assert version_of(package) == code_version()


def test_docstrings_comments_layout_and_texts_of_errors_keep_the_version(package):
    edit(package, "data/clips.py", '"""', '"""Reworded. ')
    edit(package, "data/clips.py", "\nimport ", "\n# A comment.\n\n\nimport ")
    edit(package, "stages/scoring.py", "Scores must be numbers", "Every score must be a number")
    assert version_of(package) == code_version()


def test_what_trains_scores_and_loads_is_covered_and_nothing_else():
    names = {name.partition(".")[2] for name in covered_modules(SOURCE)}
    assert {name.partition(".")[0] for name in names} == set(RESULT)
    assert {
        "stages.training",
        "stages.surgery",
        "models.losses",
        "audio.wave_augment",
        "audio.mel_augment",
        "data.decode",
        "data.splits",
        "taxonomy",
    } <= names
    assert not names & {"evaluation.reliability", "stages.import_checkpoint", "reports", "config"}


def test_a_root_that_was_moved_without_saying_so_is_an_error(package):
    move(package, "data.cache", "data.caching")
    with pytest.raises(FileNotFoundError, match=r"data/cache\.py"):
        version_of(package)


def same(first: str, second: str) -> bool:
    return read_module(first, "p.q") == read_module(second, "p.q")


def test_comments_docstrings_and_layout_of_a_module_do_not_count():
    plain = "def f(x):\n    return x + 1\n"
    talkative = '"""Why."""\n\n\ndef f(\n    x,\n):\n    """What."""\n    # so\n    return (x+1)\n'
    assert same(plain, talkative)
    assert same("raise E(f'{x} is bad') from None\n", "raise E(f'bad: {y}', 'so') from None\n") is False
    assert same("raise E(f'{x} is bad') from None\n", "raise E(f'bad: {y}') from None\n")
    assert same("raise E('a')\n", "raise E('b')\n") and not same("raise E('a')\n", "raise F('a')\n")
    assert not same("raise E(1)\n", "raise E(2)\n") and not same("e = E('a')\n", "e = E('b')\n")


def test_values_and_indentation_count():
    assert not same("x = 'a'\n", "x = 'b'\n")
    assert not same("x = 1\n", "x = 1.0\n")
    assert not same("if a:\n    b()\nc()\n", "if a:\n    b()\n    c()\n")


def test_imports_are_found_wherever_they_stand_but_for_those_for_types():
    source = (
        "import a.b\nimport c as d\nfrom . import e\nfrom ..f import g as h\ndef i():\n    from j import k\n"
        "if TYPE_CHECKING:\n    from l import m\nelse:\n    import n\n"
    )
    assert read_module(source, "p.q").imports == (
        ("a.b", "", "a"),
        ("c", "", "d"),
        ("p.q", "e", "e"),
        ("p.f", "g", "h"),
        ("j", "k", "k"),
        ("n", "", "n"),
    )


@pytest.fixture
def house(tmp_path):
    """A small package: training imports two modules that both have a `size`, and a library."""
    files = {
        "stages/training.py": "from house.data.small import size\nfrom lib import work\n\ndef train():\n    return work(size)\n",
        "data/small.py": "size = 1\n",
        "data/large.py": "size = 2\n",
        "data/cache.py": "import house.data.small, house.data.large\n",
        "data/dataset.py": "",
    }
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "house"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("house.data.small", "house.data.large"),
        ("from lib import", "from lib2 import"),
        ("import work", "import play as work"),
    ],
)
def test_a_name_that_comes_to_stand_for_something_else_changes_the_version(house, old, new):
    before = version_of(house)
    edit(house, "stages/training.py", old, new)
    assert version_of(house) != before


def test_a_module_that_is_imported_as_a_whole_counts_by_its_content(house):
    edit(house, "stages/training.py", "from house.data.small import size", "from house.data import small")
    before = version_of(house)
    move(house, "data.small", "models.small")
    edit(house, "stages/training.py", "from house.data import small", "from house.models import small")
    assert version_of(house) == before
    edit(house, "stages/training.py", "from house.models import small", "from house.data import large as small")
    assert version_of(house) != before


def test_imports_in_another_order_keep_the_version(house):
    before = version_of(house)
    edit(house, "stages/training.py", "from house.data.small import size\nfrom lib import work\n", "")
    edit(house, "stages/training.py", "\ndef", "from lib import work\nfrom house.data.small import size\n\ndef")
    assert version_of(house) == before
