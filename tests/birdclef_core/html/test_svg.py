"""Small pictures are valid SVG whatever the names in them, and their text stays within its box."""

from xml.etree import ElementTree

from pages import HOSTILE

from birdclef_core.html.svg import box, drawing, fitted, image, path, rectangle, text


def texts(picture: str) -> list[str | None]:
    return [element.text for element in ElementTree.fromstring(picture).iter("text")]


def test_every_name_is_escaped() -> None:
    parts = [
        text(0, 10, HOSTILE, bold=True, upwards=True),
        box(0, 0, 400, 100, fill="own", lines=(HOSTILE,), tip=HOSTILE),
        rectangle(0, 0, 1, 1, fill=HOSTILE),
        path(HOSTILE, stroke=HOSTILE),
        image(0, 0, 1, 1, HOSTILE.encode()),
    ]
    picture = drawing(400, 100, parts, HOSTILE)
    root = ElementTree.fromstring(picture)
    assert "<script" not in picture and root.get("aria-label") == HOSTILE
    assert texts(picture) == [HOSTILE, HOSTILE]
    assert [title.text for title in root.iter("title")] == [HOSTILE]


def test_a_box_has_the_lines_that_fit_and_cuts_those_that_are_too_long() -> None:
    def lines(width: float, height: float) -> list[str | None]:
        return texts(drawing(1, 1, [box(0, 0, width, height, fill="own", lines=("first line", "", "second"), tip="")], ""))

    assert lines(100, 40) == ["first line", "second"]
    assert lines(100, 20) == ["first line"]
    assert lines(60, 40) == ["first …", "second"]
    assert lines(40, 40) == lines(100, 10) == []


def test_what_fits_is_not_cut() -> None:
    assert [fitted("abcde", room) for room in (4, 5, 6)] == ["abc…", "abcde", "abcde"]


def test_a_picture_is_not_shrunk_until_its_text_cannot_be_read() -> None:
    assert 'viewBox="0 0 1000 50" style="min-width: 850px"' in drawing(1000, 50, [], "wide")
