"""The card says what a bundle is, what it was compared with, and what was forced."""

from dataclasses import replace

from made_up_bundles import contents, random_part

from birdclef_core.inference.bundle.card import card
from birdclef_core.inference.bundle.writing import write_bundle


def test_a_card_has_what_a_reader_asks_for(tmp_path):
    bundle = write_bundle(contents(random_part("cnn")), tmp_path / "bundle")
    text = (tmp_path / "bundle" / "card.md").read_text()
    assert text == card(bundle.record, bundle.parity())
    for part in (
        "Detector of 3 species",
        "| tiny | cnn | mobilenetv3_small_050 | 1.000 |",
        "train_bce cdcdcdcdcdcdcdcd",
        "made up",
    ):
        assert part in text
    assert "alpha (Alpha bird), beta, gamma." in text and "no probability" in text and "by force" not in text
    assert "It was not compared" in card(bundle.record, None)
    forced = replace(bundle.parity(), broken_rules=("there must be 64 windows",))
    assert "written by force: there must be 64 windows" in card(bundle.record, forced)
