"""What was seen in the data and what it means for training, so that nothing is dropped or changed in silence."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from birdclef_core.errors import DataError

Level = Literal["loses", "note"]
"""loses: recordings or labels are lost to training, or scores cannot be trusted. note: worth knowing."""

LEVELS: tuple[Level, ...] = get_args(Level)

_NUM_EXAMPLES = 5
_FORMS = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")


@dataclass(frozen=True)
class Finding:
    """One kind of fault that was found in the data, and how often."""

    kind: str
    """One word for scripts, such as `missing`."""
    level: Level
    count: int
    """Number of cases."""
    fault: str
    """What is the matter, to be read after the count: `recordings have no audio`."""
    meaning: str
    """What this does to training, and what to do about it."""
    examples: tuple[str, ...] = ()
    """The first few cases."""

    @classmethod
    def of(cls, kind: str, fault: str, cases: Iterable[str], meaning: str, *, level: Level = "loses") -> "Finding":
        """Return a finding that counts `cases` and keeps the first few as examples.

        `fault` has both forms of each word that depends on the count: `[recording has|recordings have] no audio`.
        """
        listed = [str(case) for case in cases]
        return cls(kind, level, len(listed), inflect(fault, len(listed)), meaning, tuple(listed[:_NUM_EXAMPLES]))

    @classmethod
    def restore(cls, values: Mapping[str, Any]) -> "Finding":
        """Return the finding that `as_json` wrote. Raises ValueError when the values are of another version of the code."""
        if set(values) != {item.name for item in fields(cls)}:
            raise ValueError(f"a finding cannot have the fields {', '.join(map(str, values))}")
        return cls(**{**values, "examples": tuple(values["examples"])})

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {**asdict(self), "examples": list(self.examples)}

    def describe(self) -> str:
        """Return the finding as text: how often, what is the matter, what it means, and examples."""
        return f"{self.summary()} {self.shown_examples()}".rstrip()

    def summary(self) -> str:
        """Return the text without examples, for pages that show these apart."""
        return f"{self.count:,} {self.fault}: {self.meaning}"

    def shown_examples(self) -> str:
        """Return the examples as a sentence, or an empty text when there are none."""
        if not self.examples:
            return ""
        more = self.count - len(self.examples)
        return f"{'Example' if self.count == 1 else 'Examples'}: {'; '.join(self.examples).rstrip('.')}{f'; and {more:,} more' if more else ''}."


def inflect(text: str, count: int) -> str:
    """Return `text` with the first of `[one|many]` where `count` is 1, else the second."""
    return _FORMS.sub(lambda found: found[1 if count == 1 else 2], text)


def settle_unusable(
    reasons: Mapping[str, str], *, total: int, max_share: float, kind: str, files: str, csv_path: Path | None = None
) -> tuple[Finding, ...]:
    """Count and name files that cannot be used, and refuse to go on when there are too many.

    `reasons` maps a file to what is wrong with it, `total` is the number of files that were looked at, `kind` the finding's kind,
    `files` what they are in both forms, such as `[recording|recordings]`. Writes `csv_path` (path, reason) when it is given and
    there is something to list. Raises DataError when more than `max_share` of the files are unusable.
    """
    if not reasons:
        return ()
    listed = _list_reasons(reasons, csv_path) if csv_path else ""
    cases = [f"{path}: {reason}" for path, reason in reasons.items()]
    if len(reasons) > max_share * total:
        raise DataError(
            f"At most {max_share:.0%} of the {inflect(files, 2)} may be unusable, but {len(reasons)} of {total} are, "
            f"such as {cases[0]}.{listed} Repair them, or allow a larger share."
        )
    return (Finding.of(kind, f"{files} cannot be used", cases, f"left out of training and scoring.{listed}"),)


def _list_reasons(reasons: Mapping[str, str], csv_path: Path) -> str:
    table = pd.DataFrame({"path": list(reasons), "reason": list(reasons.values())})
    try:
        csv_path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(csv_path, index=False, errors="backslashreplace")
    except OSError as error:
        return f" They could not be listed in {csv_path}: {error.strerror}."
    return f" All are listed in {csv_path}."
