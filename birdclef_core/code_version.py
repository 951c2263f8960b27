"""The code version: a hash of the code that trains and scores a stage, wherever its modules lie and whatever they are called.

It covers the modules that training and loading import, directly or through each other, as far as they are in the parts of this
package that can change a result (`RESULT`). Every other module keeps, lists or shows results, or holds configuration, which is in
a stage's identity anyway.

Of a module, everything counts but its name and place, comments, docstrings, layout, and the texts in a `raise`. Of an import, it
counts which name stands for what: `from x import a as b` makes `b` stand for `a` of x, where x is the name of a library or the
content of a covered module. So a module can move, but a name cannot come to stand for something else unnoticed.

Code that only adds settings has another hash, but trains all that there was before as before. Where that has been shown
(`benchmarks/equal_code.py`), the older version's name is kept (`EQUAL`), and so are the ids of all stages.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

RESULT = ("audio", "data", "evaluation", "models", "stages", "taxonomy")
"""Parts of the package whose code can change a result."""
ROOTS = ("stages.training", "data.dataset", "data.cache")
"""Modules that a sweep calls to train a stage and to load what it is trained on."""
DIGITS = 16
EQUAL: Mapping[str, str] = {"7c53621857c9358f": "48bbf8db3523e151"}
"""Hashes of code that trains every stage which an older version could train to the same bits, each with the older version."""


@cache
def code_version() -> str:
    """Return the version of the code that is running: 16 hexadecimal digits."""
    return version_of(Path(__file__).parent)


def version_of(package: Path) -> str:
    """Return the code version of a copy of this package. Raises FileNotFoundError when a module of `ROOTS` is not there."""
    found = hash_of(package)
    return EQUAL.get(found, found)


def hash_of(package: Path) -> str:
    """Return the hash of the covered code of a copy of this package: its code version, unless that is an older one's."""
    modules = covered_modules(package)
    hashes = {_hash([module.code, sorted(_bindings(module, package.name, modules))]) for module in modules.values()}
    return _hash(sorted(hashes))[:DIGITS]


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module's source, taken apart."""

    code: str
    """What can change a result, imports apart; equal for equal code."""
    imports: tuple[tuple[str, str, str], ...]
    """(module, name in it, name here); the name is empty where the module itself is imported."""


def read_module(source: str, package: str = "") -> Module:
    """Take a module's source apart. `package` is the full name of its package, which relative imports need."""
    significant = _Significant(package)
    code = json.dumps(_form(significant.visit(ast.parse(source))))
    return Module(code=code, imports=tuple(significant.imports))


def covered_modules(package: Path) -> dict[str, Module]:
    """Return the modules that the code version covers, by their full names."""
    found: dict[str, Module] = {}
    pending = [f"{package.name}.{root}" for root in ROOTS]
    while pending:
        name = pending.pop()
        if name not in found:
            file = _file(package, name)
            parent = name.rpartition(".")[0]
            found[name] = read_module(file.read_text(encoding="utf-8"), name if file.name == "__init__.py" else parent)
            named = [candidate for target, item, _ in found[name].imports for candidate in (target, f"{target}.{item}")]
            # Importing a module runs its package's __init__.py.
            pending += [other for other in (parent, *named) if _can_change_results(package, other)]
    return found


def _can_change_results(package: Path, name: str) -> bool:
    """Whether `name` is a module of the package's parts in `RESULT`."""
    root, _, rest = name.partition(".")
    return root == package.name and rest.partition(".")[0] in RESULT and _file(package, name).is_file()


def _file(package: Path, name: str) -> Path:
    path = package.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _bindings(module: Module, package: str, covered: Mapping[str, Module]) -> Iterator[list[str]]:
    """Yield for each import what the name here stands for: where it comes from, the name there, and the name here."""
    for target, name, here in module.imports:
        if (submodule := f"{target}.{name}") in covered:
            yield [covered[submodule].code, "", here]
        elif target.partition(".")[0] == package:
            yield [covered[target].code if target in covered else "", name, here]
        else:
            yield [target, name, here]


class _Significant(ast.NodeTransformer):
    """Takes out of a module what cannot change a result, and its imports, which it notes."""

    def __init__(self, package: str) -> None:
        self.imports: list[tuple[str, str, str]] = []
        self._package = package
        self._raises = False

    def visit_Import(self, node: ast.Import) -> None:
        self.imports += [(item.name, "", item.asname or item.name.partition(".")[0]) for item in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        target = resolve_name("." * node.level + (node.module or ""), self._package)
        self.imports += [(target, item.name, item.asname or item.name) for item in node.names]

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        is_for_types = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        node.body = [] if is_for_types else node.body
        self.generic_visit(node)
        return node.orelse if is_for_types else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        is_docstring = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_docstring else self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        self._raises = True
        self.generic_visit(node)
        self._raises = False
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if self._raises and isinstance(node.value, str) else node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return ast.Constant("") if self._raises else self.generic_visit(node)


def _form(node: Any) -> Any:
    """A syntax tree as JSON types. Fields that are empty are left out: versions of Python differ in which of those there are."""
    if isinstance(node, ast.AST):
        return [type(node).__name__, {name: _form(value) for name, value in ast.iter_fields(node) if value not in (None, [])}]
    return [_form(item) for item in node] if isinstance(node, list) else repr(node)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
