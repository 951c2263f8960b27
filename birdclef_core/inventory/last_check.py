"""What the last `birdclef data check` of a folder found, for pages that do not decode every file themselves."""

import json
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.findings import Finding

CHECK_NAME = "check.json"


@dataclass(frozen=True)
class LastCheck:
    """The record of a check."""

    findings: tuple[Finding, ...]
    num_files: int
    refusal: str
    """Why the folder could not be trained on; empty when it could."""
    changed_at: float
    """When the record was written, in seconds since 1970."""


def read_last_check(root: Path) -> LastCheck | None:
    """Return the record of the last check that was written into the folder; None where there is none that can be read."""
    path = root / CHECK_NAME
    try:
        if not path.is_file():
            return None
        content = json.loads(path.read_text(encoding="utf-8"))
        findings = [{name: value for name, value in item.items() if name != "text"} for item in content["problems"]]
        return LastCheck(
            tuple(Finding.restore(item) for item in findings),
            int(content["num_files"]),
            str(content["refusal"]),
            path.stat().st_mtime,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # Damaged, or of another version: the page says that no check was found.
