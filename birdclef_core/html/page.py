"""Pages for people: one template each, with one style sheet, in one file that asks nothing of the network."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from birdclef_core.html.theme import palette_css


def render(template: str, **values: object) -> str:
    """Return the HTML page of `templates/{template}.html.j2`, filled with `values`.

    Text is escaped; only `Markup` is taken as it is. A file name that is not UTF-8 is shown with backslashes. Raises
    `jinja2.UndefinedError` when the template uses a value that is not given.
    """
    page = _environment().get_template(f"{template}.html.j2").render(values)
    return page.encode(errors="backslashreplace").decode()


def percent(share: float, digits: int = 0) -> str:
    """Return a share as text: `12%`."""
    return f"{share:.{digits}%}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["palette_css"] = palette_css()
    environment.filters["thousands"] = "{:,}".format
    environment.filters["percent"] = percent
    return environment
