"""Shows where a checkpoint comes from: every stage since the first weights, with configuration, data, code, scores and cost."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from birdclef_core.errors import StoreError
from birdclef_core.html.page import render
from birdclef_core.html.svg import box, drawing, path
from birdclef_core.store.certificates import Certificate, StageKind, read_certificate
from birdclef_core.store.leakage import RecordingsReader, TrainedStage
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.taxonomy import SOUNDSCAPES
from sweeps.checkpoints.references import known_record
from sweeps.objective import METRICS, STANDARD_ERROR, Objective
from sweeps.wording import format_duration

NODE_WIDTH, NODE_HEIGHT, ARROW = 196.0, 100.0, 26.0
_SHOWN = ("epochs", "learning_rate", "clip_s", "batch_size", "loss", "label_space", "seed", "precision")
_SCORES = (*METRICS, "cmap_chance", *(f"{SOUNDSCAPES}{name}" for name in METRICS))
_SUPPORT = (
    ("num_recordings", "recordings"),
    ("num_scored_species", "species with any"),
    (f"{SOUNDSCAPES}num_windows", "windows of soundscapes"),
)


@dataclass(frozen=True, kw_only=True)
class Ancestor:
    """A stage of a lineage."""

    stage_id: str
    record: StageRecord | None
    """None when the stage is no longer in the store."""
    problem: str | None
    """What is wrong with its files; empty: every hash is as it was written; None: the files were not read."""
    certificate: Certificate | None = None
    """For an adopted stage, the verified proof that the older code trains the same; None where it was not read."""
    certificate_problem: str = ""
    """Why the certificate of an adopted stage does not prove that."""
    recordings: str = ""
    """How many recordings trained and scored it and whether its scores are leaked, or why that is not known; empty: not looked up."""


def lineage(store: StageStore, stage_id: str, *, verify: bool) -> list[Ancestor]:
    """Return the stages from the first one to `stage_id`. With `verify`, read every file and every certificate.

    Raises InputError when `stage_id` has no record. An ancestor may be gone: it is the first one returned then.
    """
    known_record(store, stage_id)
    found = trace(stage_id, store.record, store.check if verify else None)
    found = _with_recordings(store, found)
    return [_with_certificate(store, ancestor) for ancestor in found] if verify else found


def trained_stages(ancestors: Iterable[Ancestor]) -> list[TrainedStage]:
    """Return ancestors as the search for leaks takes them, without predictions: what leaks into these are the stages that made them."""
    return [_trained_stage(item) for item in ancestors if item.record is None or not item.record.is_predictions]


def _trained_stage(ancestor: Ancestor) -> TrainedStage:
    record = ancestor.record
    if record is None:
        return TrainedStage(title=f"stage {ancestor.stage_id[:12]}", data=None)
    return TrainedStage(
        title=f"{record.recipe} {record.stage} {record.stage_id[:12]}",
        data=record.identity.get("data", ""),
        learns_soundscapes=bool(record.identity.get("stage", {}).get("soundscape_share")),
    )


def _with_recordings(store: StageStore, ancestors: Sequence[Ancestor]) -> list[Ancestor]:
    reader = RecordingsReader(store.storage)

    def described(index: int) -> str:
        record = ancestors[index].record
        if record is not None and record.is_predictions:
            return ""
        return reader.describe(_trained_stage(ancestors[index]), trained_stages(ancestors[:index]))

    return [replace(ancestor, recordings=described(index)) for index, ancestor in enumerate(ancestors)]


def _with_certificate(store: StageStore, ancestor: Ancestor) -> Ancestor:
    record = ancestor.record
    if record is None or not record.adopted_from:
        return ancestor
    try:
        return replace(ancestor, certificate=_verified_certificate(store, record))
    except StoreError as error:
        return replace(ancestor, certificate_problem=str(error))


def _verified_certificate(store: StageStore, record: StageRecord) -> Certificate:
    """The certificate of an adopted stage. Raises StoreError when it is damaged or proves something else."""
    certificate = read_certificate(store.storage, record.certificate)
    original = store.record(record.adopted_from)  # gone when garbage collection has removed it
    old_code = original.identity["code"] if original else certificate.old_code
    new_code, kind = record.identity["code"], StageKind.of(record.identity)
    if not certificate.proves(old_code, new_code, kind):
        raise StoreError(f"certificate {certificate.hash[:16]} does not prove that code {old_code} = {new_code} for {kind}.")
    return certificate


def trace(
    stage_id: str, record_of: Callable[[str], StageRecord | None], problem_of: Callable[[str], str] | None = None
) -> list[Ancestor]:
    """Return a stage and all that it was made from, as far back as there are records, each after what it was made from."""
    found: dict[str, Ancestor] = {}
    pending = [stage_id]
    records: dict[str, StageRecord | None] = {}
    while pending:
        stage_id = pending[-1]
        if stage_id not in records:
            records[stage_id] = record_of(stage_id)
        record = records[stage_id]
        # The parent's line comes first, so that it reads as without a teacher.
        before = [needed for needed in reversed(record.needs if record else ()) if needed not in records]
        if before:
            pending += before
            continue
        pending.pop()
        if stage_id not in found:
            problem = problem_of(stage_id) if problem_of and record else None
            found[stage_id] = Ancestor(stage_id=stage_id, record=record, problem=problem)
    return list(found.values())


def is_sound(ancestors: Sequence[Ancestor]) -> bool:
    """Return whether every stage is in the store, and no file or certificate is known to be damaged."""
    return all(
        ancestor.record is not None and not ancestor.problem and not ancestor.certificate_problem for ancestor in ancestors
    )


def lineage_lines(ancestors: Sequence[Ancestor]) -> list[str]:
    """Return what to print of a lineage."""
    lines = [f"starts from {_first_weights(ancestors)}"]
    for ancestor in ancestors:
        lines += _lines(ancestor)
    spent_s = sum(ancestor.record.cost_s for ancestor in ancestors if ancestor.record)
    return [*lines, f"in all {format_duration(spent_s)} of device time"]


def _first_weights(ancestors: Sequence[Ancestor]) -> str:
    first = ancestors[0].record
    return f"{first.identity.get('parent', 'unknown')} weights" if first else "a stage that is no longer in the store"


def _lines(ancestor: Ancestor) -> list[str]:
    record = ancestor.record
    if record is None:
        return [f"{ancestor.stage_id[:16]}: MISSING, no longer in the store"]
    config: dict[str, Any] = record.identity.get("stage", {})
    if record.is_predictions:
        return _lines_of_predictions(ancestor, record, config)
    shown = ", ".join(f"{key}={config[key]}" for key in _SHOWN if key in config)
    lines = [
        f"{record.stage} {record.stage_id[:16]} ({record.recipe}, {record.identity.get('model', {}).get('encoder', '')})",
        f"    config  {shown or 'unknown'}",
        f"    start   {record.surgery}",
        f"    from    data {str(record.identity.get('data', ''))[:16]}, code {record.identity.get('code', '')}",
        *([f"    teacher predictions {record.identity['teacher'][:16]}"] if "teacher" in record.identity else []),
        *([f"    head    on embeddings {record.identity['embeddings'][:16]}"] if record.is_head else []),
        *([f"    on      {ancestor.recordings}"] if ancestor.recordings else []),
        f"    made    {_made(record)}",
        f"    scores  {_scores(record)}",
    ]
    if record.adopted_from:
        lines.append(f"    adopted from {record.adopted_from[:16]}: {_proof(ancestor, record)}")
    if ancestor.problem is not None:
        lines.append(f"    files   {f'DAMAGED: {ancestor.problem}' if ancestor.problem else 'every hash verified'}")
    return lines


def _lines_of_predictions(ancestor: Ancestor, record: StageRecord, config: dict[str, Any]) -> list[str]:
    embeds = config.get("embeds")
    teachers = ", ".join(stage_id[:16] for stage_id in record.needs)
    source = f"{embeds if isinstance(embeds, str) else embeds[0]}, {record.identity['parent'][:24]}" if embeds else teachers
    sound = "recordings" if embeds else config.get("predicts_on", "unknown sound")
    lines = [
        f"{record.stage} {record.stage_id[:16]} ({'embeddings' if embeds else 'predictions'})",
        f"    of      {source} on {sound}, {record.surgery}",
        f"    from    data {str(record.identity.get('data', ''))[:16]}, code {record.identity.get('code', '')}",
        f"    made    {_made(record)}",
    ]
    if ancestor.problem is not None:
        lines.append(f"    files   {f'DAMAGED: {ancestor.problem}' if ancestor.problem else 'every hash verified'}")
    return lines


def _made(record: StageRecord) -> str:
    who = f" by {record.trained_by}" if record.trained_by else ""
    device = record.environment.get("device", "another machine")
    return f"{record.finished_at}{who} on {device} in {format_duration(record.cost_s)}"


def _proof(ancestor: Ancestor, record: StageRecord) -> str:
    if ancestor.certificate_problem:
        return f"DAMAGED: {ancestor.certificate_problem}"
    proof = ancestor.certificate
    if proof is None:
        return f"certificate {record.certificate[:16]}, not verified"
    device = proof.environment.get("device", "another machine")
    return (
        f"code {proof.old_code} = {proof.new_code} for {proof.kind}, proven on stage {proof.stage_id[:16]} on {device}; certificate "
        f"{proof.hash[:16]} verified"
    )


def _scores(record: StageRecord) -> str:
    scores = record.metrics
    if not scores:
        return "none"
    errors = {name: f" ± {scores[f'{name}{STANDARD_ERROR}']:.4f}" for name in scores if f"{name}{STANDARD_ERROR}" in scores}
    shown = [f"{name} {scores[name]:.4f}{errors.get(name, '')}" for name in _SCORES if name in scores]
    support = [f"{scores[name]:.0f} {what}" for name, what in _SUPPORT if name in scores]
    return ", ".join(shown) + (f" ({', '.join(support)})" if support else "")


def lineage_page(ancestors: Sequence[Ancestor], title: str, objective: Objective | None = None) -> str:
    """Return a self-contained HTML page with the lineage's picture and text. `objective`: the score in the picture; None: the default."""
    objective = objective or Objective.of(None)
    return render(
        "lineage",
        title=title,
        picture=lineage_svg(ancestors, objective),
        objective=objective.score_name,
        objective_all=objective.named_in("all"),
        text="\n".join(lineage_lines(ancestors)),
    )


