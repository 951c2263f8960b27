"""What was seen in the data and what it means for training, so that nothing is dropped or changed in silence."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from birdclef_core.errors import DataError

_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One rule that the data broke."""

    rule: str
    """What should hold, such as `every secondary label is also a primary label`."""
    count: int
    """How often it does not."""
    meaning: str
    """What this does to training."""
    examples: tuple[str, ...]

    @classmethod
    def of(cls, rule: str, cases: Iterable[str], meaning: str) -> "Finding":
        """A finding with the number of `cases` and the first few of them."""
        listed = list(cases)
        return cls(rule, len(listed), meaning, tuple(listed[:_NUM_EXAMPLES]))


def settle_unusable(
    reasons: dict[str, str], *, total: int, max_share: float, rule: str, kind: str, csv_path: Path | None = None
) -> tuple[Finding, ...]:
    """Counts and names files that cannot be used, and refuses to go on when they are too many.

    `reasons` maps a file to what is wrong with it, `total` is the number of files looked at, `kind` what they are. Writes
    `csv_path` (path, reason) when there is one and something to say. Raises DataError when more than `max_share` of the files are
    unusable.
    """
    if not reasons:
        return ()
    listed = f" All are listed in {csv_path}." if csv_path else ""
    if csv_path:
        csv_path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"path": list(reasons), "reason": list(reasons.values())}).to_csv(csv_path, index=False)
    cases = [f"{path}: {reason}" for path, reason in reasons.items()]
    if len(reasons) > max_share * total:
        raise DataError(
            f"At most {max_share:.0%} of the {kind} may be unusable, but {len(reasons)} of {total} are, such as {cases[0]}."
            f"{listed} Mend them, or allow a larger share."
        )
    return (Finding.of(rule, cases, f"left out of training and scoring.{listed}"),)
