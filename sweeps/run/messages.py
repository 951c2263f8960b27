"""What a sweep's driver prints, sentence by sentence. Nothing here decides or writes anything."""

import math
from pathlib import Path

from sweeps.budget import Budget, Limits
from sweeps.execution.nodes.slots import Slots
from sweeps.replicates import replicate_of
from sweeps.report.ranking import best_by_end, front_line, score_of
from sweeps.report.results import SweepResult
from sweeps.run.inputs import SweepInputs
from sweeps.run.request import SweepRequest
from sweeps.search.chains import ChainBuilder
from sweeps.tracking.events import DeliveryStatus
from sweeps.wording import counted

SMALL_BUDGET = (
    "Budget: small (48-bin spectrograms, a few short epochs, random encoders unless weights are found). It shows that everything "
    "works, not how good a recipe is. `--budget full` trains the recipes as they are."
)
OWN_RECIPES = (
    "Budget: full, because the search is a file of your own: its recipes are trained as they are. `--budget small` trains any recipe at "
    "a small size."
)
CODE_CHANGED = (
    "The code has changed since the sweep was started: stages that its trials have not trained yet are trained by the new "
    "code. `birdclef store adopt` can prove that both give the same result."
)


def how_many(samples: int | None, limits: Limits, *, known: int = 0) -> str:
    """How many trials a sweep is to have after those that are known, and within which limits."""
    thing = "more trial" if known else "trial"
    trials = f"as many {thing}s as possible" if samples is None else counted(samples - known, thing)
    after = f" after {known}" if known else ""
    return f"{trials}{after} within {limits}" if limits.any_set else f"{trials}{after}"


def sweep_line(
    name: str, chains: ChainBuilder, slots: Slots, limits: Limits, *, samples: int | None, known: int, extends: bool
) -> str:
    """How many trials of which recipes run where."""
    recipes = ", ".join(recipe.name for recipe in chains.search.recipes)
    trials = how_many(samples, limits, known=known if extends else 0)
    return f"Sweep {name}: {trials} of {recipes}; {slots.describe()}."


def note_text(name: str, inputs: SweepInputs, request: SweepRequest) -> str:
    """The note of the sweep's run in MLflow, in Markdown."""
    search, options = inputs.chains.search, request.options
    recipes = ", ".join(recipe.name for recipe in search.recipes)
    leaked = f" Scores are **{inputs.leak.sentence}**." if inputs.leak and inputs.leak.mark else ""
    trials = how_many(inputs.samples, request.limits)
    text = f"Sweep **{name}**: {trials} over {recipes}. Data: {options.data or 'synthetic demo set'}. Objective: {search.objective}.{leaked}"
    return f"{text}\n\n{options.note}" if options.note else text


def beginning_lines(inputs: SweepInputs, request: SweepRequest) -> list[str]:
    """What is about to be trained, and what becomes of what an earlier run left."""
    known, lines = len(request.known), []
    if inputs.budget == "small":
        lines.append(SMALL_BUDGET)
    elif not request.options.budget and not inputs.slots.gpus_per_trial:
        lines.append(OWN_RECIPES)
    if request.dropped is not None:
        lines.append(dropped_line(request.name, known - request.dropped.first_trial))
    if request.retried:
        lines.append(f"Tried again: {', '.join(trial.trial for trial in request.retried)}.")
    extends, limits = request.kind == "extend", request.limits
    return [
        *lines,
        sweep_line(request.name, inputs.chains, inputs.slots, limits, samples=inputs.samples, known=known, extends=extends),
    ]


def extension_line(name: str, limits: Limits, *, samples: int | None, known: int) -> str:
    """What a planned extension adds."""
    return f"Extension of {name} by {how_many(samples, limits, known=known)}."


def dropped_line(name: str, trials: int) -> str:
    """What becomes of an extension that is dropped. `trials`: how many it has."""
    kept = f"Its {counted(trials, 'trial')} stay and are finished." if trials else "It had no trials."
    return f"The last extension of {name} is dropped: no more trials of it are drawn. {kept}"


def incomparable_line(incomparable: int, known: int) -> str:
    """How many earlier trials do not count in this search."""
    return (
        f"{incomparable} of the {known} earlier trials are neither reported to the sampler nor compared with new ones: this search "
        "has no place for their parameters, or makes other models or stages of them."
    )


