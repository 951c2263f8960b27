"""Puts `runtime.py` into a bundle, with copies of the modules of this project that it needs, in `lib/`."""

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2]
"""The folder of birdclef_core."""
ENTRY = "birdclef_core.inference.standalone.main"
STAND_INS = {
    "torchaudio/__init__.py": None,
    "torchaudio/functional.py": "inference/standalone/mel.py",
    "soxr.py": "inference/standalone/resampling.py",
}
"""Modules of `lib/stand_ins/`, which count only where the library itself is not installed, by the files that they are copies of."""
LIBRARIES = frozenset({"numpy", "soundfile", "torch"})
"""What must be installed, besides what the bundle's format needs."""

RUNTIME = '''"""Finds species in recordings with the bundle that this file lies in: python runtime.py AUDIO... -o detections.csv

It needs Python 3.11 or later, numpy, soundfile, torch{more}. `lib/` has copies of modules of the project that made the bundle.
"""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(FOLDER / "lib"))
sys.path.append(str(FOLDER / "lib" / "stand_ins"))

from birdclef_core.inference.standalone.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(FOLDER))
'''


def copy_runtime(folder: Path, format_library: str | None) -> None:
    """Write `runtime.py` and `lib/` to the folder of a bundle. `format_library`: what its format needs, besides torch."""
    more = f" and {format_library}" if format_library else ""
    (folder / "runtime.py").write_text(RUNTIME.format(more=more), encoding="utf-8")
    for module in needed_modules():
        _copy(module, folder / "lib" / module.relative_to(PACKAGE.parent))
    for name, source in STAND_INS.items():
        target = folder / "lib" / "stand_ins" / name
        if source is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("")
        else:
            _copy(PACKAGE / source, target)


def needed_modules(entry: str = ENTRY) -> list[Path]:
    """Return the files of a module and of all that it imports, directly or through others, with the packages that they lie in."""
    found: dict[str, Path] = {}
    left = [entry]
    while left:
        name = left.pop()
        path = _file_of(name)
        if path is None or name in found:
            continue
        found[name] = path
        left += _imports(path)
        if "." in name:
            left.append(name.rpartition(".")[0])
    return sorted(found.values())


def libraries_of(files: list[Path]) -> set[str]:
    """Return the top-level packages that files import when they are imported, those of this project and of Python itself included."""
    return {name.partition(".")[0] for path in files for name in _imports(path)}


def _file_of(module: str) -> Path | None:
    """The file of a module of this project; None for another."""
    if module.partition(".")[0] != PACKAGE.name:
        return None
    place = PACKAGE.parent.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _imports(path: Path) -> Iterator[str]:
    """Yield what a file imports when it is imported: not within functions, and not for types only."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
