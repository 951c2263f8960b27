"""`birdclef refit`: train the best configuration of a sweep on all recordings."""

import argparse
from typing import Any

from sweeps.cli.common import add_storage_option
from sweeps.options import DEFAULT_CACHE


def add_refit_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser = commands.add_parser("refit", help="train the best configuration of a sweep once more, on all its recordings")
    parser.description = (
        "Train the stages of the best trial on all recordings, those that had validated too, on this machine. The result has no score of its own: "
        "nothing is left that could score it. Stages that are trained already are reused, and an interrupted one continues."
    )
    parser.add_argument("sweep", metavar="SWEEP[/TRIAL]", help="the sweep, or a finished trial of it (default: its best trial)")
    parser.add_argument("--data", metavar="DIR|URI", help="the data folder or packed set (default: the one that the sweep used)")
    parser.add_argument(
        "--pretrained", metavar="auto|off|PATH", help="first weights of the encoder (default: as the sweep had them)"
    )
    parser.add_argument(
        "--cache-dir", default=DEFAULT_CACHE, metavar="DIR", help=f"folder for decoded audio (default {DEFAULT_CACHE})"
    )
    add_storage_option(parser)
    parser.set_defaults(run=_refit)


def _refit(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage
    from sweeps.deploy.refit import refit

    storage = existing_storage(arguments.storage)
    done = refit(storage, arguments.sweep, arguments.data, arguments.pretrained, arguments.cache_dir, say=_say)
    print("\n".join(done.lines()))
    return 0


def _say(text: str) -> None:
    print(text, flush=True)
