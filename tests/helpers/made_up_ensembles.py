"""Ensembles that nobody has selected."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from made_up_detector import publish_random, tiny_config, write_sound
from made_up_records import SEARCH, sweep_record
from made_up_store import save_trial, store

from birdclef_core.data.dataset import load_dataset
from birdclef_core.ensemble.record import EnsembleMember, EnsembleRecord, EnsembleScore, EnsembleScores
from birdclef_core.ensemble.selection import Rows
from birdclef_core.identity import canonical
from birdclef_core.inference.procedure import DEFAULT
from birdclef_core.store.storage import Storage
from sweeps.execution.recordings_list import RecordingsList
from sweeps.options import SweepOptions
from sweeps.schedule.records import SweepRecords

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


def made_up_rows(*, own, files: int = 8, windows: int = 40, species: int = 12, seed: int = 0, logits_KRC=None) -> Rows:
    """Windows of soundscapes that candidates hear with errors that all share and with errors of their own, one size in `own` for each."""
    generator = np.random.default_rng(seed)
    file_R = np.repeat(np.arange(files), windows)
    shape = (len(file_R), species)
    truth_RC = generator.random(shape) < 0.15
    heard_RC = 1.5 * truth_RC + 0.5 * generator.standard_normal(shape)
    logits = [heard_RC + size * generator.standard_normal(shape) for size in own]
    made_KRC = np.stack(logits).astype(np.float32) if logits_KRC is None else logits_KRC
    return Rows(source="soundscapes", truth_RC=truth_RC, logits_KRC=made_KRC, group_R=file_R)


SPECIES_OF_TONES = ("low", "top")


@dataclass(frozen=True)
class Place:
    """A data folder with labelled soundscapes, and a storage with the stages of a sweep that nobody has trained."""

    storage: Storage
    data: Path
    cache: Path
    fingerprint: str

    def publish(self, stage_id: str, **values) -> None:
        """Publish a stage with random weights that was trained with the data."""
        identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": self.fingerprint}
        known = {
            "species": SPECIES_OF_TONES,
            "identity": identity,
            "trained_by": "s/t0000",
            "metrics": {"cmap": 0.5, "auroc": 0.6},
        }
        publish_random(store(self.storage), stage_id, **{**known, **values})


STAGE_CONFIG = {"name": "train_bce", "label_space": "target"}


def make_place(root: Path, tones: Path, *, files: int = 4, trials: int = 3) -> Place:
    """The recordings of `tone_data`, `files` soundscapes of 15 s, and a sweep with as many finished trials."""
    data = root / "data"
    shutil.copytree(tones, data)
    rows = ["row_id,labels"]
    for file in range(files):
        write_sound(data / "test_soundscapes" / f"s{file}.wav", 15.0, seed=file)
        rows += [f"s{file}_5,low", f"s{file}_10,top", f"s{file}_15,"]
    if files:
        (data / "test_soundscapes_labels.csv").write_text("\n".join(rows) + "\n")
    place = Place(Storage.parse(str(root / "out")), data, root / "cache", load_dataset(data).fingerprint)
    options = SweepOptions(search="sed", name="s", data=str(data), tracking_uri="off")
    SweepRecords(place.storage.at("s")).save_sweep(sweep_record(options, data_fingerprint=place.fingerprint))
    for trial in range(trials):
        stage_id = f"{trial + 1:x}" * 64
        place.publish(stage_id, seed=trial, head="sed", recipe=("sed_v2s", "sed_b3ns")[trial % 2])
        save_trial(place.storage, f"t{trial:04d}", [stage_id], score=0.5)
    return place


def save_folds(place: Place, *, trials: int = 2, folds: int = 2) -> None:
    """Let the sweep have trials with a random model for each fold. With two folds, the stage ids of t0000 begin with 1 and 2, those of
    t0001 with 3 and 4."""
    dataset, records = load_dataset(place.data), SweepRecords(place.storage.at("s"))
    record = records.load_sweep()
    options = replace(record.options, folds=folds)
    part = replace(record.parts[0], options=options, search=replace(SEARCH, objective="val/cmap"))
    records.save_sweep(replace(record, options=options, parts=(part,)))
    for of_fold in map(dataset.of_fold, range(folds)):
        RecordingsList(store(place.storage).storage, of_fold, of_fold.fingerprint).keep()
    for trial in range(trials):
        ids = [f"{folds * trial + fold + 1:x}" * 64 for fold in range(folds)]
        for fold, stage_id in enumerate(ids):
            identity = {"model": canonical(tiny_config("sed")), "stage": STAGE_CONFIG, "data": dataset.of_fold(fold).fingerprint}
            place.publish(stage_id, identity=identity, seed=folds * trial + fold, trained_by=f"s/t{trial:04d}")
        names = [f"train_bce@fold{fold}" for fold in range(folds)]
        save_trial(place.storage, f"t{trial:04d}", ids, stages=names, kinds=["target bce"] * folds, score=0.5)
