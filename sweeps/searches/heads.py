"""Search heads on the embeddings of an encoder that does not train: they are made once, and each trial then trains a head in seconds.

The second recipe has a hidden layer. The encoder is the timm encoder with its first weights, which must be pretrained ones to mean
anything; for an ONNX encoder of your own, copy this file and name it: `of="encoder:FILE.onnx"`.
"""

from dataclasses import replace

from birdclef_core.config import Recipe
from birdclef_core.recipes import predictions, sed_seresnext26t
from sweeps.search import Choice, Range, Search

_RECIPE = sed_seresnext26t()
_EMBED = predictions("embed", of="encoder:timm", on="recordings", window_s=5.0)
_HEAD = replace(
    _RECIPE.stages[2],
    name="head",
    embeddings="embed",
    loss="bce",
    epochs=20,
    learning_rate=3e-3,
    batch_size=64,
    clip_s=5.0,
    seed=1,
)

SEARCH = Search(
    name="heads",
    recipes=(
        Recipe(name="linear", model=_RECIPE.model, stages=(_EMBED, _HEAD)),
        Recipe(name="hidden", model=_RECIPE.model, stages=(_EMBED, replace(_HEAD, head_hidden=512))),
    ),
    space={
        "head.learning_rate": Range(3e-4, 3e-2, log=True),
        "head.weight_decay": Choice((0.0, 1e-4, 1e-3)),
        "head.loss": Choice(("bce", "focal", "asymmetric", "ce")),
        "head.class_balance": Choice(("inverse", "inverse_sqrt", "none")),
        "head.head_hidden": Choice((256, 512, 1024), when="recipe == 'hidden'"),
        "model.head_dropout": Choice((0.0, 0.2, 0.5)),
    },
)
