"""The card of a trained stage: one page that a person reads, with its pictures inside. Shapes: R recordings, C species."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from birdclef_core.config import LossName, flatten
from birdclef_core.evaluation.jackknife import interval_95
from birdclef_core.evaluation.metrics import per_class_ap
from birdclef_core.evaluation.reliability import calibration_error, reliability
from birdclef_core.html import page
from birdclef_core.html.table import Column, Table, facts
from birdclef_core.reports.charts import learning_charts, reliability_chart, species_chart
from birdclef_core.reports.outcome import StageOutcome, WorstRecording, worst_recordings
from birdclef_core.reports.recording_picture import Heard, recording_picture
from birdclef_core.taxonomy import SOUNDSCAPES
from birdclef_core.wording import format_duration

Values = dict[str, object]
"""What a section of the template `stage_card.html.j2` shows."""

_NO_PROBABILITIES: Mapping[LossName, str] = {
    "ce": "cross-entropy, which ranks species",
    "focal": "the focal loss, which pulls scores to the middle",
    "asymmetric": "the asymmetric loss, which lifts scores",
    "soft_auc": "a ranking loss, which ranks clips",
}
"""Losses whose scores are no probabilities, with what they do."""
_ON_SOUNDSCAPES = f"{SOUNDSCAPES}auroc"
_WORST = 6
_SHOWN_BARS = 6
_WORST_SPECIES = 8


def stage_card(outcome: StageOutcome) -> str:
    """Return the page as HTML; it asks nothing of the network."""
    record, scores = outcome.record, outcome.record.metrics
    return page.render(
        "stage_card",
        record=record,
        model=outcome.model,
        tiles=[
            (
                _number(scores["cmap"]),
                f"cmAP, ±\u00a0{_number(1.96 * _error(scores, 'cmap'))}; chance: {_number(scores['cmap_chance'])}",
            ),
            (_number(scores["cmap_pad5"]), f"padded cmAP, ±\u00a0{_number(1.96 * _error(scores, 'cmap_pad5'))}"),
            (_number(scores["lrap"]), "LRAP"),
            (_number(scores["auroc"]), "AUROC"),
            *([(_number(scores[_ON_SOUNDSCAPES]), "AUROC on soundscapes")] if _ON_SOUNDSCAPES in scores else []),
            (f"{len(outcome.truth_RC):,}", "validation recordings"),
            (f"{int(scores['num_scored_species'])} of {len(record.species)}", "species with one"),
        ],
        score=_score(scores),
        charts=learning_charts(record.history),
        bottleneck=record.history[-1]["bottleneck"],
        epochs=_epochs(record.history),
        species=_species(outcome),
        trust=_trust(outcome),
        worst=_worst(outcome),
        origin=_origin(outcome),
        settings=_settings(outcome),
    )


def _score(scores: Mapping[str, float]) -> Values:
    padded, plain = (interval_95(scores[name], _error(scores, name)) for name in ("cmap_pad5", "cmap"))
    return {
        "padded": _number(scores["cmap_pad5"]),
        "has_errors": not np.isnan(_error(scores, "cmap")),
        "padded_interval": [_number(end) for end in padded],
        "lead": _number(2 * _error(scores, "cmap")),
        "plain": _number(scores["cmap"]),
        "plain_interval": [_number(end) for end in plain],
        "times_chance": f"{scores['cmap'] / scores['cmap_chance']:.1f}",
        "num_species": int(scores["num_scored_species"]),
        "soundscapes": _soundscapes(scores),
    }


def _soundscapes(scores: Mapping[str, float]) -> Values | None:
    if _ON_SOUNDSCAPES not in scores:
        return None
    shown = {name: _number(scores[f"{SOUNDSCAPES}{name}"]) for name in ("auroc", "cmap", "cmap_chance")}
    return {**shown, "num_windows": int(scores[f"{SOUNDSCAPES}num_windows"])}


def _error(scores: Mapping[str, float], name: str) -> float:
    """Return the standard error of a score; NaN where it is not known."""
    return scores.get(f"{name}_se", float("nan"))


def _epochs(history: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("epoch", [entry["epoch"] for entry in history]),
        Column("loss", [f"{entry['train_loss']:.4g}" for entry in history]),
        Column("learning rate", [f"{entry['learning_rate']:.2e}" for entry in history]),
        Column("cmAP", [_number(entry["scores"].get("cmap", np.nan)) for entry in history]),
        Column("padded cmAP", [_number(entry["scores"].get("cmap_pad5", np.nan)) for entry in history]),
        Column("clips/s", [f"{entry['clips_per_s']:.1f}" for entry in history]),
        Column("waited for data", [format_duration(entry["waited_s"]) for entry in history]),
        Column("device", [format_duration(entry["device_s"]) for entry in history]),
        Column("evaluation", [format_duration(entry["evaluate_s"]) for entry in history]),
        Column("memory", [f"{entry['memory_bytes'] / 2**30:.1f} GiB" for entry in history]),
    ]
    return Table("epochs", columns)


def _species(outcome: StageOutcome) -> Values:
    precision_C, support_C = per_class_ap(outcome.truth_RC, outcome.score_RC)
    names = np.array(outcome.record.species)
    scored = np.flatnonzero(support_C > 0)
    order = scored[np.lexsort((names[scored], precision_C[scored]))]

    def listed(label: str, chosen: np.ndarray) -> Table:
        columns = [
            Column("species", names[chosen].tolist()),
            Column("average precision", [_number(value) for value in precision_C[chosen]]),
            Column("recordings", support_C[chosen].tolist(), is_number=True),
        ]
        return Table(label, columns, is_sortable=True)

    return {
        "chart": species_chart(precision_C, support_C),
        "worst": listed("species that are found worst", order[:_WORST_SPECIES]),
        "number": len(order),
        "table": listed("all species that are scored", order),
        "unscored": names[support_C == 0].tolist(),
    }


def _trust(outcome: StageOutcome) -> Values:
    bins = reliability(outcome.truth_RC, outcome.score_RC)
    other_loss = _NO_PROBABILITIES.get(outcome.config.loss, "")
    return {"chart": reliability_chart(bins), "error": calibration_error(bins), "other_loss": other_loss}


def _worst(outcome: StageOutcome) -> Values:
    return {
        "num_first": int((outcome.score_RC.argmax(axis=1) == outcome.truth_RC.argmax(axis=1)).sum()),
        "number": len(outcome.truth_RC),
        "recordings": [_worst_recording(outcome, item) for item in worst_recordings(outcome, _WORST)],
    }


def _worst_recording(outcome: StageOutcome, item: WorstRecording) -> Values:
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
    what = f"{recording['recording_id']}: {item.species} ranks {item.rank} of {len(score_C)}"
    return {
        "what": what,
        "picture": recording_picture(db_FN, shown_s, outcome.model.spectrogram, heard, what),
        "probability": f"{item.probability:.2g}",
        "author": recording["author"],
        "duration": format_duration(float(recording["duration_s"])),
        "shown": format_duration(shown_s),
    }


def _origin(outcome: StageOutcome) -> Table:
    record = outcome.record
    fingerprints = {f"{name} fingerprint": str(record.identity[name]) for name in ("data", "code") if name in record.identity}
    trained = f"{format_duration(record.cost_s)} on {record.environment.get('device', '')}, {len(record.history)} epochs"
    values = {
        "stage id": record.stage_id,
        "starts from": f"stage {record.parent_id}" if record.parent_id else "an encoder",
        "its first weights": record.surgery,
        "trained for": trained,
        "finished": record.finished_at,
        **fingerprints,
        **record.environment,
    }
    return facts("where the stage comes from", values)


def _settings(outcome: StageOutcome) -> Table:
    settings = (*flatten(outcome.model, "model"), *flatten(outcome.config))
    return facts("settings", {name: str(value) for name, value in settings})


def _number(value: float) -> str:
    """Return a score with three digits, as scores are written (`.812`), or a dash when it is not defined."""
    return "-" if np.isnan(value) else f"{value:.3f}".removeprefix("0")
