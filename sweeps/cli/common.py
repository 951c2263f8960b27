"""What all commands share: reading values, and turning an error into one message and an exit code."""

import argparse
import ast
import io
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from birdclef_core.config_rules import shortened
from birdclef_core.errors import BirdclefError, InputError
from sweeps.options import DEFAULT_STORAGE
from sweeps.wording import parse_bytes

EXIT_INTERRUPTED = 130
MOST_SHOWN = 20_000
"""Characters of an error that are printed: one may name a node or a file in each line, or have a value of any length in it."""


def add_storage_option(parser: argparse.ArgumentParser) -> None:
    """Add `--storage` to a command that looks for sweeps."""
    parser.add_argument(
        "--storage", default=DEFAULT_STORAGE, metavar="DIR|URI", help=f"the sweeps' --storage (default {DEFAULT_STORAGE})"
    )


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings of `key=value` pairs; a value that is not a Python literal is text.

    Raises InputError for a pair without a key or without `=`.
    """
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, but got {pair!r}.")
        try:
            settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            settings[key] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    return settings


def parse_tags(pairs: Sequence[str]) -> dict[str, str]:
    """Return the tags of `key=value` pairs. Raises InputError for a pair that is none, or a key that MLflow refuses or needs itself."""
    tags: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--tag takes KEY=VALUE, but got {pair!r}.")
        if not re.fullmatch(r"[\w./ -]{1,250}", key.strip()) or key.strip().startswith(("birdclef.", "mlflow.")):
            raise InputError(
                f"The key of a --tag must be made of letters, digits, '.', '_', '-', '/' and blanks, and not begin with 'birdclef.' or 'mlflow.', "
                f"but got {key.strip()!r}."
            )
        tags[key.strip()] = text.strip()
    return tags


def bytes_argument(text: str) -> int:
    """Read a number of bytes for argparse, as `parse_bytes` does."""
    try:
        return parse_bytes(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 200G") from None


def guarded(command: Callable[[], int], *, verbose: bool = False) -> int:
    """Run a command and return its exit code; an error of this project, or of the system, becomes one message on stderr.

    `verbose`: with a traceback before it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BirdclefError as error:
        _trace(verbose)
        print(f"Error: {shortened(str(error), MOST_SHOWN)}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # of the system: a file that is a folder or may not be read, a disk that is full
        _trace(verbose)
        print(f"Error: the system refuses a file: {shortened(str(error), MOST_SHOWN)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Finished work is kept; the same command continues from there.", file=sys.stderr)
        return EXIT_INTERRUPTED


def _trace(verbose: bool) -> None:
    if verbose:
        traceback.print_exc()
