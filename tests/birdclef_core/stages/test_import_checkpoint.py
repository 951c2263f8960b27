"""A checkpoint of one's own becomes a stage that others can start from; what does not fit is refused in words."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from birdclef_core.errors import InputError
from birdclef_core.models.detector import Detector
from birdclef_core.stages.import_checkpoint import import_checkpoint
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED

CLASSES = ("owl", "crow", "wren")


@pytest.fixture(scope="module")
def weights(tiny_recipe):
    return Detector(tiny_recipe.model, len(CLASSES)).state_dict()


@pytest.fixture
def store(tmp_path):
    return StageStore(Storage.parse(str(tmp_path / "store")))


@pytest.fixture
def take(store, tiny_recipe):
    def run(path, classes=CLASSES) -> str:
        imported = import_checkpoint(store, path, recipe="tiny", model=tiny_recipe.model, stage="train_ce", classes=classes)
        return imported.stage_id

    return run


def test_weights_are_kept_with_the_heads_rows_in_the_order_of_label_spaces(store, take, weights, tmp_path):
    path = tmp_path / "own.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    stage_id = take(path)
    entry = store.open(stage_id)
    assert entry.record.species == ["crow", "owl", "wren"] and entry.record.parent_id is None
    assert store.summary(stage_id).code == IMPORTED
    kept = entry.weights()
    assert kept.keys() == weights.keys()
    heads = [name for name, tensor in kept.items() if not torch.equal(tensor, weights[name])]
    assert heads and all(torch.equal(kept[name], weights[name][[1, 0, 2]]) for name in heads)


@pytest.mark.slow
def test_importing_twice_is_importing_once(store, take, weights, tmp_path):
    for name in ("a.pt", "b.pt"):
        torch.save({"state_dict": weights}, tmp_path / name)
    assert take(tmp_path / "a.pt") == take(tmp_path / "a.pt")
    assert len(store.known_ids()) == 1
    assert take(tmp_path / "a.pt", tuple(sorted(CLASSES))) != take(tmp_path / "a.pt"), "the same rows of other species"


def test_what_is_not_a_state_dict_is_refused(take, tmp_path):
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("text.pt", "text.safetensors", "list.pt"):
        with pytest.raises(InputError, match=name) as error:
            take(tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_is_pickled_beside_weights_is_not_run(take, weights, tmp_path):
    torch.save({"state_dict": weights, "hyper_parameters": SimpleNamespace(size=3)}, tmp_path / "own.ckpt")
    with pytest.raises(InputError, match=r"own.ckpt has types.SimpleNamespace\. If you trust it"):
        take(tmp_path / "own.ckpt")


@pytest.mark.slow
def test_what_does_not_fit_the_model_is_named(take, weights, tmp_path):
    first = next(iter(weights))
    changed = {
        "missing": {name: tensor for name, tensor in weights.items() if name != first},
        "not one of the model's": {**weights, "extra": torch.zeros(1)},
        "and must be": {**weights, first: torch.zeros(1)},
        "not finite": {**weights, first: torch.full_like(weights[first], float("nan"))},
    }
    for problem, state in changed.items():
        torch.save(state, tmp_path / "own.pt")
        with pytest.raises(InputError, match=f"1 entries do not fit: .*{problem}"):
            take(tmp_path / "own.pt")


def test_classes_are_each_once(take, weights, tmp_path):
    torch.save(weights, tmp_path / "own.pt")
    with pytest.raises(InputError, match="3 lines name 2"):
        take(tmp_path / "own.pt", ("owl", "owl", "wren"))
