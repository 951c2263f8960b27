"""What is copied into a bundle is enough, and needs no library that a bare machine lacks."""

import sys

from birdclef_core.inference.standalone.copying import LIBRARIES, PACKAGE, STAND_INS, copy_runtime, libraries_of, needed_modules


def test_copies_need_the_libraries_that_are_named_and_no_other():
    stand_ins = {name.partition("/")[0].removesuffix(".py") for name in STAND_INS}
    others = libraries_of(needed_modules()) - set(sys.stdlib_module_names) - {"birdclef_core"}
    assert others == LIBRARIES | stand_ins


def test_everything_that_is_imported_is_copied_as_it_is(tmp_path):
    copy_runtime(tmp_path, "openvino")
    names = {path.relative_to(PACKAGE.parent).as_posix() for path in needed_modules()}
    assert {"birdclef_core/inference/deployed.py", "birdclef_core/data/__init__.py", "birdclef_core/__init__.py"} <= names
    assert "birdclef_core/models/encoders.py" not in names
    for name in names:
        assert (tmp_path / "lib" / name).read_bytes() == (PACKAGE.parent / name).read_bytes()
    text = (tmp_path / "runtime.py").read_text()
    assert "numpy, soundfile, torch and openvino." in text
