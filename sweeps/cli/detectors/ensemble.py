"""`birdclef ensemble`: chooses which trained stages hear together, and says what that is worth."""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birdclef_core.errors import InputError, StoreError
from sweeps.cli.common import add_storage_option
from sweeps.cli.parser import Parser
from sweeps.options import DEFAULT_CACHE
from sweeps.wording import REFERENCE, counted

if TYPE_CHECKING:  # torch takes seconds to import: --help is printed before that
    from birdclef_core.ensemble.record import EnsembleRecord, EnsembleScore
    from birdclef_core.inference.logits import Progress
    from birdclef_core.inference.procedure import Procedure
    from sweeps.deploy.ensembles import ChosenEnsemble

PAGE = "ensemble.html"
JOURNAL = "tracking"
WAY_OUT = "give another folder with -o"
_BUDGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h)/(?P<of>file|window)")
_MS = {"ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
_DELIVERY_S = 60.0


def add_ensemble_command(commands: Any) -> None:
    """Add the command to the sub-parsers of `birdclef`."""
    parser: Parser = commands.add_parser(
        "ensemble", help="choose which stages of sweeps hear together, and say what that is worth"
    )
    parser.add_options_flag()
    parser.add_quiet_flag()
    parser.description = (
        "Chooses among the last stages of the finished trials of sweeps (the best 6 of each recipe) and among single stages. Prints "
        "three scores: apparent (on the data that it was selected on), cross-fitted, and untouched; beside them the best single stage "
        "and equal weights. Writes ensemble.json, which other commands take as --model, and a page. Of sweeps with --folds, where recordings "
        "decide, whole trials are compared out of fold: each recording by the model that did not learn from it. Then the models of all folds of "
        "a chosen trial hear."
    )
    parser.add_argument(
        "references",
        nargs="*",
        metavar="SWEEP|REF",
        help=f"sweeps, for the stages of all their finished trials, and single stages: {REFERENCE.replace('SWEEP (the last stage of its best trial), ', '')} (default: the newest sweep)",
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("ensemble"), metavar="DIR", help="folder for the results (default ensemble)"
    )
    parser.add_argument(
        "--budget",
        type=_budget,
        metavar="36s/file",
        help="most CPU time (of one core) for a file of ten minutes, such as 36s/file or 2m/file, or for a window: 300ms/window",
    )
    parser.add_argument(
        "--max-members",
        type=int,
        default=6,
        metavar="N",
        help="most members (default 6): stages, or trials of several folds with all models of each",
    )
    parser.add_argument(
        "--select-on",
        choices=("soundscapes", "recordings"),
        help="what decides: labelled soundscapes or validation recordings (default: soundscapes if there are 4 files of them)",
    )
    parser.add_argument(
        "--soup",
        action="store_true",
        help="let the mean of the weights of stages that were trained from one parent take their place where it scores better",
    )
    parser.add_argument(
        "--refit",
        action="store_true",
        help="of trials with several folds, let the one model hear that birdclef refit SWEEP/TRIAL has trained on all recordings, where there is "
        "one, in place of the models of all folds",
    )
    parser.add_argument("--procedure", default="default", metavar="NAME", help="how windows are cut and scored: default, or 2023")
    parser.add_argument(
        "--data",
        metavar="DIR|URI",
        help="the data folder or packed set that decides (default: the one that the candidates were trained with)",
    )
    parser.add_argument(
        "--untouched",
        type=Path,
        metavar="DIR",
        help="a data folder with labelled soundscapes that no sweep has seen: the ensemble is scored on them once, when it has been chosen",
    )
    parser.add_argument(
        "--cache-dir", default=DEFAULT_CACHE, metavar="DIR", help=f"folder for decoded audio (default {DEFAULT_CACHE})"
    )
    parser.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda", help="where it runs (default: a GPU if there is one)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: all cores)")
    parser.add_argument(
        "--tracking-uri", metavar="URI|DIR|off", help="where MLflow gets the ensemble (default: as the sweep had it)"
    )
    add_storage_option(parser)
    parser.set_defaults(run=_ensemble)


