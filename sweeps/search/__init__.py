"""What a search is: recipes, the space around them, and how a draw becomes a chain of stages.

A search file of your own needs no more than `from sweeps.search import Choice, Range, Search` and the recipes.
"""

from birdclef_core.config import ModelConfig, Recipe, SpectrogramConfig, StageConfig
from sweeps.search.parameters import Choice, Range
from sweeps.search.space import Search

__all__ = ["Choice", "ModelConfig", "Range", "Recipe", "Search", "SpectrogramConfig", "StageConfig"]
