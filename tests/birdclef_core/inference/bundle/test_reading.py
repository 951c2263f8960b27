"""A bundle is read whole or not at all, gives the detector that it was made of, and takes a calibration."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_bundles import random_part
from made_up_detector import SPECIES, made_up_calibration

from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.reading import is_bundle, load_bundle, open_bundle, set_calibration
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.networks.torch_runtime import TorchRuntime
from birdclef_core.inference.procedure import SOLUTION_2023

CPU = torch.device("cpu")


@pytest.fixture
def copy(bundle_copy) -> Path:
    return bundle_copy.folder


def waves() -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal((2, 320_000)).astype(np.float32)


def test_it_is_the_detector_that_it_was_made_of(made_bundle):
    parts = (random_part("sed"), random_part("cnn"))
    members = tuple(
        Member(
            model_id=part.stage_id,
            config=part.model.config,
            species=part.species,
            runtime=TorchRuntime(part.model, CPU),
            weight=weight,
        )
        for part, weight in zip(parts, (0.75, 0.25), strict=True)
    )
    original, loaded = DeployedDetector(members, SOLUTION_2023), load_bundle(made_bundle.folder)
    np.testing.assert_array_equal(loaded.hear(waves()).logits_BC, original.hear(waves()).logits_BC)
    assert loaded.model_id == original.model_id == made_bundle.record.model_id
    assert (loaded.species, loaded.procedure, loaded.name("alpha")) == (SPECIES, SOLUTION_2023, "Alpha bird")
    assert [member.weight for member in loaded.first(1).members] == [1.0]


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_damage_is_found_in_every_file(copy, damage):
    record = open_bundle(copy).record
    assert {member.network for member in record.members} <= set(record.files)
    for name in record.files:
        path = copy / name
        before = path.read_bytes()
        path.write_bytes(before + b" ") if damage == "changed" else path.unlink()
        with pytest.raises(InputError, match=rf"{path.name} .*(another content|cannot be read).*export it again"):
            open_bundle(copy)
        path.write_bytes(before)
    open_bundle(copy)


def edit(folder: Path, **values) -> None:
    file = folder / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 2}, "version must be 1, but is 2"),
        ({"weights_of_first": [[1.0]]}, "k weights for the first k members"),
        ({"weights_of_first": [[1.0], [1.5, -0.5]]}, "above 0 and sum to 1"),
        ({"species": ["beta", "alpha"]}, "sorted"),
        ({"species": ["alpha", "beta"]}, "species of each member"),
        ({"files": {}}, "the hash of networks/1_tiny.pt"),
        ({"colour": "red"}, "colour is not a field"),
    ],
)
def test_a_record_that_is_none_is_refused(copy, values, message):
    edit(copy, **values)
    with pytest.raises(InputError, match=message):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "./bundle", "a\\b"])
def test_files_outside_are_not_read(copy, name):
    edit(copy, files={**open_bundle(copy).record.files, name: "0"})
    with pytest.raises(InputError, match="files must lie in the bundle"):
        open_bundle(copy)


def test_what_is_no_bundle_is_said(tmp_path):
    assert not is_bundle(tmp_path)
    with pytest.raises(InputError, match="must be a bundle"):
        open_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text("{}")
    with pytest.raises(InputError, match=r"bundle\.json cannot be read: .* is missing"):
        open_bundle(tmp_path)


def test_foreign_weights_are_refused_without_running_code(copy):
    """A pickle that would write a file when it is loaded, with a hash that is right."""
    from birdclef_core.identity import file_sha256

    class Trap:
        def __reduce__(self):
            return Path.touch, (copy / "trapped",)

    name = open_bundle(copy).record.members[0].network
    torch.save(Trap(), copy / name)
    edit(copy, files={**open_bundle_record(copy)["files"], name: file_sha256(copy / name)})
    with pytest.raises(InputError, match="must have the weights of a mobilenetv3_small_050"):
        load_bundle(copy)
    assert not (copy / "trapped").exists()
    torch.save({"a": torch.zeros(1)}, copy / name)
    edit(copy, files={**open_bundle_record(copy)["files"], name: file_sha256(copy / name)})
    with pytest.raises(InputError, match="must have the weights"):
        load_bundle(copy)


def open_bundle_record(folder: Path) -> dict:
    return json.loads((folder / "bundle.json").read_text())


def test_a_calibration_becomes_part_of_it(copy):
    bundle = open_bundle(copy)
    assert bundle.detector().calibration is None
    calibration = made_up_calibration(bundle.detector())
    assert set_calibration(bundle, calibration).detector().calibration == calibration
    assert load_bundle(copy).calibration == calibration
    assert load_bundle(copy).first(1).calibration is None
    (copy / "calibration.json").write_text("{}")
    with pytest.raises(InputError, match="another content"):
        open_bundle(copy)


def test_a_calibration_of_another_model_is_refused(copy):
    bundle = open_bundle(copy)
    with pytest.raises(InputError, match="must be of the model"):
        set_calibration(bundle, made_up_calibration(bundle.detector().first(1)))
    assert not (copy / "calibration.json").exists() and open_bundle(copy).record.calibration is None


def test_another_precision_is_another_model(made_bundle):
    record = made_bundle.record
    assert record.members[0].model_id("float32") == record.members[0].stage_id
    assert len({replace(record, precision=name).model_id for name in ("float32", "bfloat16", "int8")}) == 3
