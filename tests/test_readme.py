"""What the README promises of installing and testing: CI runs its commands, and what they install is bounded and pinned."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_readmes_test_command():
    command = next(line for line in README.splitlines() if "-m pytest" in line and line.startswith("python3 -m venv"))
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_versions_are_bounded_and_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [item for items in project["optional-dependencies"].values() for item in items]
    wanted = [*project["dependencies"], *(item for item in extras if not item.startswith(project["name"]))]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()}
    for requirement in wanted:
        name = re.split(r"[\[=<>]", requirement)[0].lower().replace("_", "-")
        assert "<" in requirement or "==" in requirement, f"{requirement} has no upper bound"
        assert name in pinned, f"{name} is not in constraints.txt"


def test_the_citation_is_of_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert citation["title"].startswith(project["name"])
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # the keys that the format demands


def test_an_installed_package_has_every_file_that_is_no_module():
    """Those that only people read stay in the repository: pages beside the sources."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for package, patterns in setuptools["package-data"].items():
        files = [path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*") if path.is_file()]
        others = [path for path in files if path.suffix not in (".py", ".pyc") and path.name != "README.md"]
        missing = [str(path) for path in others if not any(path.match(pattern) for pattern in patterns)]
        assert others and not missing
