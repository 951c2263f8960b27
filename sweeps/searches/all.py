"""Search all seven recipes. Clip lengths differ between SED and CNN heads, so each recipe keeps its own."""

from birdclef_core.recipes import RECIPES
from sweeps.search import Range, Search

SEARCH = Search(
    name="all",
    recipes=tuple(recipe() for recipe in RECIPES.values()),
    space={
        "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "pretrain_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "train_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "train_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "train.mixing.wave_prob": Range(0.0, 1.0),
        "train.mixing.spectrogram_prob": Range(0.0, 1.0),
        "finetune.learning_rate": Range(1e-4, 2e-3, log=True),
    },
)
