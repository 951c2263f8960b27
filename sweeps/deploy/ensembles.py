"""Chooses an ensemble from stored stages: their logits as deployed, what they cost, the selection, its scores and its record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.ensemble.costs import CandidateCost, Costs, measure
from birdclef_core.ensemble.parts import FOLDS
from birdclef_core.ensemble.ranks import RankedLogits
from birdclef_core.ensemble.record import METRICS, VERSION, EnsembleMember, EnsembleRecord, Metric, Source
from birdclef_core.ensemble.scores import DEFAULT_METRIC, ENSEMBLE, Problem, Verdict, judge
from birdclef_core.ensemble.selection import Rows, Rules, Selected
from birdclef_core.errors import InputError
from birdclef_core.identity import fingerprint
from birdclef_core.inference.deployed import SHOWN_DIGITS
from birdclef_core.inference.logits import DeployedLogits, Progress
from birdclef_core.inference.procedure import DEFAULT, Procedure
from birdclef_core.stages.embeddings.encoders import ONNX_NAME
from birdclef_core.store.stage_store import StageRecord
from sweeps.checkpoints.references import existing_storage, store_of, sweeps_in
from sweeps.deploy.candidates import BEST_OF_A_RECIPE, Candidate, Candidates, find_candidates, is_candidate, siblings, souped
from sweeps.deploy.folded import find_trials, has_folds, other_scores
from sweeps.deploy.loading import device_of, embeddings_record, hearing
from sweeps.deploy.names import names_of_stage
from sweeps.deploy.refit import find_refit
from sweeps.deploy.scored_data import Ears, Leaks, ScoredData, find_leaks, require_same_soundscapes, require_unchanged
from sweeps.deploy.untouched import data_of_stages, read_untouched, untouched_rows
from sweeps.execution.recordings import FoundRecordings, RecordingFinder
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
    refit: bool = False
    """Whether of trials with several folds the model that was trained on all recordings hears, where there is one."""
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
    means_of_folds: tuple[float, ...]
    """Where trials with several folds were compared, the mean over these of what each scores on the recordings of one."""
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
        sweeps = [SweepRecords(self._place.at(name)) for name in sweeps_in(self._place)]
        self._finder = RecordingFinder(sweeps, folder=wish.data, cache_dir=wish.cache_dir)

    def run(self) -> ChosenEnsemble:
        candidates, data, source = self._find()
        self._widen(candidates.found)
        if candidates.num_left_out:
            self._note(
                f"{candidates.num_left_out} more are not among the best {BEST_OF_A_RECIPE} of their recipe and are left out."
            )
        leaks = find_leaks(self._store, data, candidates.found)
        if leaks.unknown:
            self._note(f"Scores on recordings may be too good: {'; '.join(leaks.unknown)}.")
        if source == "recordings" and leaks.found:
            raise InputError(
                f"Validation recordings that select an ensemble must not have trained a candidate, but {'; '.join(leaks.found)}. Ways out: "
                "candidates that were validated on the same fold, or --select-on soundscapes."
            )
        if source == "soundscapes" and leaks.soundscapes:
            raise InputError(
                f"Soundscapes that select an ensemble must not have trained a candidate, but {'; '.join(leaks.soundscapes)}. Ways out: name the other "
                "candidates, or --select-on recordings."
            )
        other: Source = "recordings" if source == "soundscapes" else "soundscapes"
        why_touched = _why_touched(other, candidates, data.first, leaks)
        untouched = self._read_untouched(candidates.found, data.first)
        ears = Ears(self._store, data, self._procedure, self._device, self._progress)
        kept, logits = list(candidates.found), [ears.hear(item) for item in candidates.found]
        costs = self._costs(candidates.found, ears)
        metric, species = _metric(candidates.objective, source), candidates.species
        if self._wish.soup:
            kept, logits, costs = self._with_soups(
                kept, logits, costs, ears, lambda heard: data.rows(source, species, heard), metric
            )
        rows = data.rows(source, species, logits)
        if candidates.folds:
            self._say_out_of_fold(candidates.folds, rows, kept)
        verdict = judge(
            Problem(
                rows=rows,
                metric=metric,
                cost=Costs(tuple(cost.times(len(item.hearing)) for item, cost in zip(kept, costs, strict=True))),
                rules=self._wish.rules,
                recipes=[item.record.recipe for item in kept],
                recipe_weights=[item.recipe_weight for item in kept],
            ),
            (why_touched or data.rows(other, species, logits))
            if untouched is None
            else self._untouched_rows(untouched, kept, ears),
        )
        record = self._record(verdict, kept, costs, candidates, (source, metric, data.fingerprint))
        stage_ids = [stage_id for member in record.members for stage_id in member.stage_ids]
        return ChosenEnsemble(
            record=record,
            verdict=verdict,
            candidates=tuple(kept),
            means_of_folds=data.means_of_folds(rows, species, metric) if candidates.folds else (),
            sweep=candidates.sweep,
            locations={stage_id: self._store.location(stage_id) for stage_id in stage_ids},
            names=names_of_stage(self._place, kept[0].record),
            notes=tuple(self._notes),
        )

    def _find(self) -> tuple[Candidates, ScoredData, Source]:
        """Return the candidates, the data that score them, and which of these decide."""
        candidates = find_candidates(self._place, self._wish.references)
        data = ScoredData((self._finder.find(candidates.found[0].record),))
        source = self._source(data.first)
        if source == "recordings" and has_folds(self._place, self._wish.references):
            candidates = find_trials(self._place, self._wish.references)
            data = ScoredData(tuple(self._finder.of_sweep(candidates.found[0].of_trial.options)))
            if candidates.gone:
                self._note(f"Left out, as the store no longer has their models of all folds: {', '.join(candidates.gone)}.")
            for text in other_scores(candidates):
                self._note(text)
            if self._wish.refit:
                candidates = self._with_refits(candidates, data)
        elif candidates.gone:
            self._note(f"The stages of {counted(len(candidates.gone), 'finished trial')} are no longer in the store.")
        if self._wish.refit and not candidates.folds:
            raise InputError(
                "--refit is for trials of sweeps with --folds where recordings decide, as nothing else says what a model of all recordings is "
                "worth: leave it out, or give --select-on recordings with such sweeps."
            )
        if self._wish.data is None:
            require_unchanged(data, candidates.found[0])
            require_same_soundscapes(data, candidates.found, self._finder)
        return candidates, data, source

    def _with_refits(self, candidates: Candidates, data: ScoredData) -> Candidates:
        """Let trials hear with the models that were trained on all recordings, where the store has them."""
        refits = [find_refit(self._store, item.of_trial.record, data.first) for item in candidates.found]
        found = [
            replace(item, refit=refit if is_candidate(refit) else None)
            for item, refit in zip(candidates.found, refits, strict=True)
        ]
        if without := [item.of_trial.reference for item in found if item.refit is None]:
            self._note(
                f"The store has no model of all recordings of {', '.join(without)}: where chosen, the models of all folds hear. To make one: "
                f"birdclef refit {without[0]}"
            )
        return replace(candidates, found=tuple(found))

    def _widen(self, candidates: Sequence[Candidate]) -> None:
        """Let all hear as much around a window as the longest clip of a head on embeddings."""
        made = [embeddings_record(self._store, item.record) for item in candidates]
        clip_s = max((float(record.identity["stage"]["clip_s"]) for record in made if record), default=0.0)
        if clip_s > self._procedure.context_s:
            self._procedure = hearing(self._procedure, clip_s)
            self._note(f"All hear {clip_s:g} s, as a candidate is a head on embeddings of such clips.")

    def _encoder(self, record: StageRecord) -> str:
        made, own = embeddings_record(self._store, record), record.identity.get("model", {}).get("encoder", "")
        is_file = made is not None and made.identity["parent"].startswith(ONNX_NAME)
        return made.identity["parent"][: len(ONNX_NAME) + SHOWN_DIGITS] if made is not None and is_file else str(own)

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._say(text)

    def _read_untouched(self, candidates: Sequence[Candidate], found: FoundRecordings) -> Soundscapes | None:
        """Return the soundscapes that the user calls untouched, if they are so."""
        if self._wish.untouched is None:
            return None
        stage_ids = [stage_id for item in candidates for stage_id in item.stage_ids]
        seen = data_of_stages(self._place, stage_ids, self._wish.cache_dir, self._note)
        if found.dataset.soundscapes is not None:
            seen.soundscapes.append(found.dataset.soundscapes)
        return read_untouched(self._wish.untouched, seen)

    def _untouched_rows(self, soundscapes: Soundscapes, kept: Sequence[Candidate], ears: Ears) -> Rows:
        detectors = [ears.detector(item, self._device) for item in kept]
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

    def _costs(self, candidates: Sequence[Candidate], ears: Ears) -> list[CandidateCost]:
        """Return what one network of each candidate takes. Those of a trial are alike."""
        costs, known = [], dict[str, CandidateCost]()
        for item in candidates:
            identity = item.record.identity
            model = fingerprint([identity.get("model"), identity.get("embeddings"), identity.get("stage", {}).get("head_hidden")])
            if model not in known:
                known[model] = measure(ears.detector(item, torch.device("cpu")).members[0], self._procedure)
            costs.append(known[model])
        return costs

    def _with_soups(
        self,
        candidates: list[Candidate],
        logits: list[DeployedLogits],
        costs: list[CandidateCost],
        ears: Ears,
        rows_of: Callable[[Sequence[DeployedLogits]], Rows],
        metric: Metric,
    ) -> tuple[list[Candidate], list[DeployedLogits], list[CandidateCost]]:
        """Return the candidates with each family of siblings replaced by the mean of its weights, where that scores better."""
        known = {values[0].stage_ids: values for values in zip(candidates, logits, costs, strict=True)}
        for family in siblings(candidates):
            soup = souped(family)
            heard = ears.hear(soup)
            rows = rows_of([heard, *(known[item.stage_ids][1] for item in family)])
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

    def _say_out_of_fold(self, folds: Sequence[int], rows: Rows, kept: Sequence[Candidate]) -> None:
        of_all = [item.refit is not None for item in kept]
        who = "all models of each trial" if not all(of_all) else "a model of each trial that was trained on all recordings"
        who += ", or the one that was trained on all recordings," if any(of_all) and not all(of_all) else ""
        self._note(
            f"Out of fold: {counted(len(rows.group_R), 'recording')} of {len(folds)} folds decide, each by the model of a trial that did not learn "
            f"from it. In the ensemble {who} will hear, which no recording is left to score."
        )

    def _record(
        self,
        verdict: Verdict,
        kept: Sequence[Candidate],
        costs: Sequence[CandidateCost],
        candidates: Candidates,
        scored: tuple[Source, Metric, str],
    ) -> EnsembleRecord:
        source, metric, data_fingerprint = scored
        members = verdict.selected.members
        hearing = [(number, network) for number, _ in members for network in kept[number].hearing]
        added_ms = Costs(tuple(costs[number] for number, _ in hearing)).added(range(len(hearing)))
        weights = weights_of_first(verdict.selected, [len(kept[number].hearing) for number, _ in members])
        place = self._place.root if self._place.is_local else self._wish.storage
        return EnsembleRecord(
            version=VERSION,
            storage=place,
            species=candidates.species,
            procedure=self._procedure,
            members=tuple(
                EnsembleMember(
                    stage_id=network.record.stage_id,
                    souped_with=network.stage_ids[1:],
                    recipe=network.record.recipe,
                    encoder=self._encoder(network.record),
                    weight=weight,
                    cpu_ms_per_window=cost_ms,
                )
                for (_, network), weight, cost_ms in zip(hearing, weights[-1], added_ms, strict=True)
            ),
            weights_of_first=weights,
            objective=str(candidates.objective),
            metric=metric,
            selected_on=source,
            folds=candidates.folds,
            data_fingerprint=data_fingerprint,
            scores=verdict.way(ENSEMBLE).scores,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def weights_of_first(selected: Selected, sizes: Sequence[int]) -> tuple[tuple[float, ...], ...]:
    """Return for each number of first networks their weights, where each member that was selected hears with as many as `sizes` says.

    The networks of a member share its weight evenly, also where only some of them run.
    """
    weights = []
    for count, size in enumerate(sizes, start=1):
        *before, (_, last) = selected.first(count)
        whole = [weight / number for (_, weight), number in zip(before, sizes, strict=False) for _ in range(number)]
        weights += [(*whole, *[last / number] * number) for number in range(1, size + 1)]
    return tuple(weights)


def _why_touched(source: Source, candidates: Candidates, found: FoundRecordings, leaks: Leaks) -> str:
    """Return why the data that nothing was selected on are not untouched; empty where they are."""
    if source == "soundscapes":
        if found.dataset.soundscapes is None:
            return "there are no labelled soundscapes"
        return "; ".join(leaks.soundscapes) or candidates.touched.get("val_soundscapes", "")
    return "; ".join([*leaks.found, *leaks.unknown]) or candidates.touched.get("val", "")


def _metric(objective: Objective, source: Source) -> Metric:
    """Return what the objective scores on the data that are selected on, and what is usual there if it scores none."""
    kind = "val_soundscapes" if source == "soundscapes" else "val"
    terms = [term for term in objective.terms if term.kind == kind]
    if not terms:
        return DEFAULT_METRIC[source]
    name = max(terms, key=lambda term: term.weight).name.partition("/")[2]
    return METRICS[METRICS.index(name)]
