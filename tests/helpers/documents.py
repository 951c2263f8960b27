"""Reads the documents: their text, and the commands in it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_COMMAND = re.compile(r"(?:^\s*!?|&& )(?:\.venv/bin/)?(python tune_main\.py|birdclef)\s+(\S.*)$")
_PLACEHOLDERS = {"MORE": "3"}
"""Words of commands that stand for numbers."""


def text_of(page: str) -> str:
    """The text of a page, which is named from the root of the repository."""
    return (ROOT / page).read_text(encoding="utf-8")


def commands_in(text: str) -> Iterator[tuple[str, list[str]]]:
    """Our commands on lines of their own: the program and its arguments."""
    for line in text.replace("\\\n", " ").splitlines():
        if found := _COMMAND.search(line):
            words = shlex.split(found[2].partition("; ")[0], comments=True)
            yield found[1], [_PLACEHOLDERS.get(word, word) for word in words]