def limit_lines(budget: Budget, reached: str, name: str, storage_flag: str) -> list[str]:
    """What the sweep has spent, and how to go on where it ended at a limit: `reached`, as the flag that sets it."""
    if not budget.limits.any_set and budget.cost is None:
        return []
    lines = [f"Spent: {budget.describe()}."]
    if reached:
        flag = reached.partition(" ")[0]
        lines.append(
            f"The sweep ended at {reached}: nothing that is left could end within it. Go on with: "
            f"python tune_main.py --resume {name}{storage_flag} {flag} MORE"
        )
    return lines


def shown_path(path: str) -> str:
    """Return a path as short as it can be, from the working directory if it is below it; an address as it is."""
    full, here = Path(path).resolve(), Path.cwd()
    return str(full.relative_to(here)) if "://" not in path and full.is_relative_to(here) else path


def outcome_lines(result: SweepResult, samples: int | None) -> list[str]:
    """The best trial and its checkpoint. `samples`: how many trials were to be had; None: as many as limits allow."""
    lines = []
    if ends := best_by_end(result.trials, result.objective):
        lines.append(ends)
    missing = 0 if samples is None else samples - len(result.trials)
    if missing > 0 and not result.interrupted:
        lines.append(
            f"{counted(missing, 'trial')} fewer than requested: every point of the search space has been tried or needs a stage that stopped."
        )
    if best := result.best:
        leaked = f", {result.leaks[best.trial].sentence}" if best.trial in result.leaks else ""
        space = "val" if result.objective.label_space == "target" else "val_all"
        cmap, padded, chance = (best.metrics.get(f"{space}/{name}", math.nan) for name in ("cmap", "cmap_pad5", "cmap_chance"))
        lines += [
            f"Best: {best.trial} ({best.recipe}), {result.objective.score_name} {score_of(best, result.objective)}{leaked}.",
            f"Its unpadded {space}/cmap is {cmap:.3f}, {cmap / chance:.1f} times chance ({chance:.3f}); padded (cmap_pad5) it is {padded:.3f}.",
            f"Best checkpoint: {shown_path(result.best_checkpoint or '')}",
        ]
        if front := front_line(result.front, result.objective):
            lines += [
                front,
                f"The best is still by the score alone, also where {result.name} stands for a checkpoint. Others: {result.name}/TRIAL.",
            ]
    return lines


def next_lines(result: SweepResult, report: str, card: str | None, storage_flag: str) -> list[str]:
    """What to do next. `report`: the sweep's page; `card`: the page of the best trial's last stage, if there is one."""
    lines = [f"Look at the sweep: {report}"]
    if result.best and card:
        lines.append(f"Look at the best model: {card}")
    if result.best:
        lines.append(f"Find birds in a recording: birdclef predict my.wav --model {result.name} -o birds/{storage_flag}")
    if result.best and (replicate := replicate_of(result.best.stages[-1])):
        lines.append(
            f"This is its model of {replicate} alone. One of all recordings, without a score of its own: birdclef refit {result.name}{storage_flag}"
        )
    return lines


def left_out_line(left_out: int) -> str:
    """How many draws became no trial."""
    return f"{counted(left_out, 'draw')} became no trial, because a stage of the chain had failed or been stopped."


def failure_text(result: SweepResult, log: Path) -> str:
    """Why no trial finished."""
    reason = next((record.reason for record in result.trials if record.reason), "no trial ended")
    return f"No trial finished. The first reason: {reason} (Ray's own log: {log})"


def resume_line(name: str, storage_flag: str) -> str:
    """How to continue a stopped sweep."""
    return f"Stopped. Continue with: python tune_main.py --resume {name}{storage_flag}"


def unfit_text(reason: str, name: str, storage_flag: str) -> str:
    """Why a sweep ended whose nodes cannot train, and how to go on."""
    return (
        f"The sweep was stopped, because its nodes cannot train:\n{reason}\nNo trial has lost an attempt. Mend the nodes, then continue with: "
        f"python tune_main.py --resume {name}{storage_flag}"
    )


def delivery_lines(status: DeliveryStatus, name: str, folder: Path, tracking_uri: str | None) -> list[str]:
    """Whether all events have reached the tracker, and what to do if not."""
    lines = []
    if status.kept:
        why = f"refuses them: {status.problem}" if status.denied else f"cannot be reached ({status.problem})"
        lines.append(
            f"{status.kept} events wait in {folder}, because the tracker {why}. Deliver them with: birdclef track sync {folder}"
        )
    elif status.delivered:
        uri = f" --tracking-uri {tracking_uri}" if tracking_uri else ""
        lines.append(f"Compare the trials in MLflow: birdclef ui {name}{uri}")
    if status.rejected:
        lines.append(f"The tracker refused {status.rejected} events; see {folder}.")
    return lines
