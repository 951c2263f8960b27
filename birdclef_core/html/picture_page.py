"""A self-contained HTML page around SVG pictures, light and dark, for plans and lineages."""

from html import escape

_STYLE = """
:root { --ink: #16181a; --muted: #667; --panel: #fff; --line: #d5d8da; --stored: #8fc9a8; --shared: #4a90c2; --own: #b9d6ea;
  --best: #e0a030; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e9ebed; --muted: #9aa3ab; --panel: #16191c; --line: #3a4047; --stored: #3f7d5c;
  --shared: #3b7cab; --own: #27485d; --best: #b07a1c; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--panel); margin: 2rem auto; max-width: 1160px;
  padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.35; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
svg .muted { fill: var(--muted); }
table { border-collapse: collapse; } td, th { padding: .15rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
td:first-child, th:first-child { text-align: left; }
i { display: inline-block; width: .9em; height: .9em; border-radius: 2px; vertical-align: -.1em; }
"""


def page(title: str, body: str) -> str:
    """The whole page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def box(x: float, y: float, width: float, height: float, *, fill: str, lines: tuple[str, ...] = (), tip: str = "") -> str:
    """A rectangle with as many lines of text as fit; `tip` shows under the mouse."""
    shape = (
        f'<g><rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="var(--{fill})" '
        f'stroke="var(--panel)"><title>{escape(tip or " ".join(lines))}</title></rect>'
    )
    for index, line in enumerate(lines[: int(max(0.0, height - 4) // 15)]):
        if len(line) * 6.3 < width - 8:
            shape += f'<text x="{x + 5:.1f}" y="{y + 15 + 15 * index:.1f}" pointer-events="none">{escape(line)}</text>'
    return shape + "</g>"


def picture(width: float, height: float, parts: list[str], label: str) -> str:
    """An SVG of parts."""
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">\n{inside}\n</svg>'
