"""A checkpoint of the 2023 solution becomes a model with the outputs that the solution's own code had; every name has its place.

Shapes: C species, S segments, K channels, F mel bins, N frames.
"""

from dataclasses import replace

import pytest
import torch
from solution_2023 import CLASSES, golden_outputs, golden_shapes, golden_state_dict, golden_wave_BT

from birdclef_core.config import ModelConfig, SpectrogramConfig
from birdclef_core.errors import InputError
from birdclef_core.models.detector import Detector
from birdclef_core.recipes import RECIPES, get_recipe
from birdclef_core.stages.import_checkpoint import import_checkpoint
from birdclef_core.stages.layouts import layout_of
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage

NUM_ENTRIES = {
    "sed_v2s": 793,
    "sed_b3ns": 585,
    "sed_seresnext26t": 231,
    "cnn_v2s": 785,
    "cnn_b3ns": 577,
    "cnn_resnet34d": 233,
    "cnn_b0ns": 363,
}
"""Entries of the state dict that the solution's own code saves."""
SMALLEST = ("sed_seresnext26t", "cnn_b0ns")
MEL = ["melspec_transform.mel_scale.fb", "melspec_transform.spectrogram.window"]


def empty(config: ModelConfig) -> Detector:
    with torch.device("meta"):
        return Detector(config, len(CLASSES))


def tiny(head: str) -> ModelConfig:
    spectrogram = SpectrogramConfig(num_mels=48, n_fft=1024, hop_length=640, f_min_hz=100.0, f_max_hz=12_000.0)
    return ModelConfig(head=head, encoder="test_resnet", spectrogram=spectrogram)


@pytest.fixture(scope="module")
def states():
    """Checkpoints of a tiny SED and CNN in the layout of the 2023 solution."""
    found = {}
    for head, mark in (("sed", "bn0.weight"), ("cnn", "global_pool.p")):
        torch.manual_seed(1)
        model = Detector(tiny(head), len(CLASSES))
        weights, layout = model.state_dict(), layout_of([mark], model)
        mel = {
            "melspec_transform.spectrogram.window": model.spectrogram.window,
            "melspec_transform.mel_scale.fb": model.spectrogram.filters.T,
        }
        found[head] = {own: weights[name] for name, own in layout.names.items()} | mel
    return found


@pytest.fixture
def take(tmp_path):
    """Imports a state dict as a checkpoint of a recipe, and returns what was imported and the model that a stage would start from."""
    store = StageStore(Storage.parse(str(tmp_path / "store")))

    def run(state, recipe: str, config: ModelConfig | None = None):
        path = tmp_path / "last.ckpt"
        # What Lightning saves beside the weights.
        torch.save({"epoch": 3, "loops": {}, "optimizer_states": [{"state": {}}], "state_dict": state}, path)
        config = config or get_recipe(recipe).model
        imported = import_checkpoint(store, path, recipe=recipe, model=config, stage="train_ce", classes=CLASSES)
        entry = store.open(imported.stage_id)
        assert entry.record.species == sorted(CLASSES)
        model = Detector(config, len(CLASSES)).eval()
        weights = entry.weights()
        model.load_state_dict(weights)
        # Loading converts, so another type in the store would not be seen.
        assert all(weights[name].dtype == tensor.dtype for name, tensor in model.state_dict().items())
        return imported, model

    return run


def difference(model: Detector, recipe: str) -> float:
    """Largest difference from the solution's own logits of a clip of ten seconds, of the clip and of each segment."""
    order = [CLASSES.index(code) for code in sorted(CLASSES)]
    with torch.no_grad():
        output = model(model.spectrograms(golden_wave_BT()))
    logits_C, segments_SC = golden_outputs(recipe)
    differences = [output.logits_BC[0] - logits_C[order]]
    if segments_SC is not None:
        differences.append(output.frame_logits_BNC[0] - segments_SC[:, order])
    return max(part.abs().max().item() for part in differences)


@pytest.mark.parametrize("recipe", [pytest.param(name, marks=[] if name in SMALLEST else pytest.mark.slow) for name in RECIPES])
def test_outputs_are_those_of_the_solution_itself(take, recipe):
    state = golden_state_dict(recipe, get_recipe(recipe).model.spectrogram)
    imported, model = take(state, recipe)
    assert difference(model, recipe) < 1e-4
    assert imported.num_taken == len(state) - len(MEL) and sorted(imported.not_needed) == MEL
    assert imported.summary().startswith(f"{len(state) - 2} entries named as in the 2023 solution; 2 not needed (the spectrogram")


