"""The charts of a stage show what is defined and leave out the rest."""

import re

import numpy as np
from markupsafe import Markup

from birdclef_core.evaluation.reliability import ReliabilityBin
from birdclef_core.reports.charts import learning_charts, reliability_chart, species_chart


def texts(svg: Markup) -> list[str]:
    return [Markup(found).unescape() for found in re.findall(r"<text [^>]*>([^<]*)</text>", svg)]


def dots(svg: Markup) -> int:
    return svg.count("<use ")


def epoch(scores: dict[str, float]) -> dict:
    return {"train_loss": 1.0, "scores": scores}


def test_scores_that_are_nowhere_defined_have_no_line():
    _, scores = learning_charts([epoch({"cmap": 0.5, "lrap": np.nan}), epoch({"cmap": np.nan, "lrap": np.nan})])
    assert {"cmAP"} == {text for text in texts(scores) if text in ("cmAP", "LRAP", "AUROC", "padded cmAP (k = 5)")}


def test_epochs_are_whole_numbers_also_when_there_is_one():
    for chart in learning_charts([epoch({"cmap": 0.5})]):
        place = texts(chart).index("epoch")
        assert texts(chart)[:place] == ["1"]


def test_species_without_recordings_have_no_dot_and_many_recordings_a_logarithmic_axis():
    few = species_chart(np.array([0.1, np.nan, 0.9]), np.array([1, 0, 3]))
    more = species_chart(np.array([0.1, 0.5, 0.9]), np.array([1, 2, 3]))
    assert dots(more) == dots(few) + 1
    many = texts(species_chart(np.array([0.1, 0.9]), np.array([1, 1000])))
    assert many[: many.index("validation recordings")] == ["1", "10", "100", "1,000"]


def test_the_numbers_of_a_reliability_chart_are_plain():
    """A logarithmic axis writes mathematics by itself, which is not read as such here."""
    shown = texts(reliability_chart([ReliabilityBin(0.1, 0.05, 20_000), ReliabilityBin(0.9, 0.8, 30)]))
    assert {"100", "10,000"} <= set(shown) and not any("$" in text for text in shown)
