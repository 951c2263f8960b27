"""`birdclef store import`: a checkpoint is taken in under its recipe's model; what is wrong is one line and exit code 2."""

import shlex

import pytest
import torch
from made_up_store import store

from birdclef_core.store.storage import Storage
from sweeps.cli.birdclef import birdclef

SEARCH = """
from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.space import Search

MODEL = ModelConfig(encoder="mobilenetv3_small_050", spectrogram=SpectrogramConfig(num_mels=32, n_fft=1024, hop_length=500))
COMMON = dict(epochs=1, learning_rate=3e-3, clip_s=1.0, batch_size=4)
STAGE = StageConfig(name="train_ce", label_space="target", loss="ce", seed=1, **COMMON)
SEARCH = Search(name="tiny", recipes=(Recipe(name="tiny", model=MODEL, stages=(STAGE,)),), space={})
"""


@pytest.fixture
def take(tmp_path, capsys):
    """Runs the command in a folder with a search and a list of two classes; exit code and what was said."""
    (tmp_path / "tiny.py").write_text(SEARCH)
    (tmp_path / "classes.txt").write_text("owl\ncrow\n")

    def run(file: str = "own.pt", **changes: str) -> tuple[int, str]:
        paths = {"search": tmp_path / "tiny.py", "species": tmp_path / "classes.txt", "storage": tmp_path / "out"}
        flags = {**paths, "recipe": "tiny", "stage": "train_ce", **changes}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        code = birdclef(["store", "import", str(tmp_path / file), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.mark.slow
def test_a_checkpoint_is_taken_in_and_the_way_on_is_said(take, tmp_path):
    from birdclef_core.models.detector import Detector
    from sweeps.search.search_files import load_search

    model = load_search(str(tmp_path / "tiny.py")).recipes[0].model
    torch.save(Detector(model, 2).state_dict(), tmp_path / "own.pt")
    code, said = take()
    stage_id, taken, way_on = said.splitlines()
    assert code == 0 and way_on.endswith(f"--data DIR --from-stage {stage_id[:16]}")
    assert taken.startswith("Stored tiny train_ce: ") and taken.endswith("entries named as in this project.")
    assert "--set" not in way_on
    record = store(Storage.parse(str(tmp_path / "out"))).open(stage_id).record
    assert (record.recipe, record.stage, record.species) == ("tiny", "train_ce", ["crow", "owl"])


@pytest.mark.slow
def test_the_way_on_is_a_command_whose_recipes_have_the_model(take, tmp_path):
    """A field of the model that was set must be set again, or no recipe has the model of the stage."""
    from birdclef_core.models.detector import Detector
    from sweeps.checkpoints.start_stage import with_model_of
    from sweeps.cli.common import parse_settings
    from sweeps.cli.tune import tune_parser
    from sweeps.search.search_files import load_search, override

    model = load_search(str(tmp_path / "tiny.py")).recipes[0].model
    torch.save(Detector(model, 2).state_dict(), tmp_path / "own.pt")
    code, said = take(set="encoder_axes=time_frequency")
    stage_id, _, way_on = said.splitlines()
    command = shlex.split(way_on.partition("tune_main.py ")[2])
    options = tune_parser().parse_args(command)
    search = override(load_search(options.search), parse_settings(options.set))
    record = store(Storage.parse(options.storage)).open(stage_id).record
    assert code == 0 and options.budget == "full" and options.from_stage == stage_id[:16]
    assert [recipe.name for recipe in with_model_of(search, record).recipes] == ["tiny"]


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"file": "nothing.pt"}, "The checkpoint must be a file"),
        ({"file": "tiny.py"}, "cannot be read as one"),
        ({"file": "tiny.py", "species": "/nowhere"}, "The list of species must be a file"),
        ({"file": "tiny.py", "recipe": "huge"}, "--recipe must be one of search"),
        ({"file": "tiny.py", "search": "nowhere"}, "There is no search 'nowhere'"),
        ({"file": "tiny.py", "set": "nofield=1"}, "names no field"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(take, changes, answer, tmp_path):
    code, said = take(**changes)
    assert code == 2 and answer in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()
