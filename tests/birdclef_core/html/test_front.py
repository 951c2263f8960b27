"""The picture of a Pareto front has every mark, cheap ones at the left and good ones at the top, and the front as steps through its marks."""

from xml.etree import ElementTree

from pages import HOSTILE

from birdclef_core.html.front import Mark, front_svg


def mark(cost: float, score: float, on_front: bool, error: float | None = 0.01) -> Mark:
    return Mark(cost=cost, score=score, error=error, on_front=on_front, tip=f"{cost} {score}")


def picture(marks) -> ElementTree.Element:
    return ElementTree.fromstring(front_svg(marks, cost_title=HOSTILE, score_title="cmap", shown=str))


def test_marks_lie_where_their_cost_and_score_are():
    root = picture([mark(1.0, 0.2, True), mark(10.0, 0.3, False, error=None), mark(100.0, 0.8, True)])
    places = {rect.find("title").text: rect for rect in root.iter("rect")}
    cheap, middle, dear = (places[tip] for tip in ("1.0 0.2", "10.0 0.3", "100.0 0.8"))
    x, y = ([float(rect.get(name)) for rect in (cheap, middle, dear)] for name in ("x", "y"))
    assert abs((x[0] + x[2]) / 2 - x[1]) < 0.2, "costs are on a logarithmic scale"
    assert y[0] > y[1] > y[2]
    assert [rect.get("fill") for rect in (cheap, middle, dear)] == ["var(--best)", "var(--own)", "var(--best)"]
    paths = list(root.iter("path"))
    assert len(paths) == 4, "the axes, the front, and an error for two marks"
    (steps,) = [path.get("d") for path in paths if path.get("stroke-width") == "2"]
    for rect in (cheap, dear):
        assert f"H{float(rect.get('x')) + 4.5:.1f} V{float(rect.get('y')) + 4.5:.1f}" in steps
    texts = [element.text for element in root.iter("text")]
    assert {"1.0", "100.0", "0.190", "0.810", "cmap", f"{HOSTILE} (logarithmic)"} == set(texts)


def test_one_mark_and_none_are_pictures_too():
    assert len(list(picture([mark(3.0, 0.5, True, error=None)]).iter("rect"))) == 1
    assert not list(picture([]).iter("rect"))
