"""The table of all fields of the configuration: docs/fields.md, and what `birdclef fields` prints."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from birdclef_core.augment_config import NoiseGroup
from birdclef_core.config import ModelConfig, StageConfig
from birdclef_core.errors import InputError
from sweeps.search.names import ALL_NOISE, ANY_SOURCE, MODEL, NOISE, SOURCES, suggestion

_KINDS = {int: "whole number", float: "number", bool: "true or false", str: "text", NoneType: "none"}
_UNITS = {
    r"prob$|drop_rate$|drop_path_rate$|dropout$|smoothing$|secondary_target$|depth$|ema_decay$|layer_decay$|share$|threshold$|margin$|alpha$": "share, 0 to 1",
    r"_s(_|$)": "seconds",
    r"_hz$": "Hz",
    r"_db(_|$)": "dB",
    r"semitones$": "semitones",
    r"frames$": "frames",
    r"num_mels$|bins$": "mel bins",
    r"n_fft$|hop_length$": "samples",
    r"epochs$|thaw_every$": "epochs",
    r"blocks$": "groups of layers",
    r"clip_candidates$": "places",
    r"^sources$": "share of clips",
    r"evaluation_batch_size$": "windows",
    r"batch_size$|clips_per_epoch$": "clips",
    r"masks$": "masks",
    r"head_hidden$": "units",
}
"""What a part of a number's name says of its unit; the first one that fits holds."""
_HEAD = """# Fields

<!-- Made by `birdclef fields`. Do not edit: change the docstrings of the fields, and make it again with `birdclef fields > docs/fields.md`. -->

Every setting of a model and of a stage, with the name that a [search](searches.md), its conditions and `--set` take.
"""
_SECTIONS = {
    MODEL: (
        "Model",
        "All stages of a trial have the same model, so a field of the model matters from the first stage on, and two of its values share no "
        "stage. `--set` takes these names also without `model.`.",
    ),
    "every": (
        "Stage",
        "In place of `every`, which stands for all stages, there may be the name of a stage, or a group: `train` stands for the stage of this name and "
        "for all whose names begin with `train_`. A field matters from the first of these stages on. In place of `*`, which stands for all groups of noise, there may be the number of "
        "a group, from 0, or its source. `--set` takes these names also without `every.`. What has the default of the recipe is set by every recipe.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class FieldRow:
    """A field of the configuration."""

    name: str
    """Its name in a search, for the model or for every stage."""
    kind: str
    """What values it takes."""
    unit: str
    """What a number counts or is measured in; empty for one without a unit, and for what is no number."""
    default: str
    """Its default as it is written in Python; empty when it has none."""
    meaning: str
    """Its docstring, in one line."""
    matters_from: str
    """The stage from which on its value matters."""


def field_rows() -> Iterator[FieldRow]:
    """Yield every field of a model and of a stage, in the order of the configuration."""
    yield from _rows(ModelConfig, f"{MODEL}.")
    yield from _rows(StageConfig, "every.")


def fields_page(word: str = "") -> str:
    """Return the table of all fields as a page of Markdown, or of those whose names contain a word.

    Raises InputError, with the nearest name, when there are none.
    """
    rows = [row for row in field_rows() if word in row.name]
    if not rows:
        raise InputError(f"No name of a field contains {word!r}{suggestion(word)}")
    parts = [_HEAD]
    for group, (title, text) in _SECTIONS.items():
        if found := [row for row in rows if row.name.startswith(f"{group}.")]:
            lines = [
                "| name | value | unit | default | matters from | meaning |",
                "|---|---|---|---|---|---|",
                *map(_line, found),
            ]
            parts.append("\n".join([f"## {title}", "", text, "", *lines, ""]))
    return "\n".join(parts)


def _line(row: FieldRow) -> str:
    default = f"`{row.default}`" if row.default else "of the recipe"
    cells = (f"`{row.name}`", row.kind, row.unit, default, row.matters_from, row.meaning)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _rows(config: type, prefix: str) -> Iterator[FieldRow]:
    texts = _docstrings(config)
    for item in fields(config):
        if isinstance(item.type, type) and is_dataclass(item.type):
            yield from _rows(item.type, f"{prefix}{item.name}.")
        elif item.name == NOISE:
            yield from _rows(NoiseGroup, f"{prefix}{NOISE}.{ALL_NOISE}.")
        else:
            is_shares = item.name == SOURCES
            yield FieldRow(
                name=f"{prefix}{item.name}.{ANY_SOURCE}" if is_shares else f"{prefix}{item.name}",
                kind=(kind := _kind(float if is_shares else item.type)),
                unit=_unit(item.name) if "number" in kind else "",
                default="0.0" if is_shares else _default(item),
                meaning=" ".join(texts.get(item.name, "").split()),
                matters_from=_matters_from(prefix, item),
            )


def _kind(hint: Any) -> str:
    if isinstance(hint, UnionType):
        return " or ".join(_kind(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(hint))
    return _KINDS[hint]


def _unit(name: str) -> str:
    """The unit that the name of a number says: names carry their units."""
    return next((unit for pattern, unit in _UNITS.items() if re.search(pattern, name)), "")


def _matters_from(prefix: str, item: Field[Any]) -> str:
    if prefix.startswith(MODEL):
        return "the first stage"
    if item.name == "name":
        return "cannot be set"
    return "changes no result: can be set and not searched" if item.metadata.get("runtime") else "the stage"


def _default(item: Field[Any]) -> str:
    return "" if item.default is MISSING else str(item.default)


@cache
def _docstrings(config: type) -> dict[str, str]:
    """The text under each field of a dataclass, by the field's name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for node, after in zip(body.body, body.body[1:], strict=False):
        match node, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found
