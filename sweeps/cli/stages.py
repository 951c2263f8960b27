"""`birdclef explain|lineage|replay|store`: compare stored stages, trace them, train them again, and look after the store."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from sweeps.cli.common import add_storage_option, bytes_argument, parse_settings
from sweeps.options import DEFAULT_CACHE, DEFAULT_STORAGE
from sweeps.wording import REFERENCE


def add_stage_commands(commands: Any) -> None:
    """Add the commands to the sub-parsers of `birdclef`."""
    explain = _command(
        commands,
        "explain",
        "show in which fields two stages differ, and so why one was not reused; or what differs between sweeps",
        _explain,
    )
    explain.description = (
        "Of two sweeps: what differs in their searches, data, code, versions and options. Of anything else: the fields in which two stages "
        "differ, and so why one was not reused for the other."
    )
    explain.add_argument("first", metavar="REF", help=REFERENCE)
    explain.add_argument("second", metavar="REF", help="the stage or sweep to compare it with")

    lineage = _command(commands, "lineage", "show everything that a stage was trained from, and verify every file", _lineage)
    lineage.add_argument("reference", metavar="REF", help=REFERENCE)
    lineage.add_argument("--html", type=Path, metavar="FILE", help="also write it as an HTML page with a picture")

    replay = _command(
        commands, "replay", "train a stage again from its record, in a store of its own, and compare scores and weights", _replay
    )
    replay.add_argument("reference", metavar="REF", help=REFERENCE)
    _add_replay_inputs(replay)

    store = commands.add_parser("store", help="list, verify and clean up the store of trained stages").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _command(store, "ls", "list every stage with its score, cost, size, the number of trials that use it, and its start", _list)
    _command(store, "verify", "read every file and compare its hash; exit code 1 if one differs", _verify)
    _command(store, "du", "show the size by recipe and stage", _usage)
    garbage = _command(store, "gc", "show what can be removed, or must be to fit in --max-bytes; --yes removes it", _collect)
    garbage.description = (
        "Without --max-bytes: incomplete and damaged copies of stages, and epoch checkpoints that nothing needs. With it, also the "
        "stages that are least worth keeping for their size, until the store fits. A stage stays if an unfinished trial or the best "
        "trial of any sweep needs it, if it is being trained, if it was imported, or if a stage that stays was trained from it."
    )
    garbage.add_argument("--max-bytes", type=bytes_argument, metavar="N", help="most bytes that the store may have, such as 200G")
    garbage.add_argument("--yes", action="store_true", help="remove what is shown")
    adopt = _command(store, "adopt", "reuse stages of an older code version after proof that this code trains the same", _adopt)
    adopt.description = (
        "Stages are kept under a hash that includes the code version, so a change of the code makes sweeps train them again. This command "
        "trains one stage of each kind (head, loss, label space, precision, optimiser, what is frozen) again. Where the weights are the same "
        "to the bit, it keeps a certificate and makes all stages of that kind known under the ids of this code. Nothing is removed. "
        "Exit code 1 if a kind could not be proven."
    )
    adopt.add_argument("--from", dest="old_code", required=True, metavar="CODE", help="first digits of the older code version")
    adopt.add_argument("--dry-run", action="store_true", help="show what would be trained again and reused, and do nothing")
    _add_replay_inputs(adopt)
    own = _command(store, "import", "put a checkpoint of your own into the store, for --from-stage", _import)
    own.description = (
        "The checkpoint must have every entry of the recipe's model and no other. Its entries are named as in this project, or as in the "
        "2023 solution, whose checkpoints also have the recipe's spectrogram, which is compared. docs/importing.md has an example."
    )
    own.add_argument(
        "file", type=Path, help="a safetensors file, or a state dict that torch or Lightning saved (no code in it is run)"
    )
    own.add_argument("--recipe", required=True, metavar="NAME", help="the recipe whose model it is")
    own.add_argument("--stage", required=True, help="the stage of training that it has completed, such as train_bce")
    own.add_argument(
        "--species", type=Path, required=True, metavar="FILE", help="codes of its classes in their order, one per line"
    )
    own.add_argument("--search", default="all", metavar="NAME|FILE", help="a search with that recipe (default all)")
    own.add_argument("--budget", choices=("small", "full"), default="full", help="the budget whose model it is (default full)")
    own.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="configuration fields, the same as the sweep will have (repeatable)",
    )


def _command(commands: Any, name: str, help_text: str, run: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_text)
    add_storage_option(parser)
    parser.set_defaults(run=run)
    return parser


def _add_replay_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the options for what a stage was made from and is not in the store."""
    parser.add_argument("--data", metavar="DIR|URI", help="the data folder or packed set (default: the one that the sweep used)")
    parser.add_argument(
        "--pretrained", metavar="auto|off|PATH", help="first weights of the encoder (default: as the sweep had them)"
    )
    parser.add_argument(
        "--cache-dir", default=DEFAULT_CACHE, metavar="DIR", help=f"folder for decoded audio (default {DEFAULT_CACHE})"
    )


