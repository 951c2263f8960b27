"""`birdclef explain|lineage|replay|store`: what a checkpoint is, where it came from, and the store that keeps it."""

import argparse
import ast
from pathlib import Path
from typing import Any

from birdclef_core.config import STAGE_NAMES
from sweeps.options import DEFAULT_CACHE, DEFAULT_STORAGE

_REFERENCE = "the beginning of a stage id, SWEEP (its best trial), SWEEP/TRIAL (its last stage) or SWEEP/TRIAL/STAGE"


def add_stage_commands(commands: Any) -> None:
    """Adds the commands to `birdclef`'s."""
    explain = _command(commands, "explain", "in what two stages differ, and why one was not reused", _explain)
    explain.add_argument("first", metavar="REF", help=_REFERENCE)
    explain.add_argument("second", metavar="REF")

    lineage = _command(commands, "lineage", "all that a checkpoint was trained from, its files verified", _lineage)
    lineage.add_argument("reference", metavar="REF", help=_REFERENCE)
    lineage.add_argument("--html", type=Path, metavar="FILE", help="write it as a page with a picture, too")

    replay = _command(commands, "replay", "train a stage again from its record and compare the scores", _replay)
    replay.add_argument("reference", metavar="REF", help=_REFERENCE)
    replay.add_argument("--data", type=Path, metavar="DIR", help="recordings (default: those of the sweep that had the stage)")
    replay.add_argument("--pretrained", default="auto", metavar="auto|off|PATH", help="as the sweep was given it")
    replay.add_argument("--cache-dir", default=DEFAULT_CACHE, metavar="DIR", help=f"decoded audio (default {DEFAULT_CACHE})")

    store = commands.add_parser("store", help="the store of trained stages").add_subparsers(required=True, metavar="COMMAND")
    _command(store, "ls", "every stage with its score, cost and size", _list)
    _command(store, "verify", "read every file and compare its hash", _verify)
    _command(store, "du", "bytes by recipe and stage", _usage)
    garbage = _command(store, "gc", "show what would have to go for a number of bytes; --yes removes it", _collect)
    garbage.add_argument("--max-bytes", type=_bytes, required=True, metavar="N", help="such as 200G: what the store may take")
    garbage.add_argument("--yes", action="store_true", help="remove what is shown")
    own = _command(store, "import", "take a checkpoint of your own, for --from-stage", _import)
    own.add_argument("file", type=Path, help="safetensors, or a state dict of torch")
    own.add_argument("--recipe", required=True, metavar="NAME", help="whose model it is")
    own.add_argument("--stage", required=True, choices=STAGE_NAMES, help="the stage that it is the end of")
    own.add_argument("--species", type=Path, required=True, metavar="FILE", help="its classes: one code a line")
    own.add_argument("--search", default="all", metavar="NAME|FILE", help="the search that has the recipe (default all)")
    own.add_argument("--budget", choices=("small", "full"), default="full", help="of which the recipe's model is (default full)")
    own.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as the sweep is to have it (repeatable)")


def _command(commands: Any, name: str, help_text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text)
    parser.add_argument(
        "--storage", default=DEFAULT_STORAGE, metavar="DIR|URI", help=f"of the sweeps (default {DEFAULT_STORAGE})"
    )
    parser.set_defaults(run=run)
    return parser


def _explain(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.explain import explain
    from sweeps.references import resolve, store_of

    storage = Storage.parse(arguments.storage)
    first, second = (resolve(storage, reference) for reference in (arguments.first, arguments.second))
    print("\n".join(explain(store_of(storage), first, second)))
    return 0


def _lineage(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.lineage import lineage, lineage_lines, write_page
    from sweeps.references import resolve, store_of

    storage = Storage.parse(arguments.storage)
    found = lineage(store_of(storage), resolve(storage, arguments.reference), verify=True)
    print("\n".join(lineage_lines(found)))
    if arguments.html:
        write_page(arguments.html, found, f"Lineage of {arguments.reference}")
        print(f"As a picture: {arguments.html}")
    return 1 if any(ancestor.is_whole is False for ancestor in found) else 0


def _replay(arguments: argparse.Namespace) -> int:
    import torch

    from birdclef_core.models.encoders import resolve_pretrained
    from birdclef_core.storage import Storage
    from sweeps.references import resolve, store_of
    from sweeps.replay import replay, replay_lines
    from sweeps.replay_data import data_of_stage

    storage = Storage.parse(arguments.storage)
    stage_id = resolve(storage, arguments.reference)
    data, fingerprint = data_of_stage(storage, stage_id, arguments.data, arguments.cache_dir)
    result = replay(
        store_of(storage),
        stage_id,
        data,
        fingerprint,
        lambda encoder: resolve_pretrained(encoder, arguments.pretrained),
        torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        on_epoch=lambda epoch, epochs: print(f"epoch {epoch}/{epochs}", flush=True),
    )
    print("\n".join(replay_lines(result)))
    return 0 if result.agrees else 1


def _list(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.store_commands import list_stages

    print("\n".join(list_stages(Storage.parse(arguments.storage))))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.store_commands import verify_stages

    total = 0

    def note(done: int, of: int) -> None:
        nonlocal total
        total = of

    damaged = verify_stages(Storage.parse(arguments.storage), note)
    print("\n".join([*damaged, f"{total} stages read, {len(damaged)} damaged."]))
    return 1 if damaged else 0


def _usage(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.store_commands import usage_lines

    print("\n".join(usage_lines(Storage.parse(arguments.storage))))
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.references import store_of
    from sweeps.store_commands import garbage_lines, garbage_of

    storage = Storage.parse(arguments.storage)
    plan = garbage_of(storage, arguments.max_bytes)
    print("\n".join(garbage_lines(plan)))
    if arguments.yes:
        for removal in plan.removals:
            store_of(storage).remove(removal.summary.stage_id)
        print(f"Removed {len(plan.removals)} stages.")
    elif plan.removals:
        print("Nothing was removed: --yes does it.")
    return 0 if plan.fits else 1


def _import(arguments: argparse.Namespace) -> int:
    from birdclef_core.storage import Storage
    from sweeps.cli import parse_settings
    from sweeps.store_commands import import_stage

    stage_id = import_stage(
        Storage.parse(arguments.storage),
        arguments.file,
        search=arguments.search,
        recipe=arguments.recipe,
        stage=arguments.stage,
        species=arguments.species,
        small=arguments.budget == "small",
        settings=parse_settings(arguments.set),
    )
    print(f"{stage_id}\nStart trials from it: python tune_main.py --search {arguments.search} --from-stage {stage_id[:16]}")
    return 0


def _bytes(text: str) -> int:
    """`200G` as a number of bytes; K, M, G and T are powers of 1024."""
    unit = text[-1:].upper()
    factor = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}.get(unit, 1)
    try:
        return int(float(ast.literal_eval(text if factor == 1 else text[:-1])) * factor)
    except (ValueError, SyntaxError, TypeError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 200G") from None
