"""Imports have one direction: a room imports from the rooms below it, no two modules need each other, a library has one owner."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS: dict[str, tuple[set[str], ...]] = {
    "birdclef_core": (
        {"errors", "wording"},
        {"code_version", "config_rules", "findings", "json_files", "output_place"},
        {"augment_config", "source_config", "teacher_config"},
        {"config"},
        {"chain", "identity", "idle_settings"},
        {"taxonomy", "recipes"},
        {"store", "html"},
        {"audio"},
        {"models", "data", "evaluation"},
        {"reports"},
        {"stages"},
        {"demo", "inventory"},
        {"inference"},
        {"ensemble"},
    ),
    "sweeps": (
        {"objective", "wording", "provenance", "devices"},
        {"options", "replicates"},
        {"budget"},
        {"search"},
        {"sampling", "searches"},
        {"schedule"},
        {"execution"},
        {"checkpoints"},
        {"plan", "deploy"},
        {"tracking", "report"},
        {"run"},
        {"library"},
        {"cli"},
    ),
}
"""From the lowest floor to the highest. A room is a sub-package or a module at the top of the package. It may import from every
floor below its own, and never from a neighbour on the same floor."""

OWNERS = {
    "jinja2": ["birdclef_core/html/page.py"],
    "timm": ["birdclef_core/models/encoders.py"],
    "nncf": ["birdclef_core/inference/bundle/conversion.py"],
    "onnx": ["birdclef_core/inference/bundle/conversion.py"],
    "onnxruntime": [
        "birdclef_core/inference/networks/onnx_runtime.py",
        "birdclef_core/stages/embeddings/onnx_encoder.py",
    ],
    "onnxscript": ["birdclef_core/inference/bundle/conversion.py"],
    "openvino": ["birdclef_core/inference/networks/openvino_runtime.py"],
    "optuna": ["sweeps/sampling/study.py"],
    "mlflow": [
        "sweeps/tracking/mlflow_sink.py",
        "sweeps/tracking/to_mlflow/checkpoints.py",
        "sweeps/tracking/to_mlflow/outbox.py",
        "sweeps/tracking/to_mlflow/refusals.py",
    ],
    "pydantic": ["birdclef_core/json_files.py"],
    "pydantic_core": ["birdclef_core/json_files.py"],
    "sklearn": ["sweeps/report/page/importance.py"],
    "ray": [
        "sweeps/execution/actor.py",
        "sweeps/execution/cluster.py",
        "sweeps/execution/private_ray.py",
        "sweeps/execution/tune_adapters.py",
        "sweeps/run/driver/tuning.py",
    ],
}
"""The only files that import a library."""

ROOM_SIZE = 9
"""Most modules that a room of sweeps/ may have, its `__init__.py` not counted."""


@pytest.mark.parametrize("package", FLOORS)
def test_every_room_has_a_floor(package):
    rooms = {room_of(module) for module in modules_of(ROOT, package)} - {""}
    assert rooms == set().union(*FLOORS[package])


@pytest.mark.parametrize("package", FLOORS)
def test_rooms_import_from_the_floors_below(package):
    assert upward_imports(import_graph(ROOT, package), FLOORS[package]) == []


@pytest.mark.parametrize("package", FLOORS)
def test_no_modules_import_each_other_in_a_circle(package):
    assert circles(import_graph(ROOT, package)) == []


def test_the_domain_imports_neither_the_search_nor_its_libraries():
    files = modules_of(ROOT, "birdclef_core").values()
    forbidden = {"ray", "optuna", "mlflow", "sweeps"}
    assert {path.name: found for path in files if (found := imported_libraries(path) & forbidden)} == {}


def test_each_library_is_imported_by_its_owners_only():
    files = [path for package in FLOORS for path in modules_of(ROOT, package).values()]
    libraries = {path.relative_to(ROOT).as_posix(): imported_libraries(path) for path in files}
    found = {library: sorted(file for file, imported in libraries.items() if library in imported) for library in OWNERS}
    assert found == OWNERS


def test_no_room_of_the_search_has_too_many_modules():
    rooms = [folder for folder in (ROOT / "sweeps").iterdir() if (folder / "__init__.py").exists()]
    assert len(rooms) >= 8
    sizes = {folder.name: len(list(folder.glob("*.py"))) - 1 for folder in rooms}
    assert {room: size for room, size in sizes.items() if size > ROOM_SIZE} == {}


def test_the_checks_find_what_they_look_for(tmp_path):
    """A made-up package with an import upwards, one between neighbours, a circle of three modules and one import for types."""
    write(tmp_path, "house/ground.py", "def lazily():\n    from house.attic import roof\n")
    write(tmp_path, "house/attic/roof.py", "import house.ground\nfrom house.left import part\nimport lib.inner")
    write(tmp_path, "house/left.py", "from house import right")
    write(tmp_path, "house/right.py", "if TYPE_CHECKING:\n    import lib")
    graph = import_graph(tmp_path, "house")
    assert upward_imports(graph, ({"ground"}, {"left", "right"}, {"attic"})) == [
        ("house.ground", "house.attic.roof"),
        ("house.left", "house.right"),
    ]
    assert circles(graph) == [["house.attic.roof", "house.ground"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert imported_libraries(tmp_path / "house/attic/roof.py") == {"house", "lib"}
    assert imported_libraries(tmp_path / "house/right.py") == set()


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def modules_of(root: Path, package: str) -> dict[str, Path]:
    """File by dotted module name; a package's `__init__.py` has the name of the package."""
    files = sorted((root / package).rglob("*.py"))
    names = (".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in files)
    return dict(zip(names, files, strict=True))


def room_of(module: str) -> str:
    """`birdclef_core.data.cache` is in `data`; the package itself in none."""
    return module.split(".")[1] if "." in module else ""


def import_graph(root: Path, package: str) -> dict[str, set[str]]:
    """What each module of a package imports of it, wherever the import stands: inside a function, or for types only."""
    modules = modules_of(root, package)
    return {
        module: {name for name in imported_names(ast.parse(path.read_text(encoding="utf-8")), modules) if name in modules}
        - {module}
        for module, path in modules.items()
    }


def imported_names(tree: ast.AST, modules: Iterable[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in modules else node.module


def imported_libraries(path: Path) -> set[str]:
    """Top-level packages that a file imports when it runs: imports under `if TYPE_CHECKING` do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for block in blocks:
        block.body = []
    return {name.partition(".")[0] for name in imported_names(tree, ())}


def upward_imports(graph: Mapping[str, set[str]], floors: tuple[set[str], ...]) -> list[tuple[str, str]]:
    """Pairs of modules of which the first imports the second, though that is in another room on the same floor or higher."""
    floor_of = {room: number for number, rooms in enumerate(floors) for room in rooms}
    return [
        (module, imported)
        for module, names in graph.items()
        for imported in sorted(names)
        if room_of(module) != room_of(imported) and "" not in (room_of(module), room_of(imported))
        if floor_of[room_of(imported)] >= floor_of[room_of(module)]
    ]


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that all reach each other by imports."""
    reached = {module: reachable(graph, module) for module in graph}
    groups = {frozenset(other for other in reached[module] if module in reached[other]) for module in graph}
    return sorted(sorted(group) for group in groups if group)


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    left = list(graph[start])
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left += graph.get(module, ())
    return found
