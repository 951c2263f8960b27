"""What is built holds everything, and works where there is nothing else of this project: the sdist, and the wheel that is built from it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOR_THIS_REPOSITORY = (".ci/", ".gitignore", ".pre-commit-config.yaml")
"""Files that nobody needs who has no clone."""

pytestmark = pytest.mark.slow
pytest.importorskip("setuptools", minversion="80")


@pytest.fixture(scope="module")
def files() -> list[str]:
    """All files of the repository."""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("only a clone of the repository knows its files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).exists() and not name.startswith(FOR_THIS_REPOSITORY)]


@pytest.fixture(scope="module")
def sdist(files, tmp_path_factory) -> Path:
    """The sdist, unpacked: built from a copy of the repository, in which nothing is left of an earlier build."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in files:
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / "copy" / name)
    build("sdist", folder / "copy", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.glob("birdclef_sweeps-*/"))


@pytest.fixture(scope="module")
def wheel(sdist) -> Path:
    build("wheel", sdist, sdist.parent)
    return next(sdist.parent.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment with the wheel; the packages that it depends on are those of this environment."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, env=without_repository(), check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    others = [path for path in sys.path if path.endswith("site-packages")] or [sysconfig.get_path("purelib")]
    (own / "others.pth").write_text("\n".join(others))
    return folder


def without_repository() -> dict[str, str]:
    """The environment variables without one that leads to the repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def build(what: str, source: Path, out: Path) -> None:
    """Build a sdist or a wheel as `pip` does, without asking an index for setuptools."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{what}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, out], cwd=source, capture_output=True, check=True)


def run(environment: Path, *command: str) -> str:
    """Run a program of the fresh environment in an empty folder, with nothing that leads to the repository."""
    program = environment / "env" / "bin" / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=environment, env=without_repository(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sdist_holds_every_file(files, sdist):
    assert [name for name in files if not (sdist / name).is_file()] == []


def test_the_wheel_holds_both_packages_and_nothing_else(files, wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {name for name in files if name.startswith(("birdclef_core/", "sweeps/"))}
    assert {name for name in expected ^ held if not name.endswith("README.md")} == set()


def test_its_commands_run_in_a_fresh_environment(environment):
    assert run(environment, "birdclef", "--version").startswith("birdclef-sweeps ")
    assert "`model.head`" in run(environment, "birdclef", "fields", "model.head")
    code = """if True:
        from importlib.resources import files
        import sweeps
        from sweeps.search.search_files import load_search
        assert files("birdclef_core").joinpath("html/templates/sweep_report.js").is_file()
        assert files("sweeps").joinpath("cluster/slurm.sh").is_file()
        print(sweeps.__file__, load_search("all").name)"""
    file, _, search = run(environment, "python", "-c", code).strip().rpartition(" ")
    assert Path(file).is_relative_to(environment / "env") and search == "all"
    assert "--max-gpu-hours" in run(environment, "birdclef", "tune", "--help")
