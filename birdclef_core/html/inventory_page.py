"""The page around a report's pictures: HTML, style and the few lines of script that sort a table. Asks nothing of the network."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

_STYLE = """
:root { --font: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --page: #f6f6f3; --panel: #ffffff; --ink: #1c2226; --muted: #5d6870; --line: #dfe2de; --first: #1b786d; --second: #b96518;
  --bar: #8cc5bb; --warn: #a33c20; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root {
  --page: #121619; --panel: #1a1f23; --ink: #e7ebed; --muted: #9ba7af; --line: #30383e; --first: #4fbcab; --second: #e59a52;
  --bar: #2f7a6f; --warn: #f0896b; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 52px 0 8px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 28px 0 6px; }
p { margin: 0 0 12px; max-width: 74ch; }
.light { font-weight: 400; font-size: 14px; }
.finding p { margin: 2px 0 4px; }
.quiet, figcaption { color: var(--muted); }
figcaption { font-size: 14px; padding-top: 8px; max-width: 84ch; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 20px 0 0; font-size: 14px; }
a { color: var(--first); text-decoration: none; }
a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 8px; }
.tile { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.tile b { display: block; font-size: 25px; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13.5px; }
figure { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; margin: 14px 0; padding: 14px 16px; }
figure svg { display: block; width: 100%; height: auto; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 14px; align-items: start; }
.pair > * { min-width: 0; }
.pair figure { margin: 0; }
.pair { margin: 14px 0; }
.finding { border-left: 3px solid var(--warn); padding: 2px 0 2px 14px; margin: 12px 0; max-width: 84ch; }
.finding code { color: var(--muted); }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.scroll { max-height: 560px; overflow: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { position: sticky; top: 0; background: var(--panel); font-weight: 600; color: var(--muted); box-shadow: inset 0 -1px var(--line); }
th.sortable { cursor: pointer; user-select: none; }
tr:last-child td { border-bottom: 0; }
td.number, th.number { text-align: right; }
td.bar { background: linear-gradient(var(--bar), var(--bar)) no-repeat right 12px bottom 3px / calc(var(--share) * .8) 3px; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--first); margin-bottom: 10px; }
.codes { columns: 5 130px; font-size: 13px; color: var(--muted); margin: 8px 0 0; padding: 0; list-style: none; }
@media (max-width: 760px) { .pair { grid-template-columns: 1fr; } main { padding: 24px 14px 60px; }
  figure { overflow-x: auto; } figure svg { min-width: 640px; } .pair figure svg { min-width: 0; } }
@media print { body { background: #fff; } .scroll { max-height: none; } figure, .tile { break-inside: avoid; } nav { display: none; } }
"""

_SCRIPT = """
for (const head of document.querySelectorAll('th.sortable')) head.onclick = () => {
  const table = head.closest('table'), body = table.tBodies[0], column = head.cellIndex;
  const down = head.dataset.order !== 'down';
  const value = row => { const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
    return text === '' || isNaN(text) ? text : Number(text); };
  for (const other of table.tHead.rows[0].cells) delete other.dataset.order;
  head.dataset.order = down ? 'down' : 'up';
  const rows = [...body.rows].sort((a, b) => { const x = value(a), y = value(b);
    return (typeof x === 'number' && typeof y === 'number' ? x - y : String(x).localeCompare(String(y))) * (down ? -1 : 1); });
  body.append(...rows);
};
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with its place in the line of links."""

    key: str
    title: str
    body: str


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers are right-aligned, and `bar` draws them as shares of the largest."""

    title: str
    values: Sequence[object]
    number: bool = False
    bar: bool = False


def page(title: str, subtitle: str, tiles: Iterable[tuple[str, str]], sections: Sequence[Section]) -> str:
    """The whole page. `title`, `subtitle` and tiles (value, what it is) are text, bodies of sections are HTML."""
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in sections)
    shown = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in tiles)
    bodies = "".join(f'<section id="{item.key}"><h2>{escape(item.title)}</h2>{item.body}</section>' for item in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_STYLE}</style></head><body><main>'
        f'<h1>{escape(title)}</h1><p class="quiet">{escape(subtitle)}</p><nav>{links}</nav><div class="tiles">{shown}</div>'
        f"{bodies}</main><script>{_SCRIPT}</script></body></html>\n"
    )


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def heading(text: str, aside: str) -> str:
    """A heading within a section."""
    return f'<h3>{escape(text)} <span class="quiet light">{escape(aside)}</span></h3>'


def finding_box(what: str, meaning: str, examples: Sequence[str]) -> str:
    """Something to know, what it means, and cases of it."""
    listed = "".join(f"<div><code>{escape(example)}</code></div>" for example in examples)
    return f'<div class="finding"><b>{escape(what)}</b><p>{escape(meaning)}</p>{listed}</div>'


def figure(svg: str, caption: str = "") -> str:
    return f"<figure>{svg}{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}</figure>"


def pair(left: str, right: str) -> str:
    """Two parts beside each other, below each other where there is no room."""
    return f'<div class="pair"><div>{left}</div><div>{right}</div></div>'


def folded(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def codes(names: Iterable[str]) -> str:
    """A list of species codes in columns."""
    return f'<ul class="codes">{"".join(f"<li>{escape(name)}</li>" for name in names)}</ul>'


def table(columns: Sequence[Column], *, sortable: bool = False) -> str:
    """A table that scrolls when it is long."""
    largest = [max((float(str(value)) for value in column.values), default=0.0) if column.bar else 0.0 for column in columns]
    heads = "".join(_head(column, sortable) for column in columns)
    rows = zip(*(column.values for column in columns), strict=True)
    cells = "".join(
        f"<tr>{''.join(_cell(column, value, top) for column, value, top in zip(columns, row, largest, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table></div>'


def _head(column: Column, sortable: bool) -> str:
    kinds = " ".join(name for name, wanted in (("number", column.number), ("sortable", sortable)) if wanted)
    return f'<th class="{kinds}">{escape(column.title)}</th>'


def _cell(column: Column, value: object, top: float) -> str:
    if not column.number:
        return f"<td>{escape(str(value))}</td>"
    number = float(str(value))
    shown = f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.1f}"
    share = f' style="--share: {number / top:.1%}"' if column.bar and top else ""
    return f'<td class="number{" bar" if column.bar else ""}" data-value="{number:g}"{share}>{shown}</td>'
