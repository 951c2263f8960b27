"""Benchmarks run by hand, so what they import can go away without anybody noticing."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.name)
def test_what_a_benchmark_imports_exists(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in imports if node.module.split(".")[0] in ("birdclef_core", "sweeps")]
    missing = [
        f"{node.module}.{alias.name}"
        for node in ours
        for alias in node.names
        if not hasattr(import_module(node.module), alias.name) and not is_module(f"{node.module}.{alias.name}")
    ]
    assert not missing


def is_module(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True
