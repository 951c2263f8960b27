"""What the README promises is there: its commands are those that CI runs, its links lead somewhere, its flags exist."""

import argparse
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sweeps.cli.birdclef import _parser as birdclef_parser
from sweeps.cli.tune import _tune_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if line.endswith("-m pytest"))
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_links_and_pictures_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_flag_named_is_one_of_the_command_line():
    known = {option for parser in (_tune_parser(), birdclef_parser()) for option in options_of(parser)}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named <= known


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Of the parser and of those of its commands."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)


def test_versions_are_bounded_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for requirement in wanted:
        name = re.split(r"[\[=<>]", requirement)[0].lower().replace("_", "-")
        assert "<" in requirement or "==" in requirement, f"{requirement} has no upper bound"
        assert name in pinned, f"{name} is not in constraints.txt"
