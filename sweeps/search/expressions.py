"""Conditions and constraints of a search: small expressions over the names of fields, kept as text and evaluated without Python's eval."""

import ast
import itertools
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from birdclef_core.errors import InputError

EXAMPLE = "train.mixing.wave_prob > 0 and train.clip_s <= 2 * pretrain.clip_s"
RECIPE = "recipe"
"""The name that stands for the name of the recipe."""

_STRING_OR_NAME = re.compile(r"""("[^"\n]*"|'[^'\n]*')|((?<![\w.])[A-Za-z_]\w*(?:(?<=\.noise)\.(?:[\w-]*\w|\*)|\.\w+)*)""")
_WORDS = {"and", "or", "not", "in", "is", "if", "else", "True", "False", "None", "min", "max", "abs", "for", "lambda"}
"""Words of Python, and the functions, which are no names of fields."""
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "abs": abs}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda value, values: value in values,
    ast.NotIn: lambda value, values: value not in values,
}


@dataclass(frozen=True)
class Expression:
    """A condition on the values of fields. Make it with `parse`."""

    text: str
    names: tuple[str, ...]
    """The names of fields that it reads, each once. `recipe` is not among them."""
    tree: ast.expr
    """Its syntax tree, in which the name number N is called `_N`."""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether the condition holds for the values of its names and of `recipe`.

        Raises InputError when it cannot be computed, such as `None > 3`.
        """
        try:
            return bool(self._value(self.tree, values))
        except (TypeError, ArithmeticError, MemoryError) as error:
            shown = ", ".join(f"{name}={values[name]!r}" for name in self.names or (RECIPE,))
            raise InputError(f"{self.text!r} cannot be computed with {shown}: {error}") from None

    def _value(self, node: ast.AST, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return values[RECIPE if name == RECIPE else self.names[int(name[1:])]]
            case ast.Tuple(elts=items) | ast.List(elts=items):
                return tuple(self._value(item, values) for item in items)
            case ast.BoolOp(op=ast.And(), values=parts):
                return all(self._value(part, values) for part in parts)
            case ast.BoolOp(values=parts):
                return any(self._value(part, values) for part in parts)
            case ast.UnaryOp(op=sign, operand=operand):
                return _OPERATORS[type(sign)](self._value(operand, values))
            case ast.BinOp(left=left, op=sign, right=right):
                return _OPERATORS[type(sign)](self._value(left, values), self._value(right, values))
            case ast.Compare(left=left, ops=signs, comparators=others):
                sides = [self._value(side, values) for side in (left, *others)]
                return all(_OPERATORS[type(sign)](*pair) for sign, pair in zip(signs, itertools.pairwise(sides), strict=True))
            case ast.Call(func=ast.Name(id=function), args=arguments):
                return _FUNCTIONS[function](*(self._value(item, values) for item in arguments))
        raise AssertionError(f"{type(node).__name__} was let in by parse")


@lru_cache(maxsize=256)
def parse(text: str) -> Expression:
    """Return the expression that a text stands for. Raises InputError for what is no condition over names, numbers and text.

    It may have the names of fields and `recipe`; numbers, text in quotes, True, False, None and tuples of these; comparisons with
    == != < <= > >= and `in`; and, or, not, brackets; + - * / // %; min, max, abs.
    """
    if not isinstance(text, str):
        raise InputError(f"A condition is a text, such as {EXAMPLE!r}, but got {text!r}.")
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        word = match[2]
        if word is None or word in _WORDS or word == RECIPE:
            return match[0]
        if word not in names:
            names.append(word)
        return f"_{names.index(word)}"

    try:
        tree = ast.parse(_STRING_OR_NAME.sub(numbered, text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"A condition must be an expression, such as {EXAMPLE!r}, but got {text!r}.") from None
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for node in ast.walk(tree):
        if not _is_allowed(node, is_function=any(node is function for function in functions)):
            raise InputError(
                f"A condition has only names of fields, numbers, text, comparisons, and, or, not, + - * / // %, min, max and abs, such "
                f"as {EXAMPLE!r}, but {text!r} has more ({type(node).__name__})."
            )
    if not names and not any(isinstance(node, ast.Name) and node.id == RECIPE for node in ast.walk(tree)):
        raise InputError(f"A condition must name a field, such as {EXAMPLE!r}, but got {text!r}.")
    return Expression(text=text, names=tuple(names), tree=tree)


def _is_allowed(node: ast.AST, *, is_function: bool) -> bool:
    match node:
        case ast.Call(args=[_, *_], keywords=[]):
            return True
        case ast.Name(id=name) if is_function:
            return name in _FUNCTIONS
        case ast.Constant(value=value):
            return value is None or isinstance(value, (bool, int, float, str))
        case ast.Name(id=name):
            return name == RECIPE or re.fullmatch(r"_\d+", name) is not None
        case ast.Tuple() | ast.List() | ast.BoolOp() | ast.UnaryOp() | ast.BinOp() | ast.Compare() | ast.Load() | ast.boolop():
            return True
    return type(node) in _OPERATORS