def _explain(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.explain import explain
    from sweeps.checkpoints.references import existing_storage, resolve, store_of, sweeps_in

    storage = existing_storage(arguments.storage)
    if {arguments.first, arguments.second} <= set(sweeps_in(storage)):
        from sweeps.report.changes import changes
        from sweeps.schedule.records import SweepRecords

        records = [SweepRecords(storage.at(name)).load_sweep() for name in (arguments.first, arguments.second)]
        print("\n".join(changes(*records)))
        return 0
    first, second = (resolve(storage, reference) for reference in (arguments.first, arguments.second))
    print("\n".join(explain(store_of(storage), first, second)))
    return 0


def _lineage(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.lineage import is_sound, lineage, lineage_lines, lineage_page
    from sweeps.checkpoints.references import existing_storage, resolve, store_of

    storage = existing_storage(arguments.storage)
    found = lineage(store_of(storage), resolve(storage, arguments.reference), verify=True)
    print("\n".join(lineage_lines(found)))
    if arguments.html:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(lineage_page(found, f"Lineage of {arguments.reference}"))
        print(f"Picture: {arguments.html}")
    return 0 if is_sound(found) else 1


def _replay(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.references import existing_storage, resolve
    from sweeps.checkpoints.replay import replay_lines, replay_reference

    storage = existing_storage(arguments.storage)
    stage_id = resolve(storage, arguments.reference)
    result = replay_reference(storage, stage_id, arguments.data, arguments.pretrained, arguments.cache_dir, say=_say)
    print("\n".join(replay_lines(result)))
    return 0 if result.agrees else 1


def _say(text: str) -> None:
    print(text, flush=True)


def _list(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.listing import list_stages
    from sweeps.checkpoints.references import existing_storage

    print("\n".join(list_stages(existing_storage(arguments.storage))))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from rich.progress import Progress

    from sweeps.checkpoints.listing import verify_stages
    from sweeps.checkpoints.references import existing_storage

    storage, total = existing_storage(arguments.storage), 0
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("Reading", total=None)

        def note(done: int, of: int) -> None:
            nonlocal total
            total = of
            bar.update(task, completed=done, total=of)

        damaged = verify_stages(storage, note)
    verdict = (
        "none is damaged"
        if not damaged
        else f"{len(damaged)} of them {'is' if len(damaged) == 1 else 'are'} damaged: a sweep that needs one trains it again"
    )
    print("\n".join([*damaged, f"{total} stages were read; {verdict}." if total else "The store has no finished stage yet."]))
    return 1 if damaged else 0


def _usage(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.listing import usage_lines
    from sweeps.checkpoints.references import existing_storage

    print("\n".join(usage_lines(existing_storage(arguments.storage))))
    return 0


def _collect(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.garbage import find_garbage, garbage_lines, remove_garbage
    from sweeps.checkpoints.references import existing_storage

    storage = existing_storage(arguments.storage)
    garbage = find_garbage(storage, arguments.max_bytes)
    print("\n".join(garbage_lines(garbage)))
    if garbage.is_some and arguments.yes:
        remove_garbage(storage, garbage)
        print("Removed.")
    elif garbage.is_some:
        print("Nothing was removed. Give --yes to remove it.")
    return 0 if garbage.chosen is None or garbage.chosen.fits else 1


def _adopt(arguments: argparse.Namespace) -> int:
    from sweeps.checkpoints.adopt import adoption_lines, plan_adoption, plan_lines, prove, publish
    from sweeps.checkpoints.references import existing_storage
    from sweeps.checkpoints.replay import recording_finder

    storage = existing_storage(arguments.storage)
    finder = recording_finder(storage, arguments.data, arguments.cache_dir)
    plan = plan_adoption(storage, arguments.old_code, finder, arguments.pretrained, _say)
    print("\n".join(plan_lines(plan)))
    if arguments.dry_run:
        print("Nothing was trained or reused (--dry-run).")
        return 0
    proofs = prove(plan, _say)
    print("\n".join(adoption_lines(publish(plan, proofs))))
    return 0 if len(proofs) == len(plan.kinds) else 1


def _import(arguments: argparse.Namespace) -> int:
    from birdclef_core.store.storage import Storage
    from sweeps.checkpoints.import_checkpoint import import_stage

    imported = import_stage(
        Storage.parse(arguments.storage),
        arguments.file,
        search=arguments.search,
        recipe=arguments.recipe,
        stage=arguments.stage,
        species=arguments.species,
        small=arguments.budget == "small",
        settings=parse_settings(arguments.set),
    )
    print(imported.stage_id)
    print(f"Stored {arguments.recipe} {arguments.stage}: {imported.summary()}.")
    # What changes the model must be given again, or no recipe has the model of the stage.
    words = [
        "--search",
        arguments.search,
        "--budget",
        arguments.budget,
        *(word for value in arguments.set for word in ("--set", value)),
    ]
    if arguments.storage != DEFAULT_STORAGE:
        words += ["--storage", arguments.storage]
    print(
        f"To start trials from it: python tune_main.py {shlex.join([*words, '--data', 'DIR', '--from-stage', imported.stage_id[:16]])}"
    )
    return 0
