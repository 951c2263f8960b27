"""Puts pages that lie elsewhere in the repository on the site, and lets links lead to them: they are read where they lie, and not copied."""

import posixpath
import re
from pathlib import Path

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
    """Add the pages that lie elsewhere."""
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links between files of the repository turned into links between pages of the site."""
    return site_links(markdown, page.file.src_uri)


def site_links(markdown: str, name: str) -> str:
    """Return the text of the page of that name on the site, with links to pages of the site."""
    source = {there: here for here, there in ELSEWHERE.items()}.get(name, f"docs/{name}")

    def on_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        target = ELSEWHERE.get(path, path.removeprefix("docs/"))
        return f"{link[1]}{posixpath.relpath(target, posixpath.dirname(name) or '.')}{link[3] or ''}{link[4]}"

    return LINK.sub(on_site, markdown)
