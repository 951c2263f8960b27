"""The page of an ensemble: what it is worth, what it costs, how alike its candidates are, and which species gain."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from birdclef_core.ensemble.costs import per_file_s
from birdclef_core.ensemble.record import EnsembleRecord, EnsembleScore, Source
from birdclef_core.ensemble.scores import ENSEMBLE, SINGLE, Point, Verdict
from birdclef_core.html import page
from birdclef_core.html.charts import WIDE, Line, curves, dots, label_rows, plain_numbers, without_frame
from birdclef_core.html.table import Column, Table
from birdclef_core.html.theme import DENSITY, FIRST, SECOND, inline_svg

ROWS: Mapping[Source, str] = {"soundscapes": "labelled windows of soundscapes", "recordings": "validation recordings"}
GROUPS: Mapping[Source, str] = {"soundscapes": "soundscape file", "recordings": "author"}


@dataclass(frozen=True, kw_only=True)
class ShownCandidate:
    """What the page says of a candidate."""

    title: str
    trained: str
    """What it scored in training, by the objective."""
    mean_of_folds: float | None = None
    """Where trials with several folds were compared, the mean over these of its scores on the recordings of one."""
    num_networks: int = 1
    """With how many networks it hears as a member."""


def ensemble_page(
    record: EnsembleRecord,
    verdict: Verdict,
    candidates: Sequence[ShownCandidate],
    names: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """Return the page as HTML; it asks nothing of the network. `names`: what people call species, as far as it is known."""
    way, source = verdict.way(ENSEMBLE), record.selected_on
    seconds = [per_file_s(item.cost_ms, record.procedure) for item in verdict.first]
    scores, folds = way.scores, f" of {len(record.folds)} folds" if record.folds else ""
    what = f"{_counted(len(verdict.selected.members), 'trial')} ({_counted(len(record.members), 'stage')})"
    return page.render(
        "ensemble",
        hearing=what if record.folds else _counted(len(record.members), "stage"),
        num_candidates=len(candidates),
        num_folds=len(record.folds),
        metric=f"{record.metric}, out of fold," if record.folds else record.metric,
        data=f"{scores.apparent.num_rows:,} {ROWS[source]}{folds} ({_counted(scores.apparent.num_groups, GROUPS[source])})",
        group=GROUPS[source],
        tiles=[
            (shown(scores.apparent), f"{record.metric}, apparent"),
            (shown(scores.cross_fitted), f"{record.metric}, cross-fitted"),
            (shown(scores.untouched), f"{scores.untouched.metric}, untouched"),
            (shown(verdict.way(SINGLE).scores.cross_fitted), f"{record.metric} of the best single, cross-fitted"),
            (f"{seconds[-1]:.1f} s", "CPU time for ten minutes of audio"),
        ],
        ways=_ways(record, verdict),
        reasons=[
            *([better_way(record, verdict)] if verdict.better else []),
            *sorted({_sentence(score) for score in (scores.cross_fitted, scores.untouched) if score.reason}),
        ],
        notes=notes,
        members=_members(record, verdict, candidates),
        candidates=_candidates(record, verdict, candidates),
        curve=_curve(record, verdict),
        points=_points(record, verdict),
        matrix=_matrix(verdict, candidates),
        species_how="cross-fitted" if scores.cross_fitted.value is not None else "apparent",
        species=_species(record, verdict, names),
    )


def shown(score: EnsembleScore) -> str:
    """Return a score with its standard error as text; a dash where there is none."""
    if score.value is None:
        return "-"
    return f"{score.value:.4f}" if score.error is None else f"{score.value:.4f} ± {score.error:.4f}"


def member_name(record: EnsembleRecord) -> str:
    """Return what to call a candidate that was chosen: a trial of several folds has several members."""
    return "trial" if record.folds else "member"


def better_way(record: EnsembleRecord, verdict: Verdict) -> str:
    """Return a sentence on the simpler way that scores more than the ensemble; empty where none does."""
    way, own = verdict.better, verdict.way(ENSEMBLE).scores.cross_fitted.value
    if way is None or own is None or way.scores.cross_fitted.value is None:
        return ""
    gain = way.scores.cross_fitted.value - own
    return (
        f"Cross-fitted, a simpler way scores {gain:.4f} more than the ensemble: {way.name} ({_counted(len(way.members), member_name(record))}, "
        f"{per_file_s(way.cost_ms, record.procedure):.1f} CPU seconds a file)."
    )


def _ways(record: EnsembleRecord, verdict: Verdict) -> Table:
    ways = verdict.ways
    return Table(
        "the ensemble and simpler ways of combining",
        [
            Column("way", [way.name for way in ways]),
            Column(f"{member_name(record)}s", [len(way.members) for way in ways], is_number=True),
            Column("CPU s a file", [per_file_s(way.cost_ms, record.procedure) for way in ways], is_number=True),
            Column("apparent", [shown(way.scores.apparent) for way in ways]),
            Column("cross-fitted", [shown(way.scores.cross_fitted) for way in ways]),
            Column(f"untouched ({ways[0].scores.untouched.metric})", [shown(way.scores.untouched) for way in ways]),
        ],
    )


def _members(record: EnsembleRecord, verdict: Verdict, candidates: Sequence[ShownCandidate]) -> Table:
    chosen = [candidate for candidate, _ in verdict.selected.members]
    firsts = np.cumsum([0, *(candidates[item].num_networks for item in chosen[:-1])])
    encoders = [record.members[first].encoder for first in firsts]
    costs_ms = [item.cost_ms for item in verdict.first]
    return Table(
        "the members",
        [
            Column("member", [candidates[candidate].title for candidate in chosen]),
            Column("encoder", encoders),
            *([Column("networks", [candidates[item].num_networks for item in chosen], is_number=True)] if record.folds else []),
            Column("weight", [weight for _, weight in verdict.selected.members], is_number=True, shown="{:.3f}".format),
            Column("alone", [verdict.selected.singles[item] for item in chosen], is_number=True, shown=_figure),
            Column("with those above", list(verdict.selected.scores), is_number=True, shown=_figure),
            Column("adds CPU ms", [cost - before for before, cost in pairwise([0.0, *costs_ms])], is_number=True),
        ],
    )


def _candidates(record: EnsembleRecord, verdict: Verdict, candidates: Sequence[ShownCandidate]) -> Table:
    return Table(
        "all candidates",
        [
            Column("candidate", [item.title for item in candidates]),
            Column("in training (objective)", [item.trained for item in candidates]),
            *(
                [
                    Column(
                        "deployed, mean of the folds", [item.mean_of_folds for item in candidates], is_number=True, shown=_figure
                    )
                ]
                if record.folds
                else []
            ),
            Column(f"deployed/{record.metric}", list(verdict.selected.singles), is_number=True, shown=_figure),
            Column("CPU ms a window", [item.cost_ms for item in verdict.singles], is_number=True),
        ],
        is_sortable=True,
    )


def _points(record: EnsembleRecord, verdict: Verdict) -> Table:
    return Table(
        "what the first members score for their time",
        [
            Column(f"first {member_name(record)}s", [len(item.members) for item in verdict.first], is_number=True),
            Column("CPU s a file", [per_file_s(item.cost_ms, record.procedure) for item in verdict.first], is_number=True),
            Column("apparent", [item.apparent for item in verdict.first], is_number=True, shown=_figure),
            Column("cross-fitted", [item.cross_fitted for item in verdict.first], is_number=True, shown=_figure),
        ],
    )


def _species(record: EnsembleRecord, verdict: Verdict, names: Mapping[str, str]) -> Table:
    codes = [record.species[gain.species] for gain in verdict.species]
    return Table(
        "average precision of each species",
        [
            Column("species", [names.get(code) or code for code in codes]),
            Column("rows", [gain.num_rows for gain in verdict.species], is_number=True),
            Column("best single", [gain.single for gain in verdict.species], is_number=True, shown=_figure),
            Column("ensemble", [gain.ensemble for gain in verdict.species], is_number=True, shown=_figure),
            Column("gain", [gain.ensemble - gain.single for gain in verdict.species], is_number=True, shown="{:+.3f}".format),
        ],
        is_sortable=True,
    )


def _curve(record: EnsembleRecord, verdict: Verdict) -> Markup:
    def seconds(points: Sequence[Point]) -> list[float]:
        return [per_file_s(item.cost_ms, record.procedure) for item in points]

    with inline_svg(WIDE, 4.2, "score against CPU time") as canvas:
        axes = canvas.figure.subplots()
        dots(axes, seconds(verdict.singles), [item.apparent for item in verdict.singles])
        lines = [Line(values=[item.apparent for item in verdict.first], label="ensemble, apparent", colour=FIRST)]
        crossed = [item.cross_fitted for item in verdict.first]
        if all(value is not None for value in crossed):
            lines.append(Line(values=[value or 0.0 for value in crossed], label="ensemble, cross-fitted", colour=SECOND))
        curves(axes, seconds(verdict.first), lines)
        axes.set(xlabel="CPU seconds for ten minutes of audio", ylabel=record.metric)
        axes.set_xlim(left=0)
        plain_numbers(axes.xaxis)
        axes.legend(loc="lower right")
    return canvas.svg


def _matrix(verdict: Verdict, candidates: Sequence[ShownCandidate]) -> Markup:
    titles = [f"{number}. {item.title}" for number, item in enumerate(candidates, start=1)]
    with inline_svg(WIDE, 0.9 + 0.3 * len(titles), "correlation of the logits of each two candidates") as canvas:
        _draw_matrix(canvas.figure.subplots(), verdict, titles)
    return canvas.svg


def _draw_matrix(axes: Axes, verdict: Verdict, titles: Sequence[str]) -> None:
    axes.imshow(np.clip(verdict.correlation_KK, 0, 1), aspect="auto", cmap=DENSITY, vmin=0, vmax=1, interpolation="none")
    label_rows(axes, titles)
    axes.set_xticks(range(len(titles)), [str(number) for number in range(1, len(titles) + 1)])
    for (row, column), value in np.ndenumerate(verdict.correlation_KK):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9)
    without_frame(axes)


def _sentence(score: EnsembleScore) -> str:
    return f"{score.reason[0].upper()}{score.reason[1:]}."


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _figure(value: float) -> str:
    return f"{value:.4f}"
