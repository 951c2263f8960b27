import unicodedata

import pandas as pd
import pytest

from birdclef_core.data.labels import clean_text, parse_labels, replace_labels, spell_as, unify_spelling

NFC = "mönch"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[]", ()),
        ("['a', 'b', 'a']", ("a", "b")),
        ("['']", ()),
        ("a b", ("a", "b")),
        ("a;b", ("a", "b")),
        ("a,b", ("a", "b")),
        ("a | b", ("a", "b")),
        ("", ()),
        ("[21211, 'x']", ("21211", "x")),
        ("['a' 'b']", ("a", "b")),
        ("['a'\n 'b']", ("a", "b")),
        ("array(['a', 'b'], dtype=object)", ("a", "b")),
        ("np.array(['a'])", ("a",)),
        ("('a', 'b')", ("a", "b")),
        ("{'a'}", ("a",)),
        ("set()", ()),
        ('["a", "b"]', ("a", "b")),
        ("[a, b]", ("a", "b")),
        ("'a', 'b'", ("a", "b")),
        ("nan", ()),
        ("[nan]", ()),
        ("-", ()),
        ("['a', None]", ("a",)),
        ("['Turdus merula', \"Cooper's hawk\"]", ("Turdus merula", "Cooper's hawk")),
        ("\ufeffa", ("a",)),
        ("['\u200ba ']", ("a",)),
    ],
)
def test_labels_as_people_and_programs_write_them(text: str, labels: tuple[str, ...]) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize("text", ["['a', 'b'", "[c", "['a', 'b", "[['a']]", "('a', 'b']", r"['\x']"])
def test_a_list_that_is_not_complete_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_labels(text)


def test_what_cannot_be_seen_is_no_part_of_a_text() -> None:
    assert clean_text("\ufeff\u00a0 am ecro\u200b ") == "am ecro"


def test_two_spellings_of_one_label_become_one() -> None:
    assert unify_spelling(["a", NFC, NFD]) == {NFD: NFC}
    assert unify_spelling(["a", NFD]) == {}, "written in one way throughout, it stays as it is"
    table = pd.DataFrame({"primary_label": [NFD, "a", NFC], "secondary_labels": [(NFC, "a"), (NFD, NFC), ()]})
    changed = replace_labels(table, {NFD: NFC})
    assert list(changed["primary_label"]) == [NFC, "a", NFC]
    assert list(changed["secondary_labels"]) == [("a",), (NFC,), ()]
    assert replace_labels(table, {}) is table


def test_a_label_is_found_in_another_spelling() -> None:
    assert spell_as(NFD, ("a", NFC)) == NFC and spell_as(NFC, ("a", NFD)) == NFD
    assert spell_as("other", (NFC,)) == "other" and spell_as("ö", (NFC,)) == "ö"
