"""The page of a sweep as a person sees it: in a browser, in light and dark, on a narrow screen, and by keyboard."""

import asyncio

import pytest
from chromium import Tab, find_chromium, visit
from made_up_sweep import made_up_sweep, write_sweep

from birdclef_core.store.storage import Storage
from sweeps.report.page.writing import make_report

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium")]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")
    write_sweep(storage, *made_up_sweep(60, objective="val/cmap, cost/cpu_seconds_10min"))
    return make_report(Storage.parse(str(storage)), ["s"], None)


async def draw_all(tab: Tab) -> None:
    """Scroll through the page until each chart is drawn."""
    await tab.wait_for("document.documentElement?.dataset.ready")
    for number in range(await tab.ask("document.querySelectorAll('.chart').length")):
        chart = f"document.querySelectorAll('.chart')[{number}]"
        await tab.ask(f"{chart}.scrollIntoView({{ behavior: 'instant' }})")
        await tab.wait_for(f"{chart}.classList.contains('js-plotly-plot')")


def test_every_chart_is_drawn_and_nothing_is_wider_than_a_narrow_screen(page):
    async def look(tab: Tab) -> None:
        await draw_all(tab)
        assert tab.problems == []
        assert await tab.ask("document.documentElement.scrollWidth") <= 420
        assert await tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 25)"
        ink = await tab.ask("document.querySelector('#best-chart .xtitle').style.fill")
        assert ink == "rgb(231, 235, 237)", "charts follow the dark theme"

    visit(page, look, width=420, dark=True)


def test_words_fit_into_tiles_and_labels_of_axes_do_not_overlap(page, tmp_path):
    """Also with six trials, whose parameters may all lie within a part of a decade."""
    write_sweep(tmp_path, *made_up_sweep(6, objective="val_soundscapes/auroc"))
    few = make_report(Storage.parse(str(tmp_path)), ["s"], None)
    labels = """[...document.querySelectorAll('.slices .chart')].map(chart => {
      const boxes = [...chart.querySelectorAll('.xtick text')].map(text => text.getBoundingClientRect());
      return boxes.length && boxes.slice(1).every((box, place) => box.left > boxes[place].right);
    })"""

    async def look(tab: Tab) -> None:
        await draw_all(tab)
        assert await tab.ask("[...document.querySelectorAll('.tiles li')].every(tile => tile.scrollWidth <= tile.clientWidth)")
        fit = await tab.ask(labels)
        assert len(fit) > 3 and all(fit)
        assert tab.problems == []

    for file in (page, few):
        visit(file, look, width=1280)


def test_a_filter_by_keyboard_reaches_the_charts_and_the_table(page):
    async def use(tab: Tab) -> None:
        await tab.wait_for("document.documentElement?.dataset.ready")
        await tab.ask("document.getElementById('best-chart').scrollIntoView({ behavior: 'instant' })")
        await tab.wait_for("!!document.getElementById('best-chart').data")
        await tab.ask("document.querySelector('.filters summary').focus()")
        await tab.press("Enter")
        assert await tab.ask("document.querySelector('.filters details').open")
        await tab.press("Tab")
        assert await tab.ask("document.activeElement.type") == "checkbox"
        name = await tab.ask("document.activeElement.parentNode.textContent.trim()")
        dots = "document.getElementById('best-chart').data[0].x.length"
        before = await tab.ask(dots)
        await tab.press(" ")
        await tab.wait_for(f"{dots} < {before}")
        rest = await tab.ask("T.recipe.filter(recipe => recipe !== document.activeElement.parentNode.textContent.trim()).length")
        assert name in ("sed_b3ns", "sed_seresnext26t", "sed_v2s") and 0 < rest < 60
        assert await tab.ask("document.getElementById('filter-count').textContent") == f"{rest} of 60 trials are shown."
        await tab.wait_for(f"![...document.querySelectorAll('#trials-body tr')].some(row => row.textContent.includes('{name}'))")
        await tab.ask("document.getElementById('filter-reset').focus()")
        await tab.press("Enter")
        await tab.wait_for(f"{dots} === {before}")
        await tab.ask("document.querySelectorAll('#trials-head button')[0].focus()")
        await tab.press("Enter")
        await tab.press("Enter")
        assert await tab.ask("document.querySelector('#trials-body th').textContent") == "t0000"
        assert tab.problems == []

    visit(page, use)


def test_a_box_in_one_chart_and_a_stretch_of_an_axis_filter_all_others(page):
    async def use(tab: Tab) -> None:
        await draw_all(tab)
        chosen = "{ points: [3, 4, 5].map(customdata => ({ customdata })) }"
        await tab.ask(f"document.getElementById('cost-chart').emit('plotly_selected', {chosen})")
        assert await tab.ask("document.getElementById('filter-count').textContent") == "3 of 60 trials are shown."
        await tab.ask("document.getElementById('filter-reset').click()")
        await asyncio.sleep(0.1)
        await tab.ask("document.getElementById('parallel-chart').scrollIntoView({ behavior: 'instant' })")
        await tab.wait_for("!!document.getElementById('parallel-chart').data")
        last = "document.getElementById('parallel-chart').data[0].dimensions.length - 1"
        await tab.ask(f"void Plotly.restyle('parallel-chart', `dimensions[${{{last}}}].constraintrange`, [[[0.5, 1]]])")
        better = await tab.ask("T.score.filter(score => score >= 0.5).length")
        assert 0 < better < 60
        await tab.wait_for(f"document.getElementById('filter-count').textContent === '{better} of 60 trials are shown.'")
        assert tab.problems == []

    visit(page, use)