def _budget(text: str) -> tuple[float, str]:
    """Read a budget for argparse: milliseconds, and whether they are for a `file` or a `window`."""
    found = _BUDGET.fullmatch(text.strip())
    if not found or not float(found["number"]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time for a file or window, such as 36s/file, 2m/file or 300ms/window")
    return float(found["number"]) * _MS[found["unit"]], found["of"]


def _ensemble(arguments: argparse.Namespace) -> int:
    if arguments.threads is not None and arguments.threads < 1:
        raise InputError(f"--threads >= 1 must hold, but got {arguments.threads}.")

    import torch

    from birdclef_core.ensemble.record import ENSEMBLE_FILE, write_record
    from birdclef_core.ensemble.selection import Rules
    from birdclef_core.inference.procedure import get_procedure
    from birdclef_core.output_place import writing_to
    from sweeps.deploy.ensembles import EnsembleWish, choose_ensemble

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    procedure = get_procedure(arguments.procedure)
    wish = EnsembleWish(
        references=tuple(arguments.references),
        storage=arguments.storage,
        select_on=arguments.select_on,
        rules=Rules(max_members=arguments.max_members, budget_ms=_budget_ms(arguments.budget, procedure)),
        soup=arguments.soup,
        refit=arguments.refit,
        procedure=procedure,
        data=arguments.data,
        untouched=arguments.untouched,
        cache_dir=arguments.cache_dir,
        device=arguments.device,
    )
    chosen = choose_ensemble(wish, print, _no_progress if arguments.quiet else _progress)
    with writing_to(arguments.out, way_out=WAY_OUT):
        arguments.out.mkdir(parents=True, exist_ok=True)
    write_record(chosen.record, arguments.out / ENSEMBLE_FILE)
    with writing_to(arguments.out, way_out=WAY_OUT):
        (arguments.out / PAGE).write_text(_page(chosen), encoding="utf-8")
    print("\n".join(summary_lines(chosen)))
    print(f"Results: {arguments.out / ENSEMBLE_FILE} and {arguments.out / PAGE}")
    print(_track(chosen, arguments.out, arguments.tracking_uri))
    return 0


def _budget_ms(budget: tuple[float, str] | None, procedure: "Procedure") -> float | None:
    """Return a budget as milliseconds for a window."""
    from birdclef_core.ensemble.costs import FILE_S

    if budget is None:
        return None
    return budget[0] * (procedure.step_s / FILE_S if budget[1] == "file" else 1.0)


def _progress(title: str) -> "Progress":
    """Return a progress that says once which candidate is heard; nothing is said where its logits are kept."""
    said = False

    def note(done: int, total: int) -> None:
        nonlocal said
        if not said:
            print(f"Hearing {counted(total, 'window')} with {title}", file=sys.stderr, flush=True)
        said = True

    return note


def _no_progress(title: str) -> "Progress":
    return lambda done, total: None


def _page(chosen: "ChosenEnsemble") -> str:
    from birdclef_core.ensemble.page import ShownCandidate, ensemble_page

    means = chosen.means_of_folds or [None] * len(chosen.candidates)
    shown = [
        ShownCandidate(title=item.title, trained=str(item.score), mean_of_folds=mean, num_networks=len(item.hearing))
        for item, mean in zip(chosen.candidates, means, strict=True)
    ]
    return ensemble_page(chosen.record, chosen.verdict, shown, chosen.names, chosen.notes)


def summary_lines(chosen: "ChosenEnsemble") -> list[str]:
    """Return what to print of an ensemble: its members, its scores beside simpler ways, and what they cost."""
    from birdclef_core.ensemble.costs import per_file_s
    from birdclef_core.ensemble.page import better_way, member_name, shown
    from birdclef_core.ensemble.scores import ENSEMBLE

    record, verdict = chosen.record, chosen.verdict
    scores = verdict.way(ENSEMBLE).scores
    members = counted(len(verdict.selected.members), member_name(record))
    if record.folds:
        members += f" ({counted(len(record.members), 'model')})"
    lines = [f"{members} of {counted(len(chosen.candidates), 'candidate')}, selected by {record.metric} {_on(record)}:"]
    for (candidate, weight), point in zip(verdict.selected.members, verdict.first, strict=True):
        seconds = per_file_s(point.cost_ms, record.procedure)
        lines.append(
            f"  {weight:.3f}  {chosen.candidates[candidate].title:<44} deployed/{record.metric} {verdict.selected.singles[candidate]:.4f}"
            f"{_beside(chosen, candidate)}; with those above {point.apparent:.4f} apparent, {_plain(point.cross_fitted)} cross-fitted, {seconds:.1f} CPU s a file"
        )
    if verdict.selected.refused_gain:
        gain, error = verdict.selected.refused_gain
        lines.append(f"  The next candidate would add {gain:.4f} ± {error:.4f}, which is within the error of the gain.")
    lines.append(
        f"{'':<32}{'apparent':>19}{'cross-fitted':>19}{'untouched':>19}{member_name(record) + 's':>9}{'CPU s a file':>14}"
    )
    for way in verdict.ways:
        columns = "".join(f"{shown(score):>19}" for score in (way.scores.apparent, way.scores.cross_fitted, way.scores.untouched))
        lines.append(f"{way.name:<32}{columns}{len(way.members):>9}{per_file_s(way.cost_ms, record.procedure):>14.1f}")
    better = better_way(record, verdict)
    return [*lines, *([better] if better else []), *_reasons(scores.cross_fitted, scores.untouched)]


def _on(record: "EnsembleRecord") -> str:
    """What an ensemble was selected on."""
    num_rows = record.scores.apparent.num_rows
    if record.folds:
        return f"out of fold on {num_rows} recordings of {counted(len(record.folds), 'fold')}"
    return f"on {num_rows} rows of {record.selected_on}"


def _beside(chosen: "ChosenEnsemble", candidate: int) -> str:
    """The score of a trial that is comparable with the one in training, which is a mean over folds, and that one."""
    if not chosen.means_of_folds:
        return ""
    objective, score = chosen.record.objective, chosen.candidates[candidate].score
    return f" (mean of folds {chosen.means_of_folds[candidate]:.4f}, in training {objective} {score})"


def _reasons(cross_fitted: "EnsembleScore", untouched: "EnsembleScore") -> list[str]:
    lines = [f"Not cross-fitted: {cross_fitted.reason}."] if cross_fitted.value is None else []
    if untouched.value is None:
        way_out = "" if untouched.num_rows else " Labelled soundscapes that no sweep has seen can be named with --untouched."
        return [*lines, f"{untouched.reason[0].upper()}{untouched.reason[1:]}.{way_out}"]
    return [
        *lines,
        f"Untouched: {untouched.metric} on {untouched.num_rows} rows of {untouched.source} that nothing was chosen by.",
    ]


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _track(chosen: "ChosenEnsemble", out: Path, tracking_uri: str | None) -> str:
    """Send an ensemble to MLflow and return what to print of it."""
    from sweeps.tracking.connect import make_tracker

    tracking = tracking_uri or (chosen.sweep.options.tracking_uri if chosen.sweep else None)
    if tracking == "off":
        return "Not tracked: --tracking-uri is off."
    folder = out / JOURNAL
    try:
        tracker = make_tracker(tracking, folder)
    except (InputError, StoreError) as error:
        return f"Not tracked: {error}"
    files = folder / "artifacts"
    files.mkdir(parents=True, exist_ok=True)
    for path in out.glob("ensemble.*"):
        shutil.copyfile(path, files / path.name)
    tracker.log(_event(chosen, out, files.name))
    status = tracker.close(_DELIVERY_S)
    if status.kept:
        return f"MLflow has not received it yet ({status.problem}): birdclef track sync {folder}"
    return "MLflow has it in the experiment birdclef/ensembles." if not status.rejected else f"MLflow refused it: see {folder}."


def _event(chosen: "ChosenEnsemble", out: Path, artifacts: str) -> Any:
    from birdclef_core.ensemble.costs import per_file_s
    from birdclef_core.ensemble.scores import ENSEMBLE
    from birdclef_core.identity import fingerprint
    from sweeps.tracking.events import EnsembleChosen

    record, verdict = chosen.record, chosen.verdict
    way, records = (
        verdict.way(ENSEMBLE),
        [record for item in chosen.candidates for network in item.hearing for record in network.records],
    )
    stages = {record.stage_id: record.stage for record in records}
    metrics = {"cost/cpu_s_per_file": per_file_s(way.cost_ms, record.procedure), "num_members": float(len(record.members))}
    for kind in ("apparent", "cross_fitted", "untouched"):
        score: EnsembleScore = getattr(way.scores, kind)
        if score.value is not None:
            metrics[f"{kind}/{score.metric}"] = score.value
        if score.error is not None:
            metrics[f"{kind}/{score.metric}_se"] = score.error
    for candidate, _ in verdict.selected.members:
        metrics[f"deployed/{record.metric}/{chosen.candidates[candidate].key}"] = verdict.selected.singles[candidate]
    tags = {"birdclef.selected_on": record.selected_on, "birdclef.objective": record.objective}
    if record.folds:
        tags["birdclef.out_of_fold"] = f"{way.scores.apparent.num_rows} recordings of {counted(len(record.folds), 'fold')}"
    return EnsembleChosen(
        ensemble=fingerprint([record.created_at, *(member.model_id for member in record.members)])[:16],
        name=out.resolve().name,
        sweep=chosen.sweep.name if chosen.sweep else "",
        search=chosen.sweep.search if chosen.sweep else "ensembles",
        stages={stage_id: stages[stage_id] for member in record.members for stage_id in member.stage_ids},
        checkpoint_uris=dict(chosen.locations),
        params={f"weight/{member.stage_id[:12]}": round(member.weight, 6) for member in record.members},
        metrics=metrics,
        tags=tags,
        note="```\n" + "\n".join(summary_lines(chosen)) + "\n```",
        artifacts=artifacts,
    )
