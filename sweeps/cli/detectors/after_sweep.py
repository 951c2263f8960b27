"""What `tune_main.py` does when a sweep has ended: with `--then submit` it runs `birdclef ensemble` and `birdclef submit`, with `--refit`
`birdclef refit`, and says so."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from birdclef_core.errors import InputError
from sweeps.cli.detectors.ensemble import add_ensemble_command
from sweeps.cli.detectors.refit import add_refit_command
from sweeps.cli.detectors.submit import add_submit_command, duration_argument
from sweeps.cli.parser import Parser

THEN_FLAGS = ("soundscapes", "sample", "time_limit", "untouched", "out")
"""Options that only `--then` uses."""


def add_then_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is done after a sweep."""
    group = parser.add_argument_group("when the sweep has ended")
    group.add_argument(
        "--then",
        choices=("submit",),
        help="choose an ensemble of the sweep's models and write a submission with it, as birdclef ensemble and birdclef submit do",
    )
    group.add_argument(
        "--refit",
        action="store_true",
        help="train the best configuration once more, on all recordings, as birdclef refit does: the result has no score of its own",
    )
    group.add_argument(
        "--soundscapes",
        type=Path,
        metavar="DIR",
        help="folder with the soundscapes of the submission (default: the labelled ones of the data folder; these are also scored)",
    )
    group.add_argument("--sample", type=Path, metavar="CSV", help="sample submission: its rows and columns are written")
    group.add_argument(
        "--time-limit",
        metavar="TIME",
        help="such as 120m: the submission is written within this time, with fewer models if need be",
    )
    group.add_argument(
        "--untouched",
        type=Path,
        metavar="DIR",
        help="a data folder with labelled soundscapes that the sweep does not see: the ensemble is scored on them once",
    )
    group.add_argument("-o", "--out", type=Path, metavar="CSV", help="the submission (default submission.csv)")


@dataclass(frozen=True, kw_only=True)
class Afterwards:
    """What is to be done with the models of a sweep."""

    submits: bool
    """Whether a submission is written."""
    refits: bool
    """Whether the best configuration is trained on all recordings."""
    soundscapes: Path | None
    """None: the labelled soundscapes of the data folder."""
    sample: Path | None
    time_limit: str | None
    untouched: Path | None
    """A data folder with labelled soundscapes that the sweep does not see."""
    out: Path

    @classmethod
    def of(cls, arguments: argparse.Namespace, data: Path | None) -> "Afterwards | None":
        """Return what the arguments ask for; None for nothing. `data`: the data folder of the sweep where it is known and there already.

        What cannot work is refused now and not when the sweep has ended. Raises InputError for an option without `--then`, a time that
        is none, a file or folder that is not there, and where there are no soundscapes.
        """
        from birdclef_core.data.soundscapes import find_soundscapes

        given = [name for name in THEN_FLAGS if getattr(arguments, name) is not None]
        if arguments.then is None and given:
            raise InputError(f"--{given[0].replace('_', '-')} is for the submission after a sweep: give it with --then submit.")
        if arguments.then is None and not arguments.refit:
            return None
        if arguments.plan:
            flag = "--then" if arguments.then else "--refit"
            raise InputError(f"{flag} is for a sweep that runs, but --plan trains nothing.")
        if arguments.time_limit is not None:
            try:
                duration_argument(arguments.time_limit)
            except argparse.ArgumentTypeError as error:
                raise InputError(f"--time-limit: {error}.") from None
        if arguments.soundscapes is not None and not arguments.soundscapes.is_dir():
            raise InputError(f"--soundscapes must be a folder, but {arguments.soundscapes} is none.")
        if arguments.sample is not None and not arguments.sample.is_file():
            raise InputError(f"--sample must be a file, but {arguments.sample} is none.")
        if arguments.untouched is not None and find_soundscapes(arguments.untouched) is None:
            raise InputError(f"--untouched must be a data folder with labelled soundscapes, but {arguments.untouched} is none.")
        out = arguments.out or Path("submission.csv")
        if out.is_dir():
            raise InputError(f"-o must be a file such as submission.csv, but {out} is a folder.")
        wish = cls(
            submits=arguments.then is not None,
            refits=arguments.refit,
            soundscapes=arguments.soundscapes,
            sample=arguments.sample,
            time_limit=arguments.time_limit,
            untouched=arguments.untouched,
            out=out,
        )
        if wish.submits and data is not None and data.is_dir() and _is_plain(data):
            wish.places(data)
            wish.require_untouched(data)
        return wish

    def places(self, data: Path) -> tuple[Path, Path | None]:
        """Return the folder with the soundscapes, and the data folder if it has labels of these.

        Raises InputError when no soundscapes are named and the data folder has no labelled ones.
        """
        from birdclef_core.data.soundscapes import find_soundscapes

        labelled = find_soundscapes(data)
        if self.soundscapes is None:
            if labelled is None:
                raise InputError(
                    f"The soundscapes of the submission must be named, as {data} has no labelled ones: --soundscapes DIR."
                )
            return labelled[1], data
        is_same = labelled is not None and labelled[1].resolve() == self.soundscapes.resolve()
        return self.soundscapes, data if is_same else None

    def require_untouched(self, data: Path) -> None:
        """Raise InputError when soundscapes that are to be untouched are also in the data folder: after the sweep it would be too late."""
        if self.untouched is None:
            return
        from birdclef_core.data.soundscapes import load_soundscapes
        from sweeps.deploy.untouched import Seen, read_untouched

        soundscapes = load_soundscapes(data)
        read_untouched(self.untouched, Seen([] if soundscapes is None else [soundscapes], []))

    def commands(self, sweep: str, storage: str, cache_dir: str, data: Path) -> list[list[str]]:
        """Return the commands that do it with a sweep."""
        refit = ["refit", sweep, "--storage", storage, "--cache-dir", cache_dir]
        return [
            *(self._of_submission(sweep, storage, cache_dir, data) if self.submits else []),
            *([refit] if self.refits else []),
        ]

    def _of_submission(self, sweep: str, storage: str, cache_dir: str, data: Path) -> list[list[str]]:
        soundscapes, labels = self.places(data)
        ensemble = self.out.parent / f"{sweep}-ensemble"
        first = ["ensemble", sweep, "--storage", storage, "--cache-dir", cache_dir, "-o", str(ensemble)]
        first += [] if self.untouched is None else ["--untouched", str(self.untouched)]
        then = ["submit", "--model", str(ensemble / "ensemble.json"), "--storage", storage, "--soundscapes", str(soundscapes)]
        for flag, value in (("--sample", self.sample), ("--time-limit", self.time_limit), ("--labels", labels)):
            then += [] if value is None else [flag, str(value)]
        return [first, [*then, "-o", str(self.out)]]


def _is_plain(data: Path) -> bool:
    """Whether a data folder is no packed set, which nobody has looked into before the sweep fetches it."""
    from birdclef_core.data.packed.index import is_packed

    return not is_packed(str(data))


def run_commands(commands: Sequence[Sequence[str]]) -> int:
    """Run commands of `birdclef` one after the other until one fails, saying each. Returns the exit code of the last."""
    parser = Parser(prog="birdclef")
    known = parser.add_subparsers(required=True)
    add_ensemble_command(known)
    add_submit_command(known)
    add_refit_command(known)
    code = 0
    for command in commands:
        print(f"\n$ birdclef {shlex.join(command)}", flush=True)
        parsed = parser.parse_args(command)
        code = parsed.run(parsed)
        if code:
            break
    return code
