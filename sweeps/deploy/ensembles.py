"""Chooses an ensemble from stored stages: their logits as deployed, what they cost, the selection, its scores and its record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.data.targets import validation_truth
from birdclef_core.ensemble.costs import CandidateCost, Costs, measure
from birdclef_core.ensemble.parts import FOLDS
from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.record import METRICS, VERSION, EnsembleMember, EnsembleRecord, Metric, Source
from birdclef_core.ensemble.scores import DEFAULT_METRIC, ENSEMBLE, Problem, Verdict, judge
from birdclef_core.ensemble.selection import Rows, Rules
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.deployed import SHOWN_DIGITS, DeployedDetector, Member
from birdclef_core.inference.logits import DeployedLogits, Progress, deployed_logits
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.stages.embeddings.encoders import ONNX_NAME
from birdclef_core.stages.training_data import TrainingData
from birdclef_core.store.leakage import AUTHOR_OR_PLACE, RecordingsReader
from birdclef_core.taxonomy import LabelSpace
from sweeps.checkpoints.lineage import trace, trained_stages
from sweeps.checkpoints.references import existing_storage, store_of, sweeps_in
from sweeps.deploy.candidates import BEST_OF_A_RECIPE, Candidate, Candidates, find_candidates, siblings, souped
from sweeps.deploy.loading import device_of, embeddings_record, hearing, member_of_stages
from sweeps.deploy.names import names_of_stage
from sweeps.deploy.untouched import data_of_stages, read_untouched, untouched_rows
from sweeps.execution.recordings import FoundRecordings, RecordingFinder
from sweeps.execution.recordings_list import RecordingsList
from sweeps.objective import Objective
from sweeps.options import DEFAULT_CACHE, DEFAULT_STORAGE
from sweeps.schedule.records import SweepRecord, SweepRecords
from sweeps.wording import counted

MIN_FILES = FOLDS
"""Soundscape files below which recordings are selected on, unless the user says otherwise: so few birds' voices choose by chance."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class EnsembleWish:
    """What the user asks for."""

    references: tuple[str, ...] = ()
    """Sweeps and stages to choose from; none: the newest sweep."""
    storage: str = DEFAULT_STORAGE
    select_on: Source | None = None
    """None: soundscapes if there are enough of them."""
    rules: Rules = field(default_factory=Rules)
    soup: bool = False
    """Whether the mean of the weights of siblings may take their place."""
    procedure: Procedure = DEFAULT
    data: str | Path | None = None
    """Folder or packed set with the recordings and soundscapes; None: those that the candidates were trained with."""
    untouched: Path | None = None
    """Data folder with labelled soundscapes that no sweep has seen; None: what of `data` nothing was chosen by, if there is any."""
    cache_dir: str = DEFAULT_CACHE
    device: str = "auto"


@dataclass(frozen=True, kw_only=True)
class ChosenEnsemble:
    """The outcome, for the record, the page and the terminal."""

    record: EnsembleRecord
    verdict: Verdict
    candidates: tuple[Candidate, ...]
    """In the order that the verdict's numbers refer to."""
    sweep: SweepRecord | None
    """The first sweep that they are from; None where no sweep is known."""
    locations: Mapping[str, str]
    """Where the weights of each stage of a member are, by stage id."""
    names: Mapping[str, str]
    """What people call species, by their codes, as far as it is known."""
    notes: tuple[str, ...]
    """What the user should know of the choice of data and candidates."""


def choose_ensemble(wish: EnsembleWish, say: Say, progress: Callable[[str], Progress]) -> ChosenEnsemble:
    """Choose an ensemble. `progress` is given the name of each candidate, and gets how far its logits are.

    Raises InputError for stages and data that do not belong together, and StoreError for a damaged stage.
    """
    return _Choice(wish, say, progress).run()


