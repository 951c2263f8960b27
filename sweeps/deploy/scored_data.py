"""The data that score the candidates of an ensemble: what leaks into them, and what each candidate hears in them.

Of trials with several folds, each recording is heard by the model that did not learn from its fold. Shapes: K candidates, R rows that are
scored, C species.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from scipy.special import expit

from birdclef_core.data.dataset import Dataset
from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.targets import validation_truth
from birdclef_core.ensemble.record import Metric, Source
from birdclef_core.ensemble.selection import Rows
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.identity import fingerprint
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.logits import DeployedLogits, Progress, deployed_logits
from birdclef_core.inference.procedure import Procedure
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.leakage import AUTHOR_OR_PLACE, Leak, RecordingsReader, TrainedStage
from birdclef_core.store.stage_store import StageStore
from birdclef_core.taxonomy import LabelSpace
from sweeps.checkpoints.lineage import trace, trained_stages
from sweeps.deploy.candidates import Candidate, Network
from sweeps.deploy.loading import member_of_stages
from sweeps.execution.recordings import FoundRecordings, RecordingFinder
from sweeps.execution.recordings_list import RecordingsList, list_soundscapes


@dataclass(frozen=True)
class Leaks:
    """What is known of recordings and soundscapes that score a candidate and trained it, a text for each candidate."""

    found: list[str]
    unknown: list[str]
    """Where it is not known which recordings trained it."""
    soundscapes: list[str]


@dataclass(frozen=True)
class ScoredData:
    """Recordings and soundscapes that score candidates."""

    folds: tuple[FoundRecordings, ...]
    """The recordings with the split that each network of a candidate is scored with: one, or one for each fold."""

    @property
    def first(self) -> FoundRecordings:
        """The recordings with the first split. Soundscapes are the same with all."""
        return self.folds[0]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the recordings and soundscapes; with several folds, a hash of theirs."""
        prints = [found.fingerprint for found in self.folds]
        return prints[0] if len(prints) == 1 else fingerprint(prints)

    def rows(self, source: Source, species: Sequence[str], logits: Sequence[DeployedLogits]) -> Rows:
        """Return the rows that candidates are compared on, with the logits of each. Recordings are in the order of the folds."""
        space = LabelSpace.of("deployed", species)
        if source == "soundscapes":
            soundscapes = self.first.dataset.soundscapes
            assert soundscapes is not None
            truth_RC, group_R = soundscapes.truth(space), soundscapes.windows["file"].to_numpy()
        else:
            parts = [(found.dataset.recordings["group"], *validation_truth(found.dataset, space)) for found in self.folds]
            truth_RC = np.concatenate([of_fold_RC for _, _, of_fold_RC in parts])
            group_R = np.concatenate([group.to_numpy(dtype=object)[rows_R].astype(str) for group, rows_R, _ in parts])
        logits_KRC = np.stack([getattr(item, f"{source}_RC") for item in logits])
        return Rows(source=source, truth_RC=truth_RC.astype(np.bool_), logits_KRC=logits_KRC, group_R=group_R)

    def means_of_folds(self, rows: Rows, species: Sequence[str], metric: Metric) -> tuple[float, ...]:
        """Return for each candidate the mean over the folds of its score on the recordings of each, as training scores it."""
        space = LabelSpace.of("deployed", species)
        sizes = [len(validation_truth(found.dataset, space)[0]) for found in self.folds]
        parts = [slice(end - size, end) for end, size in zip(np.cumsum(sizes), sizes, strict=True) if size]
        probability_KRC = expit(rows.logits_KRC.astype(np.float64))
        return tuple(
            float(np.mean([summarise(rows.truth_RC[part], score_RC[part])[metric] for part in parts]))
            for score_RC in probability_KRC
        )


def require_unchanged(data: ScoredData, item: Candidate) -> None:
    """Raise InputError where the recordings are not those that a candidate was trained with."""
    for found, network in zip(data.folds, item.networks, strict=True):
        if found.fingerprint != network.record.identity["data"]:
            raise InputError(
                f"The recordings in {found.dataset.root} must be those that {item.title} was trained with, but they have changed since. "
                f"To score them as they are now, give --data {found.dataset.root}."
            )


def require_same_soundscapes(data: ScoredData, candidates: Sequence[Candidate], finder: RecordingFinder) -> None:
    """Raise InputError where a candidate belongs to other labelled soundscapes than the first."""
    first, *others = candidates
    scapes, known = _soundscapes_of(data.first), {found.fingerprint for found in data.folds}
    for item in others:
        if item.record.identity.get("data") not in known and _soundscapes_of(finder.find(item.record)) != scapes:
            raise InputError(
                "The candidates of an ensemble must belong to the same labelled soundscapes, but those of the recordings of "
                f"{first.title} and of {item.title} differ. To score all of them in one folder, name it with --data."
            )


def find_leaks(store: StageStore, data: ScoredData, candidates: Sequence[Candidate]) -> Leaks:
    """Return which candidates were trained on recordings that score them: each network of one, and all that it was made from, is
    compared with the validation recordings of its own fold, and with the labelled soundscapes that score."""
    reader, leaks = RecordingsReader(store.storage), Leaks([], [], [])
    tables = [RecordingsList(store.storage, found.dataset, found.fingerprint) for found in data.folds]
    for item in candidates:
        trained = [_trained(store, network.record.stage_id) for network in item.networks]
        heard = reader.trained_soundscapes(lambda: tables[0].scored_soundscapes, data.first.fingerprint, chain(*trained))
        if heard.any():
            leaks.soundscapes.append(f"{heard.sum()} trained {item.title}")
        for recordings, stages in zip(tables, trained, strict=True):
            leak = leak_of(reader, recordings, stages)
            if leak.is_found:
                leaks.found.append(_leaked(leak, item.title))
                break
            if leak.unknown:
                leaks.unknown.append(f"it is not known which recordings trained {item.title}")
                break
    return leaks


