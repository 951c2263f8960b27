"""What the commands share: reading values, and turning errors into one line and an exit code."""

import argparse
import ast
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from birdclef_core.errors import BirdclefError, InputError
from sweeps.wording import parse_bytes

EXIT_INTERRUPTED = 130


def parse_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs; a value is read as a Python literal where it is one, else as text. Raises InputError without `=`."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes KEY=VALUE, but got {pair!r}.")
        try:
            settings[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[key] = {"true": True, "false": False}.get(text.lower(), text)
    return settings


def bytes_argument(text: str) -> int:
    """For argparse: see `parse_bytes`."""
    try:
        return parse_bytes(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 200G") from None


def guarded(command: Callable[[], int]) -> int:
    """Runs a command; an error of ours is one message on stderr and its exit code, not a traceback."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever reads has read enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BirdclefError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped. What was done is kept: the same command goes on from there.", file=sys.stderr)
        return EXIT_INTERRUPTED
