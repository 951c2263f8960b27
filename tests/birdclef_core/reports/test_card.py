"""The card is one page that asks nothing of the network and says what the numbers mean."""

from dataclasses import replace

import numpy as np
from pages import HOSTILE, MATHEMATICS, Page

from birdclef_core.reports.card import stage_card
from birdclef_core.reports.outcome import worst_recordings


def text_of(page: str) -> str:
    return Page(page).text


def test_the_page_is_whole_and_needs_no_network(outcome):
    page = Page(stage_card(outcome)).check()
    assert page.sections == ["score", "learning", "species", "trust", "worst", "origin"]
    assert "nan" not in page.text.lower()


def test_names_are_text_and_neither_html_nor_mathematics(outcome):
    """They are those of species, recordings, authors and devices."""
    record = replace(outcome.record, species=[HOSTILE, MATHEMATICS, "<i>", "d", "e"], environment={"device": HOSTILE})
    recordings = outcome.recordings.assign(recording_id=f"{HOSTILE}{MATHEMATICS}", author=HOSTILE)
    page = Page(stage_card(replace(outcome, record=record, recordings=recordings))).check()
    what = f"{HOSTILE}{MATHEMATICS}: {HOSTILE} ranks 5 of 5"
    assert f"{what}, probability 0.01; recorded by {HOSTILE}" in page.text and what in page.labels
    assert f"1 h 02 min on {HOSTILE}" in page.text
    assert f"{HOSTILE} ." in page.text and f"{MATHEMATICS} ." in page.text, "in the table of species"


def test_it_says_the_score_its_interval_and_what_chance_would_reach(outcome):
    scores = outcome.record.metrics
    text = text_of(stage_card(outcome))
    assert f"that have recordings: {scores['cmap']:.3f}".replace(" 0.", " .") in text
    low = scores["cmap"] - 1.96 * scores["cmap_se"]
    assert f"between {low:.3f}".replace(" 0.", " .") in text
    assert f"the score of BirdCLEF 2023, is {scores['cmap_pad5']:.3f} (".replace(" 0.", " .") in text
    assert f"{scores['cmap'] / scores['cmap_chance']:.1f} times what a random" in text
    assert "4 of 5 species with one" in text


def test_scores_on_soundscapes_are_told_where_there_are_some(outcome):
    assert "soundscapes" not in text_of(stage_card(outcome))
    of_soundscapes = {"auroc": 0.875, "cmap": 0.25, "cmap_chance": 0.125, "num_windows": 120.0}
    metrics = outcome.record.metrics | {f"soundscapes/{name}": value for name, value in of_soundscapes.items()}
    text = text_of(stage_card(replace(outcome, record=replace(outcome.record, metrics=metrics))))
    assert ".875 AUROC on soundscapes" in text and "On 120 labelled windows" in text
    assert "is .875 and cmAP .250; chance: .500 and .125" in text


def test_it_gives_no_interval_where_nobody_knows_one(outcome):
    scores = {name: value for name, value in outcome.record.metrics.items() if not name.endswith("_se")}
    text = text_of(stage_card(replace(outcome, record=replace(outcome.record, metrics=scores))))
    assert "is not known, because there are too few authors" in text
    assert (
        "± -; chance" in text
        and "95%" not in text
        and f"BirdCLEF 2023, is {scores['cmap_pad5']:.3f}. ".replace(" 0.", " .") in text
    )


def test_it_shows_each_part_and_where_the_stage_comes_from(outcome):
    text = text_of(stage_card(outcome))
    for part in ("All is well.", "Found worst", "1 species without a validation recording", "a1" * 32, "1 h 02 min on a GPU"):
        assert part in text, part
    assert "starts from stage " + "b2" * 32 in text
    assert "augment.gain_prob" in text and "model.spectrogram.num_mels" in text
    assert "promises nothing about single probabilities" not in text
    for loss, what in (("ce", "cross-entropy, which ranks species"), ("soft_auc", "a ranking loss, which ranks clips")):
        other = replace(outcome, config=replace(outcome.config, loss=loss))
        assert f"was trained with {what} and promises nothing about single probabilities" in text_of(stage_card(other))


def test_the_worst_recordings_come_one_a_species_with_their_ranks(outcome):
    worst = worst_recordings(outcome, 3)
    assert (worst[0].row, worst[0].species, worst[0].rank, worst[0].probability) == (0, "aldfly", 5, 0.01)
    assert len({item.species for item in worst}) == len(worst)
    assert [item.rank for item in worst] == sorted((item.rank for item in worst), reverse=True)
    assert (
        "XC0: aldfly ranks 5 of 5, probability 0.01; recorded by an unnamed author, lasts 42.0 s, of which 30.0 s are shown."
    ) in text_of(stage_card(outcome))


def test_where_nothing_is_wrong_it_says_so(outcome):
    perfect = replace(outcome, score_RC=0.1 + 0.8 * outcome.truth_RC.astype(np.float64))
    assert worst_recordings(perfect, 6) == []
    assert "its own species ranks first" in text_of(stage_card(perfect))


def test_scores_that_are_not_defined_are_a_dash(outcome):
    metrics = {**outcome.record.metrics, "auroc": float("nan")}
    page = stage_card(replace(outcome, record=replace(outcome.record, metrics=metrics)))
    assert "- AUROC" in text_of(page)