def lineage_svg(ancestors: Sequence[Ancestor], objective: Objective) -> Markup:
    """Return boxes from the first weights to the last stage, with the objective and the costs."""
    first = _first_weights(ancestors)
    nodes: list[tuple[str, tuple[str, ...], str]] = [("line", ("starts from", *_wrapped(first, 28)), first)]
    for ancestor in ancestors:
        fill = "best" if ancestor is ancestors[-1] else "stored"
        nodes.append(("line" if ancestor.record is None else fill, _node_text(ancestor, objective), ancestor.stage_id))
    step, middle = NODE_WIDTH + ARROW, 4 + NODE_HEIGHT / 2
    place = {ancestor.stage_id: index for index, ancestor in enumerate(ancestors, start=1)}
    parts, depth = [], 0.0
    for index, (fill, text, tip) in enumerate(nodes):
        x = index * step
        parts.append(box(x, 4, NODE_WIDTH, NODE_HEIGHT, fill=fill, lines=text, tip=tip))
        record = ancestors[index - 1].record if index else None
        for before in [place.get(needed, 0) for needed in record.needs] or [0] if record else [index - 1] if index else []:
            if before == index - 1:
                parts.append(path(f"M{x - ARROW + 3} {middle} H{x - 5} m-6 -5 l6 5 l-6 5", stroke="muted"))
                continue
            # Below the boxes between, the deeper the more they are.
            bottom, drop = 4 + NODE_HEIGHT, 14.0 + 6 * (index - before)
            from_x, to_x = before * step + 0.7 * NODE_WIDTH, x + 0.3 * NODE_WIDTH
            parts.append(path(f"M{from_x} {bottom} v{drop} H{to_x} v{-drop + 2} m-5 6 l5 -6 l5 6", stroke="muted"))
            depth = max(depth, drop)
    return drawing(max(1120.0, len(nodes) * step), NODE_HEIGHT + depth + 10, parts, "From the first weights to the last stage")


def _node_text(ancestor: Ancestor, objective: Objective) -> tuple[str, ...]:
    """Return the lines of an ancestor's box."""
    record = ancestor.record
    if record is None:
        return ancestor.stage_id[:16], "no longer in the store"
    space = record.identity.get("stage", {}).get("label_space", "")
    score = objective.of_record(record.metrics, space)
    return (
        record.stage,
        "not scored" if math.isnan(score.value) else f"score {score}",
        f"of {len(record.species)} species{f' ({space})' if space else ''}",
        f"{len(record.history)} epochs in {format_duration(record.cost_s)}" if record.history else record.surgery,
        record.stage_id[:16],
        "DAMAGED" if ancestor.problem or ancestor.certificate_problem else "",
    )


def _wrapped(text: str, width: int) -> list[str]:
    return [text[start : start + width] for start in range(0, len(text), width)]
