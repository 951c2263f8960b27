"""Search files and records that are malformed in every way that was thought of, given to the real commands: each ends with a clear error
that names the file or the key, none with a traceback, and nothing is changed.

`tests/sweeps/search/test_malformed_searches.py` has the rules of searches themselves, `tests/sweeps/schedule/test_records.py` every damage to
every field of a record.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import made_up_store
import pytest

from sweeps.cli.birdclef import birdclef
from sweeps.cli.tune import tune_main

HEAD = """
from dataclasses import replace
from birdclef_core.recipes import sed_v2s, small_budget
from sweeps.search import Choice, Range, Search

R = small_budget(sed_v2s())
"""


def of(space: str) -> bytes:
    return f"{HEAD}SEARCH = Search(name='x', recipes=(R,), space={space})".encode("utf-8", "surrogatepass")


def search(rest: str) -> bytes:
    return f"{HEAD}SEARCH = Search({rest})".encode("utf-8", "surrogatepass")


SEARCHES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "must define SEARCH = Search(...), but has none."),
    "zero bytes": (b"\0\0\0", "must be Python source, as text in UTF-8"),
    "not UTF-8": (b"SEARCH = '\xe9'", "must be Python source, as text in UTF-8"),
    "UTF-16": (HEAD.encode("utf-16"), "must be Python source, as text in UTF-8"),
    "an archive": (b"PK\x03\x04" + bytes(range(256)), "must be Python source, as text in UTF-8"),
    "cut off": (of("{}")[:-9], "raised SyntaxError"),
    "JSON": (b'{"search": null}', "NameError in line 1"),
    "another name": (of("{}").replace(b"SEARCH", b"search"), "has none. Perhaps 'search' is meant"),
    "the class": (HEAD.encode() + b"SEARCH = Search", "SEARCH is the class Search itself: call it"),
    "a recipe": (HEAD.encode() + b"SEARCH = R", "SEARCH is Recipe"),
    "an exit": (b"raise SystemExit(7)", "raised SystemExit in line 1: 7"),
    "an exception of its own": (b"class E(BaseException): pass\nraise E('why')", "raised E in line 2: why"),
    "the end of a generator": (b"raise GeneratorExit", "raised GeneratorExit in line 1"),
    "no end": (b"def f(): f()\nf()", "raised RecursionError in line 1"),
    "a missing module": (b"import no_such_module", "No module named 'no_such_module'"),
    "an object that breaks": (b"class X:\n  __class__ = property(lambda self: 1 / 0)\nSEARCH = X()", "raised ZeroDivisionError in line 2"),
    "a name that is a path": (search("name='../../x', recipes=(R,), space={}"), "name of a search must be text"),
    "a name of two lines": (search("name='a\\nb', recipes=(R,), space={}"), "name of a search must be text"),
    "a name without end": (search("name='a' * 10**6, recipes=(R,), space={}"), "(999,802 characters more)"),
    "a list of recipes in a tuple": (search("name='x', recipes=([R],), space={}"), "must be a Recipe, but one is [Recipe("),
    "epochs as text": (search("name='x', recipes=(replace(R, stages=(replace(R.stages[0], epochs='3'),)),), space={}"), "line 7: StageConfig.epochs takes a int, but got '3'"),
    "no stages": (search("name='x', recipes=(replace(R, stages=None),), space={}"), "Recipe.stages takes a tuple, but got None"),
    "names of stages": (search("name='x', recipes=(replace(R, stages=('train_ce',)),), space={}"), "Recipe.stages takes a StageConfig, but got 'train_ce'"),
    "no model": (search("name='x', recipes=(replace(R, model=None),), space={}"), "Recipe.model takes a ModelConfig, but got None"),
    "no mixing": (search("name='x', recipes=(replace(R, stages=(replace(R.stages[-1], mixing=None),)),), space={}"), "StageConfig.mixing takes a MixingConfig, but got None"),
    "noise that is none": (search("name='x', recipes=(replace(R, stages=(replace(R.stages[-1], noise=(1,)),)),), space={}"), "StageConfig.noise takes a NoiseGroup, but got 1"),
    "half a letter as key": (of("{'train.\\ud800': Range(3, 4)}"), r"train has no field '\ud800'"),
    "a key without end": (of("{'train.' + 'x' * 10**5: Range(3, 4)}"), "Parameter 'train.xxx"),
    "a wide letter in a key": (of("{'train.ｃlip_s': Range(3, 4)}"), "Perhaps 'train.clip_s' is meant"),
    "a condition without end": (of("{'train.clip_s': Range(3, 4, when='(' * 5000)}"), "A condition must be an expression"),
    "a condition that needs all memory": (of("{'train.clip_s': Range(3, 4, when=\"'a' * 10000000000000000 == recipe\")}"), "cannot be computed with recipe='sed_v2s'"),
    "a sign before a text": (of("{'train.clip_s': Range(3, 4, when='-recipe == 3')}"), "cannot be computed with recipe='sed_v2s'"),
    "a sampler that ends the loop": (search("name='x', recipes=(R,), space={}, sampler='BruteForceSampler'"), "sampler must be one of"),
}  # fmt: skip


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", SEARCHES)
def test_a_malformed_search_file_is_refused_by_the_command(somewhere, capsys, case):
    content, expected = SEARCHES[case]
    (somewhere / "own.py").write_bytes(content)
    assert tune_main(["--search", "own.py", "--plan", "--data", "nowhere"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("Error: ") and "Traceback" not in said.err
    assert expected in said.err
    assert len(said.err) < 21_000
    assert {path.name for path in somewhere.iterdir()} <= {"own.py", "__pycache__"}


Change = Callable[[Path], object]


def write(name: str, content: bytes) -> Change:
    def change(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return change


def edit(name: str, how: Callable[[dict], object]) -> Change:
    def change(root: Path) -> None:
        values = json.loads((root / name).read_text())
        how(values)
        (root / name).write_text(f"{json.dumps(values)}\n")

    return change


def as_folder(name: str) -> Change:
    def change(root: Path) -> None:
        (root / name).unlink(missing_ok=True)
        (root / name).mkdir()

    return change


SWEEP, TRIAL = "s/sweep.json", "s/trials/00000000-00000000.jsonl"
POINTER = f"store/stages/{made_up_store.A}/published.json"
DEEP = b"[" * 100_000
RESUME = ["tune", "--resume", "s", "--storage", "S", "--tracking-uri", "off"]
LIST, GARBAGE, LINEAGE = (["store", "ls"], ["store", "gc", "--max-bytes", "1K"], ["lineage", "s/t0000"])

RECORDS: dict[str, tuple[Change, list[str], int, str]] = {
    "a sweep's record that is a folder": (as_folder(SWEEP), RESUME, 1, "sweep.json"),
    "one that is deep": (write(SWEEP, DEEP), RESUME, 2, "sweep.json cannot be read: it is not JSON"),
    "one with a mark before it": (lambda root: (root / SWEEP).write_bytes(b"\xef\xbb\xbf" + (root / SWEEP).read_bytes()), RESUME, 2, "sweep.json"),
    "one in UTF-16": (lambda root: (root / SWEEP).write_bytes((root / SWEEP).read_text().encode("utf-16")), RESUME, 2, "it is not UTF-8 text"),
    "one without parts": (edit(SWEEP, lambda values: values.update(parts=[])), RESUME, 2, "sweep.json"),
    "more trials than there are": (edit(SWEEP, lambda values: values.update(trials=10**9)), RESUME, 2, "has 2"),
    "recordings that are none": (edit(SWEEP, lambda values: values["options"].update(data="a\0b")), RESUME, 2, "--data must have no zero bytes"),
    "recordings with a key": (edit(SWEEP, lambda values: values["options"].update(data="s3://key:secret@b/c")), RESUME, 2, "must have no keys"),
    "a search without recipes": (edit(SWEEP, lambda values: values["parts"][0]["search"].update(recipes=[])), RESUME, 2, "recipes of search"),
    "a trial that is a folder": (as_folder(TRIAL), RESUME, 1, "00000000-00000000.jsonl"),
    "a trial that is deep": (write(TRIAL, DEEP), RESUME, 2, "00000000-00000000.jsonl cannot be read: in line 1, it is not JSON"),
    "a trial of another name": (edit(TRIAL, lambda values: values.update(trial="t0009")), RESUME, 2, "has no record of t0000"),
    "a gap": (lambda root: (root / TRIAL).unlink(), RESUME, 2, "00000000-00000000.jsonl is missing, though there are later ones"),
    "a line that is no trial": (lambda root: (root / TRIAL).write_bytes((root / TRIAL).read_bytes() + b"{}\n"), RESUME, 2, "in line 2, "),
    "trials that are a file": (lambda root: (shutil.rmtree(root / "s/trials"), (root / "s/trials").write_text("")), RESUME, 1, "s/trials"),
    "a plan that is no text": (write("s/plan.json", b"\xff\xfe"), RESUME, 2, "plan.json cannot be read"),
    "a plan that is a folder": (as_folder("s/plan.json"), RESUME, 1, "plan.json"),
    "a state of delivery that is no text": (write("s/tracking_state.json", b"\xff\x00"), ["track", "sync", "S/s"], 2, "tracking_state.json cannot be read"),
    "a pointer that is no text": (write(POINTER, b"\xff\xfe"), LIST, 0, "3 stages"),
    "a pointer that is a folder": (as_folder(POINTER), LIST, 1, "published.json"),
    "records of another sweep": (write("other/sweep.json", b"\xff"), GARBAGE, 2, "other/sweep.json"),
    "a stage that says too little": (lambda root: None, ["store", "adopt", "--from", "c0de", "--dry-run"], 0, "must say head, loss"),
    "a store that is a file": (lambda root: (shutil.rmtree(root / "store"), (root / "store").write_text("")), LINEAGE, 1, "the system refuses a file"),
    "a file among the stages": (write(f"store/stages/{'e' * 64}", b""), GARBAGE, 1, "the system refuses a file"),
    "a name that is not UTF-8": (lambda root: Path(os.fsdecode(os.fsencode(root) + b"/\xff")).mkdir(), GARBAGE, 1, "must have only names in UTF-8"),
    "trials that begin later": (edit(SWEEP, lambda values: values["parts"][0].update(first_trial=99)), RESUME, 2, "first_trial of the parts must begin at 0"),
    "a cache with a zero byte": (edit(SWEEP, lambda values: values["options"].update(cache_dir="a\0b")), RESUME, 2, "--cache-dir must have no zero bytes"),
}  # fmt: skip


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    root = tmp_path_factory.mktemp("storage")
    made_up_store.make(str(root))
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", RECORDS)
def test_a_malformed_record_is_refused_by_the_command(storage, somewhere, capsys, case):
    change, command, code, expected = RECORDS[case]
    shutil.copytree(storage, somewhere / "S")
    change(somewhere / "S")
    before = files(somewhere / "S")
    arguments = command if "S" in command or "S/s" in command else [*command, "--storage", "S"]
    assert birdclef(arguments) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert not code or said.err.startswith("Error: ")
    assert expected in said.out + said.err
    assert not code or files(somewhere / "S") == before
