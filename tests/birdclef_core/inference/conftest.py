"""A bundle that several tests look at. Making one takes seconds."""

import shutil

import pytest
from made_up_bundles import contents, random_part

from birdclef_core.inference.bundle.reading import Bundle, open_bundle
from birdclef_core.inference.bundle.writing import write_bundle


@pytest.fixture(scope="session")
def made_bundle(tmp_path_factory) -> Bundle:
    """A bundle of a SED and a CNN in torch, which tests must not change."""
    return write_bundle(contents(random_part("sed"), random_part("cnn")), tmp_path_factory.mktemp("made") / "bundle")


@pytest.fixture
def bundle_copy(made_bundle, tmp_path) -> Bundle:
    """The same in a folder of its own."""
    return open_bundle(shutil.copytree(made_bundle.folder, tmp_path / "copy"))
