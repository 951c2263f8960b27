"""A certificate says which codes, which kind and which stage; one that was changed, or says something else, proves nothing."""

from dataclasses import replace

import pytest

from birdclef_core.errors import StoreError
from birdclef_core.identity import canonical
from birdclef_core.recipes import RECIPES
from birdclef_core.store.certificates import Certificate, StageKind, read_certificate, read_certificates, write_certificate
from birdclef_core.store.storage import Storage

KIND = StageKind(head="sed", loss="bce", label_space="target", precision="float32", freeze_encoder=False)
CERTIFICATE = Certificate(
    old_code="0ld",
    new_code="new",
    kind=KIND,
    stage_id="a" * 64,
    recorded_sha256="b" * 64,
    replayed_sha256="b" * 64,
    environment={"device": "cpu", "threads": "1"},
    made_at="2026-11-26T12:00:00+00:00",
)


@pytest.fixture
def storage(tmp_path):
    storage = Storage.parse(str(tmp_path))
    write_certificate(storage, CERTIFICATE)
    return storage


def file_of(certificate: Certificate) -> str:
    return f"certificates/{certificate.hash}.json"


def test_it_is_kept_under_its_hash_and_comes_back(storage):
    assert storage.exists(file_of(CERTIFICATE))
    assert read_certificate(storage, CERTIFICATE.hash) == CERTIFICATE
    assert read_certificates(storage, pytest.fail) == [CERTIFICATE]


def test_it_proves_what_it_says_and_nothing_else():
    assert CERTIFICATE.proves("0ld", "new", KIND)
    assert not CERTIFICATE.proves("older", "new", KIND) and not CERTIFICATE.proves("0ld", "newer", KIND)
    assert not CERTIFICATE.proves("0ld", "new", replace(KIND, freeze_encoder=True))
    assert not replace(CERTIFICATE, replayed_sha256="c" * 64).proves("0ld", "new", KIND)
    assert not replace(CERTIFICATE, recorded_sha256="", replayed_sha256="").proves("0ld", "new", KIND)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"0ld"', '"older"', "was changed after it was written"),
        ('"freeze_encoder": false', '"freeze_encoder": true', "was changed after it was written"),
        ('"new_code"', '"new_coat"', "cannot be read"),
        ("{", "", "cannot be read"),
    ],
)
def test_a_changed_one_is_refused(storage, tmp_path, old, new, problem):
    path = tmp_path / file_of(CERTIFICATE)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(StoreError, match=problem):
        read_certificate(storage, CERTIFICATE.hash)
    said = []
    assert read_certificates(storage, said.append) == []
    assert len(said) == 1 and problem in said[0]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "SED bce target float32"),
        ({"freeze_encoder": True}, "SED bce target float32, encoder frozen"),
        ({"frozen_blocks": 2, "thaw_every": 3}, "SED bce target float32, 2 blocks frozen, thawing every 3 epochs"),
        ({"optimizer": "adamw"}, "SED bce target float32, with adamw"),
    ],
)
def test_a_kind_knows_the_optimiser_and_what_is_frozen(changes, name):
    stage = next(stage for stage in RECIPES["sed_v2s"]().stages if stage.name == "train_bce")
    identity = {"model": canonical(RECIPES["sed_v2s"]().model), "stage": canonical(replace(stage, **changes))}
    kind = StageKind.of(identity)
    assert kind == replace(KIND, **changes) and str(kind) == name


def test_a_missing_one_is_an_error(storage):
    with pytest.raises(StoreError, match="is missing"):
        read_certificate(storage, "0" * 64)


def test_the_kind_of_a_stage_is_read_from_its_identity():
    recipe = RECIPES["sed_v2s"]()
    identity = {"model": canonical(recipe.model), "stage": canonical(recipe.stages[-1])}
    assert str(StageKind.of(identity)) == "SED bce target float32, encoder frozen"
    identity["stage"]["embeddings"] = "embed"
    assert str(StageKind.of(identity)) == "SED bce target float32, on embeddings, encoder frozen"
