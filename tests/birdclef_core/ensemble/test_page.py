"""The page stands alone, has every part, and escapes names."""

from dataclasses import replace

import numpy as np
import pytest
from made_up_ensembles import ensemble_record, made_up_rows
from pages import HOSTILE, MATHEMATICS, Page

from birdclef_core.ensemble.page import ShownCandidate, ensemble_page
from birdclef_core.ensemble.record import EnsembleRecord
from birdclef_core.ensemble.scores import ENSEMBLE, Problem, Verdict, judge
from birdclef_core.ensemble.selection import Rules

TITLES = [f"sed_v2s {HOSTILE}", f"cnn {MATHEMATICS}", "third"]
SPECIES = ("alpha", "beta", "gamma")


def chosen(*, files: int = 8) -> tuple[EnsembleRecord, Verdict]:
    rows = made_up_rows(own=(1.0, 1.0, 3.0), files=files, species=3)
    problem = Problem(
        rows=rows,
        metric="auroc",
        cost=lambda members: 20.0 * len(members),
        rules=Rules(bag_share=1.0),
        recipes=["a", "b", "c"],
        recipe_weights=[None] * 3,
    )
    verdict = judge(problem, "there are no others")
    record = ensemble_record(scores=verdict.way(ENSEMBLE).scores, species=SPECIES)
    return record, verdict


@pytest.fixture(scope="module")
def page() -> Page:
    record, verdict = chosen()
    assert len(verdict.selected.members) == 2
    candidates = [ShownCandidate(title=title, trained="0.500") for title in TITLES]
    names = {"alpha": f"Alpha {HOSTILE}"}
    return Page(ensemble_page(record, verdict, candidates, names, notes=(f"note {HOSTILE}",)))


def test_it_stands_alone_and_has_every_part(page):
    page.check()
    assert page.sections == ["worth", "members", "cost", "alike", "species"]
    assert page.labels == ["score against CPU time", "correlation of the logits of each two candidates"]


def test_names_are_text(page):
    for title in TITLES:
        assert title in page.text
    assert f"Alpha {HOSTILE}" in page.text and f"note {HOSTILE}" in page.text and "beta" in page.text


def test_it_says_the_three_scores_and_why_one_is_missing(page):
    _, verdict = chosen()
    scores = verdict.way(ENSEMBLE).scores
    assert f"{scores.apparent.value:.4f}" in page.text and f"{scores.cross_fitted.value:.4f}" in page.text
    assert "No untouched data: there are no others." in page.text
    assert "deployed/auroc" in page.text and "equal weights, all candidates" in page.text


def test_a_choice_that_could_not_be_cross_fitted_has_a_page_too():
    record, verdict = chosen(files=1)
    alone = ensemble_record(
        scores=verdict.way(ENSEMBLE).scores,
        members=(replace(record.members[0], weight=1.0),),
        weights_of_first=((1.0,),),
    )
    page = Page(ensemble_page(alone, verdict, [ShownCandidate(title=title, trained="-") for title in TITLES], {}))
    page.check()
    assert "All rows are of one soundscape file." in page.text and "nan" not in page.text.lower()
    assert np.isnan(verdict.selected.refused_gain[1])
