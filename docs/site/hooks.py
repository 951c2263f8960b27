"""Puts pages that lie elsewhere in the repository on the site, and notebooks as pages, and lets links lead to them: nothing is copied."""

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "mlflow/README.md": "tracking_server.md",
    "sweeps/cluster/README.md": "clusters.md",
}
"""Pages of the repository, and what they are called on the site."""
LINK = re.compile(r"(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere, and a page in place of each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
        files.append(File.generated(config, _as_page(file.src_uri), content=notebook_page(file.content_string)))
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links between files of the repository turned into links between pages of the site."""
    return site_links(markdown, page.file.src_uri)


def site_links(markdown: str, name: str) -> str:
    """Return the text of the page of that name on the site, with links to pages of the site."""
    source = {there: here for here, there in ELSEWHERE.items()}.get(name, f"docs/{name}")  # a notebook lies where its page does

    def on_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        target = _as_page(ELSEWHERE.get(path, path.removeprefix("docs/")))
        return f"{link[1]}{posixpath.relpath(target, posixpath.dirname(name) or '.')}{link[3] or ''}{link[4]}"

    return LINK.sub(on_site, markdown)


def _as_page(path: str) -> str:
    return path.removesuffix(".ipynb") + ".md" if path.endswith(".ipynb") else path


def notebook_page(notebook: str) -> str:
    """Return the Markdown of a notebook, given as the JSON of its file: text, code, and the output that is kept in it."""
    return "\n\n".join(part for cell in json.loads(notebook)["cells"] for part in _parts(cell)) + "\n"


def _parts(cell: Mapping[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![What the cell draws](data:image/png;base64,{''.join(''.join(data['image/png']).split())})"
        elif "<table" in (html := "".join(data.get("text/html", ""))):
            table = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL).replace(' border="1" class="dataframe"', "")
            yield "\n".join(line for line in table.splitlines() if line.strip())
        elif text := "".join(output.get("text", data.get("text/plain", ""))):
            yield f"```text\n{text.rstrip()}\n```"
