"""`birdclef store ls|verify|du`: what is in a store, whether it is complete and unchanged, and how many bytes it takes."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from birdclef_core.errors import InputError, StoreError
from birdclef_core.store.garbage import ancestry
from birdclef_core.store.leakage import RecordingsReader, TrainedStage
from birdclef_core.store.recordings_table import FOLDER as RECORDINGS_FOLDER
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import StageSummary, files_of, total_bytes
from birdclef_core.taxonomy import SOUNDSCAPES
from sweeps.checkpoints.references import store_of, sweeps_in
from sweeps.objective import STANDARD_ERROR, Score
from sweeps.schedule.records import SweepRecords
from sweeps.wording import bytes_text, format_duration

_SCORES = ("cmap", "cmap_pad5", f"{SOUNDSCAPES}auroc")
"""The scores that a listing has. Stages are shared by sweeps with different objectives, so it is sorted by the first."""
_SCORE_WIDTH = 19
_LEAK_MARKS = {
    "*": "* A leaked score: recordings that score this stage, or their authors, trained a stage before it. See birdclef lineage.",
    "?": "? The score may be leaked: it is not known which recordings trained the stages before it. See birdclef lineage.",
}


def list_stages(storage: Storage) -> list[str]:
    """A line for each published stage, by recipe, stage and score."""
    summaries = store_of(storage).summaries()
    if not summaries:
        return [f"The store in {storage.root} has no finished stage yet."]
    uses, problems = stage_uses(storage)
    width = max(8, *(len(item.recipe) for item in summaries.values())) + 2
    ordered = sorted(
        summaries.values(),
        key=lambda item: (item.recipe, len(ancestry([item.stage_id], summaries)), item.stage, -item.metrics.get("cmap", -1.0)),
    )
    shown = [name for name in _SCORES if name in ("cmap", "cmap_pad5") or any(name in item.metrics for item in ordered)]
    titles = "".join(f"{name:>{_SCORE_WIDTH}}" for name in shown)
    lines = [f"{'stage':<18}{'recipe':<{width}}{'of':<14}{titles}{'epochs':>8}{'cost':>13}{'size':>11}{'trials':>8}  from"]
    marks = _leak_marks(storage, summaries)
    for item in ordered:
        scores = "".join(f"{_score(item, name, marks[item.stage_id]):>{_SCORE_WIDTH}}" for name in shown)
        lines.append(
            f"{item.stage_id[:16]:<18}{item.recipe:<{width}}{item.stage:<14}{scores}{item.epochs:>8}"
            f"{format_duration(item.cost_s):>13}{bytes_text(item.num_bytes):>11}{uses.get(item.stage_id, 0):>8}  {_start(item)}"
        )
    total = bytes_text(total_bytes(summaries))
    cost = format_duration(sum(item.cost_s for item in summaries.values()))
    lines.append(
        f"{len(summaries)} stages, {total}, {cost} of device time. Scores are in each stage's label space, ± the standard error where it "
        "is known."
    )
    used = set(marks.values())
    return [*lines, *(text for mark, text in _LEAK_MARKS.items() if mark in used), *problems]


def _score(item: StageSummary, name: str, mark: str) -> str:
    """A score of a stage with its standard error and the mark of a leak; a dash where it was not scored so."""
    score = Score(item.metrics.get(name, math.nan), item.metrics.get(f"{name}{STANDARD_ERROR}"))
    return str(score) if math.isnan(score.value) else f"{score}{mark}"


def _leak_marks(storage: Storage, summaries: Mapping[str, StageSummary]) -> dict[str, str]:
    """Return for each stage whether the stages before it leak into its score, as a key of `_LEAK_MARKS`; empty where they do not."""
    reader = RecordingsReader(store_of(storage).storage)

    @cache
    def mark(data: str, before: frozenset[str | None]) -> str:
        try:
            leak = reader.leak(lambda: reader.recordings(data), data, [TrainedStage(title="", data=other) for other in before])
        except StoreError:  # its own recordings are not known
            return "?"
        return "*" if leak.is_found else "?" if leak.unknown else ""

    return {
        stage_id: "" if item.is_predictions else mark(item.data, frozenset(_data_before(item, summaries)))
        for stage_id, item in summaries.items()
    }


def _data_before(item: StageSummary, summaries: Mapping[str, StageSummary]) -> Iterator[str | None]:
    """Yield the data fingerprint of each stage before one that was trained; None for one that is no longer in the store."""
    for stage_id in item.needs:
        before = summaries.get(stage_id)
        if before is None:
            yield None
            continue
        if not before.is_predictions:
            yield before.data
        yield from _data_before(before, summaries)


def _start(item: StageSummary) -> str:
    return item.parent_id[:16] if item.parent_id else item.start[:24]


def verify_stages(storage: Storage, on_done: Callable[[int, int], None]) -> list[str]:
    """A line for each stage whose files are not what was written; all files are read."""
    store = store_of(storage)
    stage_ids = [stage_id for stage_id in store.known_ids() if store.is_published(stage_id)]
    damaged = []
    for index, stage_id in enumerate(stage_ids):
        if problem := store.check(stage_id):
            damaged.append(f"{stage_id[:16]}: {problem}")
        on_done(index + 1, len(stage_ids))
    return damaged


def usage_lines(storage: Storage) -> list[str]:
    """Bytes by recipe and stage, and of what is not published."""
    store = store_of(storage)
    sizes: Counter[tuple[str, ...]] = Counter()
    for file in store.storage.files():
        sizes[tuple(file.name.split("/")[:2])] += file.num_bytes
    summaries, unfinished = store.summaries(), [size for (kind, _), size in sizes.items() if kind == "unfinished"]
    linked = [stage_id for stage_id in summaries if files_of(stage_id, summaries) != stage_id]
    for stage_id in linked:
        sizes["stages", stage_id] = 0  # the stage that it was adopted from has the same files
    by_kind: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for stage_id, item in summaries.items():
        by_kind[item.recipe, item.stage].append(sizes["stages", stage_id])
    tables = [size for (kind, _), size in sizes.items() if kind == RECORDINGS_FOLDER]
    cut_off = [size for (kind, name), size in sizes.items() if kind == "stages" and name not in summaries]
    lines = [_amount(sum(found), len(found), f"{recipe} {stage}") for (recipe, stage), found in sorted(by_kind.items())]
    if linked:
        lines.append(_amount(0, len(linked), "of these as hard links to the files of the stage that they were adopted from"))
    if cut_off:
        lines.append(_amount(sum(cut_off), len(cut_off), "stages that were cut off or set aside"))
    lines.append(_amount(sum(unfinished), len(unfinished), "epoch checkpoints of unfinished stages"))
    lines.append(_amount(sum(tables), len(tables), "tables of the recordings that stages were trained on"))
    return [*lines, f"{bytes_text(sum(sizes.values())):>11}  in all"]


def _amount(num_bytes: int, number: int, what: str) -> str:
    return f"{bytes_text(num_bytes):>11}  {number:>5} x {what}"


def stage_uses(storage: Storage) -> tuple[Counter[str], list[str]]:
    """How many trials of all sweeps have each stage in their chain; and what is wrong with sweeps that cannot be counted."""
    uses: Counter[str] = Counter()
    problems = []
    for name in sweeps_in(storage):
        try:
            for record in SweepRecords(storage.at(name)).load_trials():
                uses.update(record.stage_ids)
        except InputError as error:
            problems.append(f"Trials of {name} are not counted: {error}")
    return uses, problems
