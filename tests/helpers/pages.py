"""Reads a page as a browser and a screen reader would, and checks what every page must keep to."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from birdclef_core.html import page as pages

HOSTILE = "<script>alert(1)</script> & \"'"
"""A name that would do harm, or be shown wrongly, if it were not escaped everywhere."""
MATHEMATICS = "$\\frac{1$"
"""A name that matplotlib refuses if it reads it as mathematics."""

_VOID = {"meta", "link", "br", "img", "hr"}
_TEMPLATES = Path(pages.__file__).parent / "templates"
_OWN_SCRIPTS = [(_TEMPLATES / name).read_text().strip() for name in ("sort.js", "sweep_report.js")]


class Page(HTMLParser):
    """A page's text and elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self._parts: dict[str, list[str]] = {"text": [], "script": [], "style": [], "values": []}
        self.feed(source)
        self.close()
        assert self._open == [], "every element is closed, in order"

    @property
    def text(self) -> str:
        """What is read, with single spaces."""
        return " ".join("".join(self._parts["text"]).split())

    @property
    def values(self) -> dict[str, Any]:
        """What the page's script draws."""
        return json.loads(self._parts["values"][0])

    @property
    def sections(self) -> list[str]:
        return [values["id"] or "" for _, values in self.all("section")]

    @property
    def labels(self) -> list[str]:
        """What the pictures show, for those who cannot see them."""
        return [values["aria-label"] or "" for _, values in self.all("svg")]

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None]]]:
        return [element for element in self.elements if element[0] in tags]

    def check(self) -> "Page":
        """Checks that the page stands alone, that nothing in it runs but its own script, and that it can be used without a mouse."""
        addresses = [
            values[name] or "" for _, values in self.elements for name in ("src", "href", "xlink:href") if name in values
        ]
        ids = Counter(values["id"] for _, values in self.elements if "id" in values)
        assert all(re.match(r"#|data:|(\.\./)+[\w./-]+/card\.html$", address) for address in addresses)
        assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)
        assert [name for name, number in ids.items() if number > 1] == []
        assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest", self.source)
        assert [script.strip() for script in self._parts["script"]] in ([], _OWN_SCRIPTS[:1], _OWN_SCRIPTS)
        assert not [name for _, values in self.elements for name in values if name.startswith("on")]
        assert self.all("html")[0][1]["lang"] == "en" and self.all("title") and len(self.all("h1")) == 1
        assert any(values.get("name") == "viewport" for _, values in self.all("meta"))
        assert all(values.get("role") == "img" and values.get("aria-label") for _, values in self.all("svg"))
        assert all(values.get("scope") for _, values in self.all("th"))
        scrolling = [values for _, values in self.elements if set((values.get("class") or "").split()) & {"wide", "scroll"}]
        assert all(values.get("tabindex") == "0" and values.get("aria-label") for values in scrolling)
        return self

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        self._parts["text"].append(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._parts["text"].append(" ")

    def handle_data(self, data: str) -> None:
        inside = self._open[-1] if self._open else ""
        if inside == "script" and (self.elements[-1][1].get("type") or "text/javascript") != "text/javascript":
            inside = "values"  # it is not run
        self._parts[inside if inside in ("script", "style", "values") else "text"].append(data)