class _Choice:
    """One choice."""

    def __init__(self, wish: EnsembleWish, say: Say, progress: Callable[[str], Progress]) -> None:
        self._wish, self._say, self._progress = wish, say, progress
        self._place = existing_storage(wish.storage)
        self._store = store_of(self._place)
        self._device = device_of(wish.device)
        self._procedure = wish.procedure
        self._notes: list[str] = []
        self._unknown: list[str] = []
        """Why scores on recordings may be leaked."""

    def run(self) -> ChosenEnsemble:
        candidates = find_candidates(self._place, self._wish.references)
        self._widen(candidates.found)
        if candidates.num_left_out:
            self._note(
                f"{candidates.num_left_out} more are not among the best {BEST_OF_A_RECIPE} of their recipe and are left out."
            )
        if candidates.num_gone:
            self._note(f"The stages of {counted(candidates.num_gone, 'finished trial')} are no longer in the store.")
        found = self._recordings(candidates)
        source = self._source(found)
        if source == "recordings":
            candidates = self._of_one_fold(candidates, found)
        leaks = self._leaks(candidates.found, found)
        if source == "recordings" and leaks:
            raise InputError(
                f"Validation recordings that select an ensemble must not have trained a candidate, but {'; '.join(leaks)}. Ways out: "
                "candidates that were validated on the same fold, or --select-on soundscapes."
            )
        other: Source = "recordings" if source == "soundscapes" else "soundscapes"
        why_touched = _why_touched(other, candidates, found, [*leaks, *self._unknown])
        untouched = self._read_untouched(candidates.found, found)
        data = found.training_data()
        kept, logits, costs = self._hear(candidates.found, found, data)
        metric = _metric(candidates.objective, source)
        rows = _rows(source, data, candidates.species, logits)
        if self._wish.soup:
            kept, logits, costs = self._with_soups(kept, logits, costs, found, data, (source, metric, candidates.species))
            rows = _rows(source, data, candidates.species, logits)
        verdict = judge(
            Problem(
                rows=rows,
                metric=metric,
                cost=(both := Costs(tuple(costs))),
                rules=self._wish.rules,
                recipes=[item.record.recipe for item in kept],
                recipe_weights=[item.recipe_weight for item in kept],
            ),
            (why_touched or _rows(other, data, candidates.species, logits))
            if untouched is None
            else self._untouched_rows(untouched, kept),
        )
        record = self._record(verdict, kept, both, candidates, (source, metric, found.fingerprint))
        stage_ids = [stage_id for member in record.members for stage_id in member.stage_ids]
        return ChosenEnsemble(
            record=record,
            verdict=verdict,
            candidates=tuple(kept),
            sweep=candidates.sweep,
            locations={stage_id: self._store.location(stage_id) for stage_id in stage_ids},
            names=names_of_stage(self._place, kept[0].record),
            notes=tuple(self._notes),
        )

    def _widen(self, candidates: Sequence[Candidate]) -> None:
        """Let all hear as much around a window as the longest clip of a head on embeddings."""
        made = [embeddings_record(self._store, item.record) for item in candidates]
        clip_s = max((float(record.identity["stage"]["clip_s"]) for record in made if record), default=0.0)
        if clip_s > self._procedure.context_s:
            self._procedure = hearing(self._procedure, clip_s)
            self._note(f"All hear {clip_s:g} s, as a candidate is a head on embeddings of such clips.")

    def _encoder(self, item: Candidate) -> str:
        made, own = embeddings_record(self._store, item.record), item.record.identity.get("model", {}).get("encoder", "")
        is_file = made is not None and made.identity["parent"].startswith(ONNX_NAME)
        return made.identity["parent"][: len(ONNX_NAME) + SHOWN_DIGITS] if made is not None and is_file else str(own)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(text)

    def _recordings(self, candidates: Candidates) -> FoundRecordings:
        """Return the recordings and soundscapes that score the candidates: those of the first, or in the folder that the user names."""
        sweeps = [SweepRecords(self._place.at(name)) for name in sweeps_in(self._place)]
        finder = RecordingFinder(sweeps, folder=self._wish.data, cache_dir=self._wish.cache_dir)
        first, *others = candidates.found
        found = finder.find(first.record)
        if self._wish.data is not None:
            return found
        if found.fingerprint != first.record.identity["data"]:
            raise InputError(
                f"The recordings in {found.dataset.root} must be those that {first.title} was trained with, but they have changed since. "
                f"To score them as they are now, give --data {found.dataset.root}."
            )
        scapes = _soundscapes_of(found)
        for item in others:
            if item.record.identity.get("data") != found.fingerprint and _soundscapes_of(finder.find(item.record)) != scapes:
                raise InputError(
                    "The candidates of an ensemble must belong to the same labelled soundscapes, but those of the recordings of "
                    f"{first.title} and of {item.title} differ. To score all of them in one folder, name it with --data."
                )
        return found

    def _of_one_fold(self, candidates: Candidates, found: FoundRecordings) -> Candidates:
        """Leave out what was validated on another fold of its sweep: it was trained on the recordings that score the others."""
        others = [item for item in candidates.found if item.has_folds and item.record.identity["data"] != found.fingerprint]
        if others:
            self._note(
                f"{counted(len(others), 'candidate')} of other folds {'is' if len(others) == 1 else 'are'} left out, trained on the validation "
                "recordings. On labelled soundscapes all can be compared."
            )
        return replace(candidates, found=tuple(item for item in candidates.found if item not in others))

    def _read_untouched(self, candidates: Sequence[Candidate], found: FoundRecordings) -> Soundscapes | None:
        """Return the soundscapes that the user calls untouched, if they are so."""
        if self._wish.untouched is None:
            return None
        stage_ids = [stage_id for item in candidates for stage_id in item.stage_ids]
        seen = data_of_stages(self._place, stage_ids, self._wish.cache_dir, self._note)
        if found.dataset.soundscapes is not None:
            seen.soundscapes.append(found.dataset.soundscapes)
        return read_untouched(self._wish.untouched, seen)

    def _untouched_rows(self, soundscapes: Soundscapes, kept: Sequence[Candidate]) -> Rows:
        detectors = [DeployedDetector((self._member(item, self._device),), self._procedure, self._device) for item in kept]
        rows, text = untouched_rows(soundscapes, detectors, Path(self._wish.cache_dir).expanduser())
        self._note(f"Untouched are {text}.")
        return rows

    def _source(self, found: FoundRecordings) -> Source:
        soundscapes = found.dataset.soundscapes
        num_files = 0 if soundscapes is None else len(soundscapes.files)
        if self._wish.select_on == "soundscapes" and not num_files:
            raise InputError(
                f"--select-on soundscapes needs labelled soundscapes, but {found.dataset.root} has none: give --select-on recordings."
            )
        if self._wish.select_on is not None:
            return self._wish.select_on
        if num_files >= MIN_FILES:
            return "soundscapes"
        self._note(
            f"Selected on validation recordings: for soundscapes, {MIN_FILES} labelled files are needed, and {found.dataset.root} has "
            f"{num_files or 'none'}."
        )
        return "recordings"

    def _leaks(self, candidates: Sequence[Candidate], found: FoundRecordings) -> list[str]:
        """Return which candidates were trained on validation recordings, one text each, and note those of which it is not known."""
        recordings = RecordingsList(self._store.storage, found.dataset, found.fingerprint)
        reader = RecordingsReader(self._store.storage)
        leaks = []
        for item in candidates:
            stages = trained_stages(trace(item.record.stage_id, self._store.record))
            leak = reader.leak(lambda: recordings.table, found.fingerprint, stages)
            if leak.num_trained:
                leaks.append(f"{leak.num_trained} of {leak.num_validation} trained {item.title}")
            elif leak.num_by_author:
                leaks.append(
                    f"{leak.num_by_author} of {leak.num_validation} have {AUTHOR_OR_PLACE} in common with recordings that trained {item.title}"
                )
            elif leak.unknown:
                self._unknown.append(f"it is not known which recordings trained {item.title}")
        if self._unknown:
            self._note(f"Scores on recordings may be too good: {'; '.join(self._unknown)}.")
        return leaks

    def _hear(
        self, candidates: Sequence[Candidate], found: FoundRecordings, data: TrainingData
    ) -> tuple[list[Candidate], list[DeployedLogits], list[CandidateCost]]:
        logits, costs, known = [], [], dict[str, CandidateCost]()
        for item in candidates:
            logits.append(self._logits(item, found, data))
            identity = item.record.identity
            model = fingerprint([identity.get("model"), identity.get("embeddings"), identity.get("stage", {}).get("head_hidden")])
            if model not in known:
                known[model] = measure(self._member(item, torch.device("cpu")), self._procedure)
            costs.append(known[model])
        return list(candidates), logits, costs

    def _logits(self, item: Candidate, found: FoundRecordings, data: TrainingData) -> DeployedLogits:
        return deployed_logits(
            self._store,
            DeployedDetector((self._member(item, self._device),), self._procedure, self._device),
            data,
            found.fingerprint,
            kept_with=item.record.stage_id,
            progress=self._progress(item.title),
        )

    def _member(self, item: Candidate, device: torch.device) -> Member:
        return member_of_stages(self._store, item.stage_ids, device)

    def _with_soups(
        self,
        candidates: list[Candidate],
        logits: list[DeployedLogits],
        costs: list[CandidateCost],
        found: FoundRecordings,
        data: TrainingData,
        scored: tuple[Source, Metric, Sequence[str]],
    ) -> tuple[list[Candidate], list[DeployedLogits], list[CandidateCost]]:
        """Return the candidates with each family of siblings replaced by the mean of its weights, where that scores better."""
        source, metric, species = scored
        known = {values[0].stage_ids: values for values in zip(candidates, logits, costs, strict=True)}
        for family in siblings(candidates):
            soup = souped(family)
            heard = self._logits(soup, found, data)
            rows = _rows(source, data, species, [heard, *(known[item.stage_ids][1] for item in family)])
            score, *each = RankedLogits(rows.truth_RC, rows.logits_KRC, metric).singles()
            is_better = score > max(each)
            self._note(
                f"The mean of the weights of {len(family)} siblings ({soup.title}) scores {score:.4f}, the best of them {max(each):.4f}: "
                f"{'it takes their place' if is_better else 'not used'}."
            )
            if is_better:
                cost = known[family[0].stage_ids][2]
                for item in family:
                    del known[item.stage_ids]
                known[soup.stage_ids] = (soup, heard, cost)
        kept, of_kept, cost_of_kept = zip(*known.values(), strict=True)
        return list(kept), list(of_kept), list(cost_of_kept)

    def _record(
        self,
        verdict: Verdict,
        kept: Sequence[Candidate],
        costs: Costs,
        candidates: Candidates,
        scored: tuple[Source, Metric, str],
    ) -> EnsembleRecord:
        source, metric, data_fingerprint = scored
        members = verdict.selected.members
        added_ms = costs.added([candidate for candidate, _ in members])
        weights = tuple(tuple(weight for _, weight in verdict.selected.first(count)) for count in range(1, len(members) + 1))
        place = self._place.root if self._place.is_local else self._wish.storage
        return EnsembleRecord(
            version=VERSION,
            storage=place,
            species=candidates.species,
            procedure=self._procedure,
            members=tuple(
                EnsembleMember(
                    stage_id=kept[candidate].record.stage_id,
                    souped_with=kept[candidate].stage_ids[1:],
                    recipe=kept[candidate].record.recipe,
                    encoder=self._encoder(kept[candidate]),
                    weight=weight,
                    cpu_ms_per_window=cost_ms,
                )
                for (candidate, _), weight, cost_ms in zip(members, weights[-1], added_ms, strict=True)
            ),
            weights_of_first=weights,
            objective=str(candidates.objective),
            metric=metric,
            selected_on=source,
            data_fingerprint=data_fingerprint,
            scores=verdict.way(ENSEMBLE).scores,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _why_touched(source: Source, candidates: Candidates, found: FoundRecordings, leaks: Sequence[str]) -> str:
    """Return why the data that nothing was selected on are not untouched; empty where they are."""
    if source == "soundscapes":
        if found.dataset.soundscapes is None:
            return "there are no labelled soundscapes"
        return candidates.touched.get("val_soundscapes", "")
    return "; ".join(leaks) or candidates.touched.get("val", "")


def _soundscapes_of(found: FoundRecordings) -> dict[str, list] | None:
    soundscapes = found.dataset.soundscapes
    return None if soundscapes is None else soundscapes.identity()


def _metric(objective: Objective, source: Source) -> Metric:
    """Return what the objective scores on the data that are selected on, and what is usual there if it scores none."""
    kind = "val_soundscapes" if source == "soundscapes" else "val"
    terms = [term for term in objective.terms if term.kind == kind]
    if not terms:
        return DEFAULT_METRIC[source]
    name = max(terms, key=lambda term: term.weight).name.partition("/")[2]
    return METRICS[METRICS.index(name)]


def _rows(source: Source, data: TrainingData, species: Sequence[str], logits: Sequence[DeployedLogits]) -> Rows:
    space, dataset = LabelSpace.of("deployed", species), data.dataset
    if source == "soundscapes":
        soundscapes = dataset.soundscapes
        assert soundscapes is not None
        truth_RC, group_R = soundscapes.truth(space), soundscapes.windows["file"].to_numpy()
    else:
        rows_R, truth_RC = validation_truth(dataset, space)
        group_R = dataset.recordings["group"].to_numpy(dtype=object)[rows_R].astype(str)
    logits_KRC = np.stack([getattr(item, f"{source}_RC") for item in logits])
    return Rows(source=source, truth_RC=truth_RC.astype(np.bool_), logits_KRC=logits_KRC, group_R=group_R)
