"""The recipes, where users' own search files import them from. They are defined in `birdclef_core/recipes.py`."""

from birdclef_core.recipes import (
    RECIPES,
    cnn_b0ns,
    cnn_b3ns,
    cnn_resnet34d,
    cnn_v2s,
    get_recipe,
    sed_b3ns,
    sed_seresnext26t,
    sed_v2s,
    small_budget,
    with_all_stages,
)

__all__ = [
    "RECIPES",
    "cnn_b0ns",
    "cnn_b3ns",
    "cnn_resnet34d",
    "cnn_v2s",
    "get_recipe",
    "sed_b3ns",
    "sed_seresnext26t",
    "sed_v2s",
    "small_budget",
    "with_all_stages",
]
