"""The card of a trained stage: one page that a person reads, with its pictures inside. Shapes: R recordings, C species."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from birdclef_core.config import flatten
from birdclef_core.evaluation.bootstrap import interval_95
from birdclef_core.evaluation.metrics import per_class_ap
from birdclef_core.evaluation.reliability import calibration_error, reliability
from birdclef_core.html.inventory_page import Column, Section, codes, figure, folded, heading, page, pair, paragraph, table
from birdclef_core.reports.charts import learning_chart, reliability_chart, species_chart
from birdclef_core.reports.outcome import StageOutcome, WorstRecording, worst_recordings
from birdclef_core.reports.recording_picture import Heard, recording_picture

_WORST = 6
_SHOWN_BARS = 6
_ENDS = 8
"""Species shown at either end of the table of best and worst."""


def stage_card(outcome: StageOutcome) -> str:
    """The whole page as HTML; asks nothing of the network."""
    record, scores = outcome.record, outcome.record.metrics
    tiles = [
        (_number(scores["cmap_pad5"]), f"padded cmAP, ±\u00a0{_number(1.96 * scores['cmap_pad5_se'])}"),
        (_number(scores["cmap"]), f"cmAP; chance: {_number(scores['cmap_chance'])}"),
        (_number(scores["lrap"]), "LRAP"),
        (_number(scores["auroc"]), "AUROC"),
        (f"{len(outcome.truth_RC):,}", "validation recordings"),
        (f"{int(scores['num_scored_species'])} of {len(record.species)}", "species with one"),
    ]
    sections = (
        Section("score", "What the score is worth", _score(scores)),
        Section("learning", "How it learnt", _learning(record.history)),
        Section("species", "Which species it finds", _species(outcome)),
        Section("trust", "Whether its probabilities can be trusted", _trust(outcome)),
        Section("worst", "Where it is most wrong", _worst(outcome)),
        Section("origin", "Where it comes from and what it cost", _origin(outcome)),
    )
    subtitle = f"{outcome.model.encoder} with a {outcome.model.head.upper()} head, stage {record.stage_id[:12]}"
    return page(f"{record.stage} of {record.recipe}", subtitle, tiles, sections)


def _score(scores: Mapping[str, float]) -> str:
    low, high = interval_95(scores["cmap_pad5"], scores["cmap_pad5_se"])
    plain_low, plain_high = interval_95(scores["cmap"], scores["cmap_se"])
    times = scores["cmap"] / scores["cmap_chance"]
    return (
        paragraph(
            f"Padded cmAP is the competition's score and what trials are compared by: {_number(scores['cmap_pad5'])}. With other "
            f"recordings of the same kind it would lie between {_number(low)} and {_number(high)} (95 %). A lead of "
            f"another model that is much smaller than {_number(2 * scores['cmap_pad5_se'])} may be luck."
        )
        + paragraph(
            "The padding lifts every species: one without a validation recording counts as 1, one with a single recording as "
            f"at least .83. Without it, over the {int(scores['num_scored_species'])} species that have recordings, cmAP is "
            f"{_number(scores['cmap'])} ({_number(plain_low)} to {_number(plain_high)}), {times:.1f} times what a random "
            "ranking would reach."
        )
        + paragraph(
            "Each recording counts once: its first 60 s in windows of the stage's clip length, the maximum over windows. Its primary "
            "species is the only one that counts as true; one in the background that is named is held against the model."
        )
    )


def _learning(history: Sequence[Mapping[str, Any]]) -> str:
    columns = [
        Column("epoch", [entry["epoch"] for entry in history]),
        Column("loss", [f"{entry['train_loss']:.4g}" for entry in history]),
        Column("learning rate", [f"{entry['learning_rate']:.2e}" for entry in history]),
        Column("padded cmAP", [_number(entry["scores"].get("cmap_pad5", np.nan)) for entry in history]),
        Column("cmAP", [_number(entry["scores"].get("cmap", np.nan)) for entry in history]),
        Column("clips/s", [f"{entry['clips_per_s']:.1f}" for entry in history]),
        Column("waited for data", [_duration(entry["waited_s"]) for entry in history]),
        Column("device", [_duration(entry["device_s"]) for entry in history]),
        Column("evaluation", [_duration(entry["evaluate_s"]) for entry in history]),
        Column("memory", [f"{entry['memory_bytes'] / 2**30:.1f} GiB" for entry in history]),
    ]
    return (
        figure(learning_chart(history))
        + paragraph(f"Speed, in the last epoch: {history[-1]['bottleneck']}")
        + folded("All epochs as a table", table(columns))
    )


def _species(outcome: StageOutcome) -> str:
    precision_C, support_C = per_class_ap(outcome.truth_RC, outcome.score_RC)
    names = np.array(outcome.record.species)
    scored = np.flatnonzero(support_C > 0)
    order = scored[np.lexsort((names[scored], precision_C[scored]))]
    unscored = names[support_C == 0]

    def listed(chosen: np.ndarray) -> str:
        return table(
            [
                Column("species", names[chosen].tolist()),
                Column("average precision", [_number(value) for value in precision_C[chosen]]),
                Column("recordings", support_C[chosen].tolist(), number=True),
            ],
            sortable=True,
        )

    parts = [
        pair(
            figure(
                species_chart(precision_C, support_C),
                "A species with few recordings jumps: with one, its average precision is 1 over the recording's rank.",
            ),
            heading("Found worst", "of those with a recording") + listed(order[:_ENDS]),
        ),
        folded(f"All {len(order)} species that are scored, from worst to best", listed(order)),
    ]
    if len(unscored):
        parts.append(
            folded(f"{len(unscored)} species without a validation recording: nothing is known", codes(unscored.tolist()))
        )
    return "".join(parts)


def _trust(outcome: StageOutcome) -> str:
    bins = reliability(outcome.truth_RC, outcome.score_RC)
    error = calibration_error(bins)
    text = (
        paragraph(
            "Of everything that was given a probability of about 30 %, about 30 % should be true. Below the dashed line the model "
            "promises too much, above it too little."
        )
        + paragraph(
            f"The mean distance is {100 * error:.1f} %; nearly all predictions are close to 0, and count most in it. Two things push the curve "
            "down without being the model's fault: the maximum over windows, and background species that count as false."
        )
        + (
            paragraph(
                "This stage was trained with cross-entropy, which ranks species and promises nothing about single probabilities."
            )
            if outcome.config.loss == "ce"
            else ""
        )
    )
    return pair(figure(reliability_chart(bins)), text)


def _worst(outcome: StageOutcome) -> str:
    worst = worst_recordings(outcome, _WORST)
    if not worst:
        return paragraph("In every recording, its own species ranks first.")
    first = int((outcome.score_RC.argmax(axis=1) == outcome.truth_RC.argmax(axis=1)).sum())
    text = paragraph(
        f"In {first:,} of {len(outcome.truth_RC):,} recordings the right species ranks first. These are the worst of the others, one a "
        "species; in green, what is named as heard. Often the label is at fault, or the bird calls after the part that is shown."
    )
    return text + "".join(_worst_recording(outcome, item) for item in worst)


def _worst_recording(outcome: StageOutcome, item: WorstRecording) -> str:
    recording = outcome.recordings.iloc[item.row]
    score_C = outcome.score_RC[item.row]
    likeliest = np.argsort(-score_C, kind="stable")[:_SHOWN_BARS]
    own = outcome.record.species.index(item.species)
    columns = [*likeliest.tolist(), *([] if own in likeliest else [own])]
    heard = [
        Heard(outcome.record.species[column], float(score_C[column]), bool(outcome.truth_RC[item.row, column]))
        for column in columns
    ]
    db_FN, shown_s = outcome.spectrogram(item.row)
    name = f"{recording['recording_id']}: {item.species} ranks {item.rank} of {len(score_C)}"
    caption = (
        f"{name}, probability {item.probability:.2g}; recorded by {recording['author'] or 'nobody named'}, "
        f"{recording['duration_s']:.0f} s, of which {shown_s:.0f} s are shown."
    )
    return figure(recording_picture(db_FN, shown_s, outcome.model.spectrogram, heard, name), caption)


def _origin(outcome: StageOutcome) -> str:
    record = outcome.record
    identity = {name: str(record.identity[name]) for name in ("data", "code") if name in record.identity}
    facts = {
        "stage id": record.stage_id,
        "starts from": f"stage {record.parent_id}" if record.parent_id else "an encoder",
        "its first weights": record.surgery,
        "trained for": f"{_duration(record.cost_s)} on {record.environment.get('device', '')}, {len(record.history)} epochs",
        "finished": record.finished_at,
        **{f"{name} fingerprint": value for name, value in identity.items()},
        **record.environment,
    }
    settings = {name: str(value) for name, value in (*flatten(outcome.model, "model"), *flatten(outcome.config))}
    return _facts(facts) + folded("Every setting", _facts(settings))


def _facts(facts: Mapping[str, str]) -> str:
    return table([Column("what", list(facts)), Column("value", list(facts.values()))])


def _number(value: float) -> str:
    """A score with three digits, as scores are written: .812."""
    return "-" if np.isnan(value) else f"{value:.3f}".removeprefix("0")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
