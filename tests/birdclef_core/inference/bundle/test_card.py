"""The card says what a bundle is, what it was compared with, and what was forced."""

from dataclasses import replace

from birdclef_core.inference.bundle.card import card


def test_a_card_has_what_a_reader_asks_for(made_bundle):
    text = (made_bundle.folder / "card.md").read_text()
    assert text == card(made_bundle.record, made_bundle.parity())
    for part in (
        "Detector of 3 species",
        "| tiny | cnn | mobilenetv3_small_050 | 0.250 |",
        "train_bce cdcdcdcdcdcdcdcd",
        "made up",
    ):
        assert part in text
    assert "alpha (Alpha bird), beta, gamma." in text and "no probability" in text and "by force" not in text
    forced = replace(made_bundle.parity(), broken_rules=("there must be 64 windows",))
    assert "written by force: there must be 64 windows" in card(made_bundle.record, forced)
