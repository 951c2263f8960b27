"""What the documents name exists: files and folders, links, commands and flags, and the complete example of a search."""

import argparse
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import make_chain_builder

from birdclef_core.json_files import from_json, to_json
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import small_budget
from sweeps.cli.birdclef import _parser as birdclef_parser
from sweeps.cli.tune import _tune_parser
from sweeps.search.search_files import load_search
from sweeps.search.space import Search

ROOT = Path(__file__).parents[1]
PACKAGES = (ROOT / "birdclef_core", ROOT / "sweeps")
FOLDERS = (ROOT / "docs", ROOT / "mlflow", *PACKAGES)
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md")))
]
HISTORY = {"CHANGELOG.md"}
"""Pages that name files that have been there."""
SUFFIXES = "py|md|toml|txt|yaml|sh|svg|png"
MADE_BY_USE = {
    "audacity/",
    "background_noise/",
    "classes.txt",
    "ensemble.json",
    "inputs/",
    "journal/",
    "card.md",
    "late_stages.py",
    "lib/",
    "networks/",
    "raven/",
    "result/",
    "result/ranking.md",
    "runtime.py",
    "segments/",
    "store/certificates/",
    "store/cpu_seconds/",
    "store/logits/",
    "target_species.txt",
    "test_soundscapes/",
    "train_audio/",
    "val_all/",
    "val_soundscapes/",
}
"""Files and folders of users and of sweeps, and beginnings of the names of metrics."""
FLAGS_OF_OTHERS = {"--follow"}
"""Flags of other programs that stand in one line with a command of ours."""


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", sorted(set(PAGES) - HISTORY))
def test_every_file_and_folder_named_exists(page):
    assert [path for path in named_paths(text_of(page)) if not exists(page, path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_our_commands_exists(page):
    lines = text_of(page).splitlines()
    if page != "README.md":  # the other pages have commands of other programs too
        lines = [line for line in lines if "tune_main.py" in line or "birdclef " in line]
    known = {option for parser in (_tune_parser(), birdclef_parser()) for option in flags_of(parser)}
    named = {flag for line in lines for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)}
    assert named - known - FLAGS_OF_OTHERS == set()


def test_every_command_of_birdclef_exists():
    known = set(commands_of(birdclef_parser()))
    words = [match.split() for page in PAGES for match in re.findall(r"`birdclef ([a-z|]+(?: [a-z|]+)?)", text_of(page))]
    named = {(name, part) for first, *rest in words for name in first.split("|") for part in (rest or [""])[0].split("|")}
    assert len(named) > 10
    assert {(name, part) for name, part in named if (name, part) not in known and (name, "") not in known} == set()


def test_every_larger_package_says_what_it_is_for():
    pages = (
        ("data", "ensemble", "inference", "inventory", "stages", "store"),
        ("checkpoints", "run", "schedule", "search", "tracking"),
    )
    for package, names in zip(PACKAGES, pages, strict=True):
        for name in names:
            modules = {path.name for path in (package / name).glob("*.py")} - {"__init__.py"}
            assert modules - set(named_paths((package / name / "README.md").read_text())) == set(), name


def test_the_example_search_is_complete(tmp_path):
    """It can be loaded, kept in a record and made small, and its trials share the pretraining of a variant."""
    (example,) = re.findall(r"```python\n(.*?)```", text_of("docs/searches.md"), re.DOTALL)
    file = tmp_path / "late_stages.py"
    file.write_text(example)
    search = load_search(str(file))
    assert search.name == file.stem
    assert from_json(Search, to_json(search), file="search") == search
    for loaded in (search, replace(search.with_small_space(), recipes=tuple(map(small_budget, search.recipes)))):
        pretrained = {recipe.model.encoder: RANDOM for recipe in loaded.recipes}
        assert len(pretrained) == 2
        chains = make_chain_builder(loaded, pretrained=pretrained)
        for recipe in loaded.recipes:
            point = loaded.baseline(recipe)
            first, second = (chains.chain(recipe.name, {**point, "train.mixing.wave_prob": share}) for share in (0.1, 0.9))
            assert [a.stage_id == b.stage_id for a, b in zip(first, second, strict=True)] == [True, True, False, False, False]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def named_paths(text: str) -> Iterator[str]:
    """Paths in the code spans of a page: files with a suffix of this repository, and folders, which end with a slash."""
    for span in re.findall(r"`([^`\n]+)`", text):
        for word in span.split():
            if re.fullmatch(rf"[\w./-]+\.({SUFFIXES})", word) or re.fullmatch(r"[\w.]+(/[\w.]+)*/", word):
                yield word


def exists(page: str, path: str) -> bool:
    """Whether a path is there: from the root, the page's folder or a package; a file's name alone, anywhere in a package."""
    if path in MADE_BY_USE or any((place / path).exists() for place in (ROOT, (ROOT / page).parent, *PACKAGES)):
        return True
    return "/" not in path and any(next(package.rglob(path), None) is not None for package in PACKAGES)


def flags_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Flags of the parser and of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags_of(command)


def commands_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Commands with their sub-commands; a command without any has an empty one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                inner = [sub for item in command._actions if isinstance(item, argparse._SubParsersAction) for sub in item.choices]
                yield from ((name, sub) for sub in inner or [""])
