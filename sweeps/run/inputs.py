"""What the trials of a sweep need, found before it runs: recordings, first weights and the maker of chains."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from birdclef_core.code_version import code_version
from birdclef_core.config import EMBEDS, FIRST_WEIGHTS
from birdclef_core.data.dataset import Dataset
from birdclef_core.data.targets import validation_truth
from birdclef_core.errors import InputError
from birdclef_core.evaluation.metrics import summarise
from birdclef_core.models.encoders import RANDOM, PretrainedWeights, resolve_pretrained
from birdclef_core.store.leakage import Leak
from birdclef_core.store.storage import Storage
from birdclef_core.taxonomy import SOUNDSCAPES
from sweeps.checkpoints.start_stage import StartLeak, describe_start
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.nodes.slots import Slots
from sweeps.execution.recordings import load_recordings
from sweeps.execution.recordings_list import RecordingsList
from sweeps.objective import COSTS, DEFAULT, DEFAULT_ON_SOUNDSCAPES, METRICS, Objective
from sweeps.options import SweepOptions
from sweeps.replicates import Replicate
from sweeps.run.request import SweepRequest
from sweeps.run.stage_data import check_stage_data
from sweeps.run.teachers import hears_unlabelled, teacher_records, teachers_by_id
from sweeps.search.chains import ChainBuilder
from sweeps.search.parameters import Choice
from sweeps.search.space import Search
from sweeps.wording import format_duration

ENCODERS_AT_ONCE = 8
"""For how many encoders the Hugging Face hub is asked at once."""


@dataclass(frozen=True, kw_only=True)
class SweepInputs:
    """What a sweep runs on."""

    dataset: Dataset
    chains: ChainBuilder
    slots: Slots
    budget: str
    samples: int | None
    """How many trials the sweep is to have in all; None: as many as its limits allow."""
    recordings: tuple[RecordingsList, ...]
    """The recordings as the store keeps them, to know later what trained a stage, with the split of each fold."""
    leak: Leak | None
    """The validation recordings that trained the start stage; None without a start stage."""


def load_data(options: SweepOptions, folder: Path, say: Callable[[str], None]) -> Dataset:
    """The recordings; unusable ones are listed in `folder`. Raises as `load_dataset` does."""
    dataset = load_recordings(options, bad_files_csv=folder / "unusable_recordings.csv", say=say)
    if options.data is None:
        say(f"Data: the synthetic demo set in {dataset.root} (made-up songs, for trying only; --data DIR for real recordings).")
    validation = int(dataset.recordings["is_validation"].sum())
    say(
        f"Data: {len(dataset.recordings)} recordings of {len(dataset.all_species)} species ({len(dataset.target_species)} target), "
        f"{validation} for validation, {len(dataset.noise)} noise files."
    )
    if dataset.soundscapes is not None:
        say(f"Also scored: {len(dataset.soundscapes.windows)} labelled windows of soundscapes (val_soundscapes/...).")
    for finding in dataset.findings:
        say(f"  {finding.describe()}")
    return dataset


def make_replicates(options: SweepOptions, folds: Sequence[Dataset], cache: AudioCache) -> tuple[Replicate, ...]:
    """Return the replicates in which each trial is trained; empty for one. `folds`: the recordings with the split of each fold."""
    if options.folds is not None:
        return tuple(
            Replicate.of_fold(fold, cache.data_fingerprint(dataset))
            for fold, dataset in zip(options.validating, folds, strict=True)
        )
    fingerprint = cache.data_fingerprint(folds[0])
    return tuple(Replicate.of_repeat(number, fingerprint) for number in range(options.repeats or 0))


def list_recordings(storage: Storage, folds: Sequence[Dataset], cache: AudioCache) -> tuple[RecordingsList, ...]:
    """Return the recordings as the store keeps them, with the split of each fold. `storage` is that of the store."""
    first = RecordingsList(storage, folds[0], cache.data_fingerprint(folds[0]))
    return (first, *(RecordingsList(storage, fold, cache.data_fingerprint(fold), same=first) for fold in folds[1:]))


def choose_objective(asked: str | None, folds: Sequence[Dataset], say: Callable[[str], None]) -> str:
    """Return the objective by which trials are compared, and tell the user which it is.

    Where none is asked for: macro AUROC on labelled soundscapes if that is defined, else unpadded cmAP. `folds`: the recordings with the
    split of each fold that validates. Raises InputError for a score that one of these does not have.
    """
    dataset, *others = folds
    known = _defined(dataset)
    for other in others:
        known = [name for name in known if name in _defined(other)]
    default = DEFAULT_ON_SOUNDSCAPES if DEFAULT_ON_SOUNDSCAPES in known else DEFAULT
    objective = Objective.of(asked or default)
    if missing := [name for name in objective.names if name not in known]:
        why = (
            "has no labelled soundscapes of target species"
            if objective.on_soundscapes and not any(name.startswith(f"val_{SOUNDSCAPES}") for name in known)
            else "has too few labels for it"
        )
        raise InputError(
            f"The data must have what trials are compared by, but for {missing[0]} {dataset.root} {why}. Scores that it has: "
            f"{', '.join(known)}."
        )
    chosen = "" if asked else f" (the default {'with' if default != DEFAULT else 'without'} labelled soundscapes)"
    say(f"Objective: trials are compared by {objective}{chosen}.{_about_cost(objective)}")
    return str(objective)


def _about_cost(objective: Objective) -> str:
    """A sentence about the cost by which trials are compared too; empty where they are not."""
    if objective.cost is None:
        return ""
    return f" The second is {COSTS[objective.cost]}; less is better. The result is the Pareto front of both."


def _defined(dataset: Dataset) -> list[str]:
    """Return the names of the scores that the data define: AUROC, for one, needs recordings with a species and others without."""
    truths = {
        "val/": validation_truth(dataset, dataset.target_species)[1],
        "val_all/": validation_truth(dataset, dataset.all_species)[1],
    }
    if dataset.soundscapes is not None:
        truths[f"val_{SOUNDSCAPES}"] = dataset.soundscapes.truth(dataset.target_species)
    scores = {
        f"{prefix}{name}": value
        for prefix, truth_RC in truths.items()
        if truth_RC.any()
        for name, value in summarise(truth_RC, np.zeros(truth_RC.shape)).items()
    }
    return [
        f"{prefix}{metric}" for prefix in truths for metric in METRICS if np.isfinite(scores.get(f"{prefix}{metric}", np.nan))
    ]


def check_leak(
    request: SweepRequest, search: Search, recordings: Sequence[RecordingsList], say: Callable[[str], None]
) -> Leak | None:
    """Return the leak from the start stage and stored teachers into the validation recordings, and tell the user of it; None without these.

    Of several folds it is the worst one.

    Raises InputError when there is one and the options do not allow it. What is not known is allowed and marked.
    """
    storage = Storage.parse(request.options.storage)
    teachers = teacher_records(search, storage)
    if request.start is None and not teachers:
        if request.options.allow_leaked_scores:
            raise InputError(
                "--allow-leaked-scores allows a start stage or a stored teacher that was trained on validation recordings, but the sweep has "
                "neither (--from-stage, or predicts of a stage of the search). Leave it out."
            )
        return None
    folds = [StartLeak(storage, request.start, teachers, item) for item in recordings]
    worst = max(range(len(folds)), key=lambda index: folds[index].leak.num_trained + folds[index].leak.num_by_author)
    leak = folds[worst].leak
    if leak.is_found and not request.options.allow_leaked_scores:
        may_change = request.kind == "start" and request.options.folds is None
        raise folds[worst].refusal(request.options.validating[worst], may_change_fold=may_change)
    for reason in leak.unknown:
        say(f"Warning: it is not known which recordings trained {reason}.")
    if leak.is_found:
        say(f"Warning: scores will be too high. Each is marked as {leak.sentence}.")
    elif leak.unknown:
        say("Scores are too high if validation recordings did. Each is marked as leaked: unknown.")
    return leak


def make_chain_builder(
    request: SweepRequest, search: Search, folds: Sequence[Dataset], cache: AudioCache, say: Callable[[str], None]
) -> ChainBuilder:
    """Return what makes the chains of a request, and tell the user where the first weights come from.

    `folds`: the recordings with the split of each fold that validates.
    Raises InputError when a continued sweep would have other first weights than before, when the start stage is damaged, and as
    `check_stage_data` does.
    """
    start, dataset = request.start, folds[0]
    encoders = search.encoders()
    for fold in folds:
        check_stage_data(search, fold)
    if start and not _uses_first_weights(search):
        pretrained = dict.fromkeys(encoders, RANDOM)
    else:
        with ThreadPoolExecutor(ENCODERS_AT_ONCE) as pool:  # the hub may take seconds to answer, or not answer at all
            weights = pool.map(lambda encoder: _first_weights(request, encoder), encoders)
            pretrained = dict(zip(encoders, weights, strict=True))
        for line in dict.fromkeys(weights.found for weights in pretrained.values()):
            say(f"Encoders: {line}")
    if start:
        say(describe_start(search, start))
    replicates, storage = make_replicates(request.options, folds, cache), Storage.parse(request.options.storage)
    if replicates:
        names = ", ".join(replicate.name for replicate in replicates)
        say(f"Each trial is trained {len(replicates)} times ({names}); its score is the mean.")
    return ChainBuilder(
        search=search,
        seed=request.options.seed,
        pretrained=pretrained,
        all_species=dataset.all_species,
        target_species=dataset.target_species,
        data_fingerprint=cache.data_fingerprint(dataset),
        code_version=code_version(),
        start=start.stage_id if start else None,
        teachers=teachers_by_id(teacher_records(search, storage), storage),
        unlabelled_fingerprint=_unlabelled(search, dataset, say),
        replicates=replicates,
        sources_fingerprint=dataset.sources_fingerprint,
    )


def _uses_first_weights(search: Search) -> bool:
    """Whether first weights are of use although trials start from a stored stage: for embeddings by the recipe's encoder, or by name."""
    own = {f"{EMBEDS}timm", FIRST_WEIGHTS}
    if any({stage.predicts, stage.starts_from} & own for recipe in search.recipes for stage in recipe.stages):
        return True
    return any(isinstance(item, Choice) and own & {str(value) for value in item.values} for item in search.space.values())


def _unlabelled(search: Search, dataset: Dataset, say: Callable[[str], None]) -> str:
    """The fingerprint of the soundscapes without labels, and a line about them; empty where the search needs none or there are none."""
    if not hears_unlabelled(search) or dataset.unlabelled is None:
        return ""
    files = dataset.unlabelled.files
    say(f"For teachers: {len(files)} soundscapes without labels, {format_duration(float(files['duration_s'].sum()))} of sound.")
    for finding in dataset.unlabelled.findings:
        say(f"  {finding.describe()}")
    return dataset.unlabelled.fingerprint


def _first_weights(request: SweepRequest, encoder: str) -> PretrainedWeights:
    """The first weights of an encoder: those with which it has started in this sweep before, if it has."""
    before = request.encoders().get(encoder)
    if before == RANDOM.name and request.options.pretrained in ("auto", "off"):
        return RANDOM
    weights = resolve_pretrained(encoder, request.options.pretrained)
    if before is not None and weights.name != before:
        raise InputError(
            f"{encoder} must start from the same weights throughout a sweep, and has started from {before} in {request.name}, but these "
            f"are {weights.name} ({weights.found}). Make those reachable, or start a new sweep."
        )
    return weights