def leak_of(reader: RecordingsReader, recordings: RecordingsList, stages: Sequence[TrainedStage]) -> Leak:
    """Return the leak from stages into the validation recordings of a dataset."""
    return reader.leak(lambda: recordings.table, recordings.data_fingerprint, stages)


def _trained(store: StageStore, stage_id: str) -> list[TrainedStage]:
    """A stage and all that it was made from, as far as they were trained."""
    return list(trained_stages(trace(stage_id, store.record)))


def require_unlearnt(store: StageStore | None, stage_ids: Sequence[str], dataset: Dataset) -> str:
    """Return a sentence where it is not known which recordings trained a model that has these stages; empty where none that validates did.

    `store`: None where nothing is known of the stages. Raises InputError where validation recordings of `dataset`, or their authors,
    trained one.
    """
    if store is None:
        return "It is not known which recordings trained the model, because their storage is not there."
    reader, recordings = RecordingsReader(store.storage), RecordingsList(store.storage, dataset, dataset.fingerprint)
    unknown = False
    for stage_id in stage_ids:
        leak = leak_of(reader, recordings, _trained(store, stage_id))
        if leak.is_found:
            raise InputError(
                f"Validation recordings that calibrate a model must not have trained it, but {_leaked(leak, f'stage {stage_id[:12]}')}, so "
                "its scores of them are too good. Ways out: the --fold of its sweep; labelled soundscapes, for a model of all recordings or models "
                "of several folds that hear together."
            )
        unknown |= bool(leak.unknown)
    return "It is not known which recordings trained the model: if these did, probabilities are too high." if unknown else ""


def without_learnt(store: StageStore | None, stage_ids: Sequence[str], soundscapes: Soundscapes) -> Soundscapes:
    """Return labelled soundscapes without those that are known to have trained a model that has these stages. `store`: None where nothing
    is known of the stages. Raises InputError where none is left."""
    if store is None:
        return soundscapes
    stages = [stage for stage_id in stage_ids for stage in _trained(store, stage_id)]
    learnt = RecordingsReader(store.storage).trained_soundscapes(lambda: list_soundscapes(soundscapes), "", stages)
    if not learnt.any():
        return soundscapes
    kept = soundscapes.of_files(set(np.flatnonzero(~learnt).tolist()))
    if kept is None:
        raise InputError("Soundscapes that calibrate a model must not have trained it, but all of these did: label others.")
    return kept


def _leaked(leak: Leak, title: str) -> str:
    if leak.num_trained:
        return f"{leak.num_trained} of {leak.num_validation} trained {title}"
    return f"{leak.num_by_author} of {leak.num_validation} have {AUTHOR_OR_PLACE} in common with recordings that trained {title}"


def _soundscapes_of(found: FoundRecordings) -> dict[str, list] | None:
    soundscapes = found.dataset.soundscapes
    return None if soundscapes is None else soundscapes.identity()


class Ears:
    """Hears the scored data with candidates, as they are deployed."""

    def __init__(
        self,
        store: StageStore,
        data: ScoredData,
        procedure: Procedure,
        device: torch.device,
        progress: Callable[[str], Progress],
    ) -> None:
        """`progress` is given the title of each network. Audio that is not in the cache is decoded now."""
        self._store, self._data, self._procedure, self._device = store, data, procedure, device
        self._progress = progress
        first = data.first.training_data()
        self._parts = [(replace(first, dataset=found.dataset), found.fingerprint) for found in data.folds]

    def hear(self, item: Candidate) -> DeployedLogits:
        """Return the logits of a candidate: of each recording those of the network of its fold, of soundscapes the mean over those
        that hear as members of an ensemble."""
        several = len(item.networks) > 1
        parts = [
            self._heard(
                network, data, data_fingerprint, f"{item.title}{f', model {number} of {len(item.networks)}' if several else ''}"
            )
            for number, (network, (data, data_fingerprint)) in enumerate(zip(item.networks, self._parts, strict=True), start=1)
        ]
        on_soundscapes = [part.soundscapes_RC for part in parts]
        if item.refit is not None:
            title = f"{item.title}, trained on all recordings"
            on_soundscapes = [self._heard(Network(record=item.refit), *self._without_recordings, title).soundscapes_RC]
        return DeployedLogits(
            recordings_RC=np.concatenate([part.recordings_RC for part in parts]),
            soundscapes_RC=np.stack(on_soundscapes).mean(axis=0, dtype=np.float64).astype(np.float32),
        )

    def detector(self, item: Candidate, device: torch.device | None = None) -> DeployedDetector:
        """Return the detector that a candidate is as a member of an ensemble."""
        device = device or self._device
        members = tuple(member_of_stages(self._store, network.stage_ids, device) for network in item.hearing)
        return DeployedDetector(members, self._procedure, device)

    def _heard(self, network: Network, data: TrainingData, data_fingerprint: str, title: str) -> DeployedLogits:
        member = member_of_stages(self._store, network.stage_ids, self._device)
        return deployed_logits(
            self._store,
            DeployedDetector((member,), self._procedure, self._device),
            data,
            data_fingerprint,
            kept_with=network.record.stage_id,
            progress=self._progress(title),
        )

    @property
    def _without_recordings(self) -> tuple[TrainingData, str]:
        """The soundscapes alone, for a network that learned from all recordings."""
        data, data_fingerprint = self._parts[0]
        recordings = data.dataset.recordings.assign(is_validation=False)
        return replace(data, dataset=replace(data.dataset, recordings=recordings)), fingerprint([data_fingerprint, "soundscapes"])
