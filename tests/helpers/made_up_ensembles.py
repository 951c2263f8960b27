"""Ensembles that nobody has selected."""

from birdclef_core.ensemble.record import EnsembleMember, EnsembleRecord, EnsembleScore, EnsembleScores
from birdclef_core.inference.procedure import DEFAULT

STAGES = ("ab" * 32, "cd" * 32)


def ensemble_record(**values) -> EnsembleRecord:
    """An ensemble of two stages; `values` replace fields of it."""
    weights = (0.6, 0.4)
    score = EnsembleScore(value=0.8, error=0.02, reason="", metric="auroc", source="soundscapes", num_rows=40, num_groups=4)
    none = EnsembleScore(
        value=None, error=None, reason="no untouched data", metric="auroc", source="soundscapes", num_rows=0, num_groups=0
    )
    members = tuple(
        EnsembleMember(stage_id=stage_id, souped_with=(), recipe="tiny", encoder="tiny", weight=weight, cpu_ms_per_window=20.0)
        for stage_id, weight in zip(STAGES, weights, strict=True)
    )
    known = {
        "version": 1,
        "storage": "sweeps-output",
        "species": ("alpha", "beta", "gamma"),
        "procedure": DEFAULT,
        "members": members,
        "weights_of_first": ((1.0,), weights),
        "objective": "val_soundscapes/auroc",
        "metric": "auroc",
        "selected_on": "soundscapes",
        "data_fingerprint": "d" * 64,
        "scores": EnsembleScores(apparent=score, cross_fitted=score, untouched=none),
        "created_at": "2026-11-26T12:00:00+00:00",
    }
    return EnsembleRecord(**{**known, **values})
