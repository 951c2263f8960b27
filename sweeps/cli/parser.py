"""The parser of both command lines: what every command takes (--options, --verbose, --quiet), and what a shell completes."""

import argparse
import difflib
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from sweeps.cli.credentials import without_credentials

OPTIONS_FLAG = "--options"
COMPLETES = "_ARGCOMPLETE"
"""An environment variable that is there when a shell asks for completions."""
SHELLS = ("bash", "zsh")
_NOT_IN_A_FILE = ("help", "version", "options", "verbose", "quiet")


class Parser(argparse.ArgumentParser):
    """A parser whose commands may take a TOML file of options, which count as if they stood before those of the command line."""

    def add_options_flag(self) -> None:
        """Let the command take `--options FILE`."""
        self.add_argument(
            OPTIONS_FLAG,
            action="append",
            type=Path,
            metavar="FILE",
            help="a TOML file with options by their long names, such as samples = 64; those of the command line go before them",
        )

    def add_quiet_flag(self) -> None:
        """Let the command take `--quiet`: a command that shows how far it is."""
        self.add_argument(
            "-q",
            "--quiet",
            action="store_true",
            help="show nothing while it works but problems; the result is printed all the same",
        )

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse arguments as argparse does, after those of the files that `--options` names. Sub-commands come through here too."""
        given = sys.argv[1:] if args is None else list(args)
        if OPTIONS_FLAG in self._option_string_actions and COMPLETES not in os.environ:
            files = [word for file in self._option_files(given) for word in self._words_of(file)]
            given = [*without_credentials(files, os.environ), *given]
        return super().parse_known_args(given, namespace)

    def leaves(self) -> Iterator["Parser"]:
        """Yield the parsers of all commands that have no sub-commands."""
        inner = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        if not inner:
            yield self
        for action in inner:
            for parser in action.choices.values():
                yield from parser.leaves()

    def _option_files(self, given: Sequence[str]) -> list[Path]:
        """The files that `--options` names among these arguments; `--options` without one is left to argparse."""
        pairs = zip(given, [*given, ""][1:], strict=True)
        named = [word.partition("=")[2] if "=" in word else after for word, after in pairs if _is_options_flag(word)]
        return [Path(name) for name in named if name]

    def _words_of(self, file: Path) -> list[str]:
        """The options of a file as words of a command line. Ends the program when the file has anything that the command does not take."""
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            self.error(f"{OPTIONS_FLAG} {file} cannot be read: {error}")
        except tomllib.TOMLDecodeError as error:
            self.error(f"{OPTIONS_FLAG} {file} is not TOML: {error}")
        return [word for key, value in values.items() for word in self._words(file, key, value)]

    def _words(self, file: Path, key: str, value: Any) -> list[str]:
        known = {flag[2:]: action for flag, action in self._option_string_actions.items() if flag.startswith("--")}
        known = {name: action for name, action in known.items() if name not in _NOT_IN_A_FILE}
        name = key.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            self.error(f"{file}: this command has no option {key!r}.{f' Perhaps {near[0]!r} is meant.' if near else ''}")
        action = known[name]

        def refuse(wanted: str) -> NoReturn:
            self.error(f"{file}: {key} must be {wanted}, but got {value!r}.")

        if action.nargs == 0:
            if not isinstance(value, bool):
                refuse("true or false")
            return [f"--{name}"] if value else []
        if isinstance(action, argparse._AppendAction):
            items = [f"{inner}={_text(item)}" for inner, item in _flat(value)] if isinstance(value, Mapping) else value
            if not isinstance(items, list):
                refuse("a list or a table")
            return [f"--{name}={_text(item)}" for item in items]
        if isinstance(value, (bool, list, Mapping)):
            refuse("one value")
        text = str(value)
        try:
            self._check_value(action, self._get_value(action, text))
        except argparse.ArgumentError as error:
            self.error(f"{file}: {key} = {value!r}: {error.message}")
        return [f"--{name}={text}"]


def _is_options_flag(word: str) -> bool:
    """Whether a word is the flag, perhaps shortened, as argparse allows."""
    name = word.partition("=")[0]
    return len(name) >= len("--op") and OPTIONS_FLAG.startswith(name)


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a table by their whole names: TOML reads `train_ce.epochs = 2` as a table in a table."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _text(value: object) -> str:
    """A value as `--set` reads it: as in Python, but text as it is."""
    return value if isinstance(value, str) else repr(value)


def add_version_flag(parser: Parser) -> None:
    """Let a program take `--version`."""
    parser.add_argument("--version", action="version", version=f"birdclef-sweeps {version('birdclef-sweeps')}")


def with_verbose_flag(parser: Parser) -> Parser:
    """Let every command of a parser take `--verbose`, and return the parser."""
    for leaf in parser.leaves():
        if "--verbose" not in leaf._option_string_actions:
            leaf.add_argument(
                "-v", "--verbose", action="store_true", help="with an error, show where in the code it happened, for a bug report"
            )
    return parser


def complete(make_parser: Callable[[], Parser]) -> None:
    """Answer a shell that asks what may follow, and end the program; do nothing otherwise."""
    if COMPLETES not in os.environ:
        return
    import argcomplete

    parser = make_parser()
    for leaf in parser.leaves():
        for action in leaf._actions:
            if action.metavar in ("SWEEP", "REF") or action.dest in ("resume", "extend", "sweep"):
                action.completer = _sweeps  # type: ignore[attr-defined]
            elif action.dest == "search":
                action.completer = _searches  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def shell_code(shell: str, program: str) -> str:
    """Return the code by which a shell (bash or zsh) asks a program for completions."""
    from argcomplete.shell_integration import shellcode

    return shellcode([program], shell=shell)


def _sweeps(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Names of sweeps in a local storage."""
    from sweeps.options import DEFAULT_STORAGE

    folder = Path(getattr(parsed_args, "storage", None) or DEFAULT_STORAGE)
    return sorted(record.parent.name for record in folder.glob(f"{prefix}*/sweep.json"))


def _searches(prefix: str, **_: object) -> list[str]:
    """Searches that come with the project, and search files."""
    from argcomplete.completers import FilesCompleter

    own = sorted(path.stem for path in (Path(__file__).parents[1] / "searches").glob("[a-z]*.py"))
    return [name for name in own if name.startswith(prefix)] + list(FilesCompleter(("py",))(prefix))
