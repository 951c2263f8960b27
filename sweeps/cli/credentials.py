"""Takes the user and the password out of a tracking server's URL on the command line, where other people and Ray can read them."""

import os
import sys
from collections.abc import MutableMapping, Sequence
from urllib.parse import unquote

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Environment variables in which MLflow's client looks for them."""


def command_line(arguments: Sequence[str] | None) -> list[str]:
    """Return the arguments of a command without user and password in URLs, which are in the environment afterwards.

    None: the arguments of this process. If they have a password, the process starts again without it: the list of processes shows
    the arguments of everybody, and Ray keeps those of a driver.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    hidden = without_credentials(given, os.environ)
    if arguments is None and hidden != given:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(given)], *hidden])
    return hidden


def without_credentials(arguments: Sequence[str], environment: MutableMapping[str, str]) -> list[str]:
    """Return arguments without user and password in `http(s)://USER:PASSWORD@HOST`; they go to `environment`."""
    hidden = []
    for argument in arguments:
        before, scheme, rest = argument.partition("://")
        user_info, at, host = rest.rpartition("@")
        if at and before.removeprefix("--tracking-uri=") in ("http", "https"):
            user, colon, password = user_info.partition(":")
            environment[USER] = unquote(user)
            if colon:
                environment[PASSWORD] = unquote(password)
            argument = f"{before}{scheme}{host}"
        hidden.append(argument)
    return hidden