def test_without_the_statistics_of_batch_norm_sed_v2s_has_460_entries():
    names = golden_shapes("sed_v2s")
    assert sum(not name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in names) == 460


def test_the_other_axes_give_other_outputs(take):
    recipe = get_recipe("cnn_b0ns")
    state = golden_state_dict("cnn_b0ns", recipe.model.spectrogram)
    assert difference(take(state, "cnn_b0ns", replace(recipe.model, encoder_axes="frequency_time"))[1], "cnn_b0ns") > 0.1


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_name_has_a_place_and_every_entry_a_name(recipe):
    shapes = golden_shapes(recipe)
    model = empty(get_recipe(recipe).model)
    layout = layout_of(shapes, model)
    assert layout.title == "the 2023 solution" and len(shapes) == NUM_ENTRIES[recipe]
    assert sorted(layout.names.values()) == sorted(shapes.keys() - set(MEL))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        name: shapes[own] for name, own in layout.names.items()
    }


def test_names_of_this_project_are_kept():
    model = empty(tiny("cnn"))
    layout = layout_of(model.state_dict().keys(), model)
    assert layout.title == "this project" and all(name == own for name, own in layout.names.items())
    assert layout.reason("melspec_transform.spectrogram.window") is None


def test_an_average_of_the_weights_is_not_taken(take, states):
    average = {f"ema.module.{name}": torch.zeros_like(tensor) for name, tensor in states["sed"].items()}
    imported, model = take({**states["sed"], **average}, "sed", tiny("sed"))
    assert torch.equal(model.input_norm.norm.weight, states["sed"]["bn0.weight"])
    assert imported.not_needed.keys() == {*average, *MEL}


def test_half_precision_is_taken_in_the_models_own(take, states):
    state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in states["sed"].items()}
    _, model = take(state, "sed", tiny("sed"))
    torch.testing.assert_close(model.head.linear.weight, states["sed"]["fc1.weight"], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("head", "changes", "problem"),
    [
        ("sed", {"att_block.cla.weight": None}, "1 entries do not fit: att_block.cla.weight is missing"),
        ("sed", {"encoder.4.0.conv1.weight": None}, "encoder.4.0.conv1.weight is missing"),
        ("sed", {"encoder.9.weight": torch.zeros(3)}, "encoder.9.weight is not one of the model's"),
        ("sed", {"loss_function.pos_weight": torch.zeros(3)}, "loss_function.pos_weight is not one of the model's"),
        ("cnn", {"backbone.extra": torch.zeros(1)}, "backbone.extra is not one of the model's"),
        ("cnn", {"global_pool.p": torch.zeros(2)}, r"global_pool.p is \(2,\) and must be \(1,\)"),
        ("cnn", {"head.bias": torch.full((12,), float("nan"))}, "head.bias is not finite"),
    ],
)
def test_what_does_not_fit_is_named_as_in_the_file(take, states, head, changes, problem):
    state = {name: tensor for name, tensor in {**states[head], **changes}.items() if tensor is not None}
    with pytest.raises(InputError, match=problem):
        take(state, head, tiny(head))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"f_min_hz": 50.0}, "mel_scale.fb has other values"),
        ({"f_max_hz": 11_900.0}, "mel_scale.fb has other values"),
        ({"n_fft": 2048}, r"mel_scale.fb is \(513, 48\) and must be \(1025, 48\); .*window is"),
        ({"num_mels": 64}, r"mel_scale.fb is \(513, 48\) and must be \(513, 64\)"),
    ],
)
def test_another_spectrogram_is_refused(take, states, setting, problem):
    model = tiny("cnn")
    with pytest.raises(InputError, match=problem):
        take(states["cnn"], "cnn", replace(model, spectrogram=replace(model.spectrogram, **setting)))


def test_the_recipe_must_have_the_head_of_the_checkpoint(take, states):
    with pytest.raises(InputError, match="the checkpoint is a sed of the 2023 solution, and the recipe has the head cnn"):
        take(states["sed"], "cnn", tiny("cnn"))


def test_an_encoder_whose_entries_are_in_no_child_has_no_place():
    vit = replace(tiny("sed"), encoder="test_vit")
    with pytest.raises(InputError, match=r"it cannot hold encoder\.model\.\w+ of 'test_vit'"):
        layout_of(["bn0.weight"], empty(vit))
