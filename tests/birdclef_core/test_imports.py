"""The domain stands alone: it never imports the search or its libraries."""

import ast
from pathlib import Path

import birdclef_core

FORBIDDEN = {"ray", "optuna", "mlflow", "sweeps"}


def imported_roots(path: Path) -> set[str]:
    """Packages that a file imports when it runs: what stands under `if TYPE_CHECKING` does not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    left_out = {id(inside) for block in for_types for inside in ast.walk(block)}
    roots: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            roots.add(node.module.partition(".")[0])
    return roots


def test_birdclef_core_imports_neither_the_search_nor_its_libraries():
    files = sorted(Path(birdclef_core.__file__).parent.rglob("*.py"))
    assert len(files) > 20
    offenders = {path.name: found for path in files if (found := imported_roots(path) & FORBIDDEN)}
    assert offenders == {}


def test_only_its_own_file_knows_each_library():
    root = Path(birdclef_core.__file__).parent.parent
    files = [*sorted((root / "birdclef_core").rglob("*.py")), *sorted((root / "sweeps").rglob("*.py"))]
    owners = {
        library: sorted(path.relative_to(root).as_posix() for path in files if library in imported_roots(path))
        for library in ("timm", "optuna", "mlflow")
    }
    assert owners == {
        "timm": ["birdclef_core/models/encoders.py"],
        "optuna": ["sweeps/schedule/sampler.py"],
        "mlflow": ["sweeps/tracking/mlflow_sink.py"],
    }
