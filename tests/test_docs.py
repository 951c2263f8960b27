"""What the documents name exists: files, links and headings, commands and flags, pages of the site, and complete examples."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from documents import ROOT, commands_in, text_of
from made_up import make_chain_builder
from made_up_heads import write_encoder

from birdclef_core.json_files import from_json, to_json
from birdclef_core.models.encoders import RANDOM
from birdclef_core.recipes import small_budget
from sweeps.cli.birdclef import _parser as birdclef_parser
from sweeps.cli.tune import _parse as parse_tune
from sweeps.cli.tune import tune_parser
from sweeps.search.checks import check_search
from sweeps.search.search_files import load_search
from sweeps.search.space import Search

PACKAGES = (ROOT / "birdclef_core", ROOT / "sweeps")
FOLDERS = (ROOT / "docs", ROOT / "mlflow", *PACKAGES)
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in folder.rglob("*.md")))
]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
HISTORY = {"CHANGELOG.md"}
"""Pages that name files that have been there."""
ELSEWHERE_ON_SITE = {"index.md", "contributing.md", "changelog.md", "tracking_server.md", "clusters.md"}
"""Pages of the site that lie outside of docs/."""
SUFFIXES = "py|md|toml|txt|yaml|sh|svg|png"
MADE_BY_USE = {
    "audacity/",
    "background_noise/",
    "birdclef/",
    "bundle/",
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
    "unlabelled_soundscapes/",
    "unlabeled_soundscapes/",
    "train_soundscapes/",
    "soundscapes_for_training.txt",
    "train_audio/",
    "val/",
    "val_all/",
    "val_soundscapes/",
    "wheels/",
    "xeno_canto/",
}
"""Files and folders of users and of sweeps, and beginnings of the names of metrics."""
FLAGS_OF_OTHERS = {"--follow"}
"""Flags of other programs that stand in one line with a command of ours."""


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text_of(page)) if "://" not in link]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_every_heading_that_a_link_leads_to_exists():
    missing = []
    for page in PAGES:
        for path, anchor in re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", text_of(page)):
            target = (ROOT / page).parent.joinpath(path).resolve() if path else ROOT / page
            if anchor not in anchors_of(target.read_text(encoding="utf-8")):
                missing.append((page, path, anchor))
    assert missing == []


def test_every_page_is_in_the_navigation_of_the_site():
    config = yaml.safe_load(text_of("mkdocs.yml"))
    there = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    there |= {path.relative_to(ROOT / "docs").with_suffix(".md").as_posix() for path in NOTEBOOKS}
    named = list(pages_in(config["nav"]))
    assert sorted(named) == sorted(there | ELSEWHERE_ON_SITE)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_output_and_without_a_trace_of_a_machine(notebook):
    text = notebook.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(text) < 100_000
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) / 2, "make it again with its output"
    assert [output for cell in cells for output in cell["outputs"] if output.get("name") == "stderr"] == []
    assert re.findall(r"/(?:root|home|tmp|work|Users)/", text) == []


def test_every_page_is_in_the_readmes_list():
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")} - {"docs/library.md"}
    assert {page for page in pages if f"| [{page}]({page}) |" not in text_of("README.md")} == set()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nothing_of_other_hosts(tmp_path):
    pytest.importorskip("mkdocs")
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    asking = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//|@import")
    sources = [path for suffix in ("html", "css") for path in tmp_path.rglob(f"*.{suffix}")]
    assert len(sources) > 40
    assert {path.name: found[0] for path in sources if (found := asking.findall(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize("page", sorted(set(PAGES) - HISTORY))
def test_every_command_can_be_parsed(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in re.findall(r"```toml\n# (\S+)\n(.*?)```", text_of(page), re.DOTALL):
        Path(name).write_text(text)  # files that --options names
    commands = list(commands_in(text_of(page)))
    assert commands or page not in ("README.md", "docs/first_hour.md", "docs/kaggle.md", "docs/own_recordings.md")
    for program, arguments in commands:
        try:
            if program == "birdclef" and arguments[0] != "tune":
                birdclef_parser().parse_args(arguments)
            else:
                parse_tune(arguments)
        except SystemExit as end:
            assert end.code == 0, (program, *arguments)  # --help and --version end with 0


@pytest.mark.parametrize("page", sorted(set(PAGES) - HISTORY))
def test_every_file_and_folder_named_exists(page):
    assert [path for path in named_paths(text_of(page)) if not exists(page, path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_of_our_commands_exists(page):
    lines = text_of(page).splitlines()
    if page != "README.md":  # the other pages have commands of other programs too
        lines = [line for line in lines if "tune_main.py" in line or "birdclef " in line]
    known = {option for parser in (tune_parser(), birdclef_parser()) for option in flags_of(parser)}
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
    example, _ = re.findall(r"```python\n(.*?)```", text_of("docs/searches.md"), re.DOTALL)
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


def test_the_example_of_a_student_of_a_large_encoder_is_complete(tmp_path, monkeypatch):
    """Its students share the embeddings, the head and what that predicts."""
    _, example = re.findall(r"```python\n(.*?)```", text_of("docs/searches.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    write_encoder(Path("birds.onnx"), 160_000)
    Path("small_student.py").write_text(example)
    search = load_search("small_student.py")
    assert search.name == "small_student"
    for loaded in (search, replace(search.with_small_space(), recipes=tuple(map(small_budget, search.recipes)))):
        check_search(loaded)
        chains = make_chain_builder(loaded, unlabelled_fingerprint="birds")
        own = loaded.baseline(loaded.recipes[0])
        first, second = (chains.chain("student", {**own, "student.teacher.threshold": value}) for value in (0.1, 0.3))
        assert [a.stage_id == b.stage_id for a, b in zip(first, second, strict=True)] == [True, True, True, False]
        assert first[2].needs == (first[1].stage_id, first[0].stage_id)


@pytest.mark.parametrize("heard", (True, False))
def test_the_notebook_cell_for_kaggle_writes_a_submission(tmp_path, monkeypatch, heard):
    """With rows for the audio, or, when the hidden soundscapes are not there yet, with those of the sample."""
    (cell,) = re.findall(r"```python\n(.*?)```", text_of("docs/kaggle.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("sample_submission.csv").write_text("row_id,b,a,unknown\nx_5,0.1,0.2,0.3\n")
    rows = [("y z.ogg", 5.0, "a", 0.25), ("y z.ogg", 5.0, "b", 0.75), ("y z.ogg", 10.0, "a", 1e-7), ("y z.ogg", 10.0, "b", 0.5)]
    rest = ("y z.ogg", 12.5, "a", 0.9)
    table = pd.DataFrame([*rows, rest] if heard else [], columns=["file", "end_s", "species", "score"])
    table.to_csv("detections.csv", index=False)
    exec(cell.replace("/kaggle/input/birdclef/", ""))
    written = pd.read_csv("submission.csv", index_col="row_id")
    assert list(written.columns) == ["b", "a", "unknown"]
    if heard:
        assert written.to_dict("index") == {
            "y z_10": {"b": 0.5, "a": 1e-7, "unknown": pytest.approx(1 / 3)},
            "y z_5": {"b": 0.75, "a": 0.25, "unknown": pytest.approx(1 / 3)},
        }
    else:
        assert written.to_dict("index") == {"x_5": {"b": 0.1, "a": 0.2, "unknown": 0.3}}


def anchors_of(text: str) -> set[str]:
    """The names that GitHub and the site give the headings of a page."""
    outside_code = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6} +(.+?) *$", outside_code, re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def pages_in(navigation: object) -> Iterator[str]:
    """The pages of a navigation of mkdocs, which has lists and one-entry dictionaries in each other."""
    if isinstance(navigation, str):
        yield navigation
    elif navigation:
        for item in navigation.values() if isinstance(navigation, dict) else navigation:
            yield from pages_in(item)


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
