"""Loads a stored stage, an ensemble of several, or a bundle as a detector that predicts files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from birdclef_core.ensemble.record import EnsembleRecord, read_record
from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.reading import Bundle, is_bundle, open_bundle
from birdclef_core.inference.bundle.record import BUNDLE_FILE
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.procedure import DEFAULT, Procedure, get_procedure
from birdclef_core.inference.results.calibration import read_calibration
from birdclef_core.inference.run.predictor import Predictor
from birdclef_core.inference.stored import Model, load_member, load_model
from birdclef_core.store.stage_store import StageEntry, StageRecord, StageStore
from sweeps.checkpoints.references import existing_storage, known_record, resolve, store_of
from sweeps.checkpoints.replay import whole_stage
from sweeps.deploy.names import names_in_file, names_of_stage
from sweeps.options import DEFAULT_STORAGE

ENSEMBLE_SUFFIX = ".json"
"""A reference that ends so is the path of an ensemble. No sweep has such a name."""


def load_detector(
    reference: str | Path,
    *,
    storage: str | None = None,
    procedure: str | Procedure | None = None,
    device: str = "auto",
    names: Path | str | None = None,
    embeddings: bool = False,
    calibration: Path | str | None = None,
) -> Predictor:
    """Return the model that a reference stands for, ready to predict files: `load_detector("NAME").predict("recordings/")`.

    `reference`: what commands call REF, such as the name of a sweep (the last stage of its best trial), the path of an
    `ensemble.json`, or the folder of a bundle. `storage`: the `--storage` of the sweeps, by default the one that the ensemble names, or
    that of the commands; a bundle needs none. `procedure`: a name of `PROCEDURES` or settings of your own, by default those of the
    ensemble or bundle. `device`: `cpu`, `cuda`, or `auto` for a GPU if there is one. `names`: a table with the names of species; by
    default those of the recordings that trained the (first) stage, as far as they are still there. `calibration`: a `calibration.json` of
    this model, for the column `calibrated`; by default that of the bundle. Raises InputError for a reference, procedure, device or
    calibration that does not exist or is of another model, and for a bundle that is damaged, and StoreError for a damaged stage.
    """
    wanted = get_procedure(procedure) if isinstance(procedure, str) else procedure
    if is_bundle(Path(reference)):
        detector = _bundle_detector(open_bundle(Path(reference)), device, wanted)
        if names is not None:
            detector = replace(detector, names=names_in_file(Path(names)))
    else:
        try:
            detector = _stored_detector(str(reference), storage, device_of(device), wanted, Path(names) if names else None)
        except InputError as error:
            if not Path(reference).is_dir():
                raise
            raise InputError(f"The folder {reference} is no bundle, as it has no {BUNDLE_FILE}; and as a REF: {error}") from None
    if calibration is not None:
        detector = with_calibration(detector, Path(calibration))
    return Predictor(detector, embeddings=embeddings)


def _bundle_detector(bundle: Bundle, device: str, wanted: Procedure | None) -> DeployedDetector:
    """The detector of a bundle. Its networks take so many frames, and its scores are of its own procedure, so that only the step can differ."""
    own = bundle.record.procedure
    if wanted is not None and replace(wanted, step_s=own.step_s) != own:
        raise InputError(
            f"A bundle has the procedure that it was exported with: {bundle.folder} cannot have another. Leave --procedure out, or export "
            "it again with --procedure."
        )
    detector = bundle.detector(device_of(device if device != "auto" or bundle.runs_on("cuda") else "cpu"))
    return detector.with_procedure(wanted or own)


def _stored_detector(
    reference: str, storage: str | None, device: torch.device, wanted: Procedure | None, names: Path | None
) -> DeployedDetector:
    """The detector of a stage or an ensemble."""
    ensemble = read_record(Path(reference)) if reference.endswith(ENSEMBLE_SUFFIX) else None
    place = existing_storage(storage or (ensemble.storage if ensemble else DEFAULT_STORAGE))
    store = store_of(place)
    if ensemble:
        first_id, own, members = ensemble.members[0].stage_id, ensemble.procedure, load_ensemble(store, ensemble, device)
    else:
        first_id = resolve(place, reference)
        members = (member_of_stages(store, (first_id,), device),)
        own = hearing(DEFAULT, members[0].clip_s)
    return DeployedDetector(
        members,
        wanted or own,
        device,
        names_in_file(names) if names else names_of_stage(place, known_record(store, first_id)),
        weights_of_first=ensemble.weights_of_first if ensemble else (),
    )


def stages_of(reference: str | Path, storage: str | None) -> tuple[StageStore | None, list[str]]:
    """Return the ids of the stages that a model is made of, and the store that may have them; None where a bundle is alone.

    `reference` and `storage` are those of `load_detector`. Raises InputError for a reference that does not exist.
    """
    if is_bundle(Path(reference)):
        members = open_bundle(Path(reference)).record.members
        ids = [stage_id for member in members for stage_id in (member.stage_id, *member.souped_with)]
        try:
            return store_of(existing_storage(storage or DEFAULT_STORAGE)), ids
        except InputError:
            return None, ids
    ensemble = read_record(Path(reference)) if str(reference).endswith(ENSEMBLE_SUFFIX) else None
    place = existing_storage(storage or (ensemble.storage if ensemble else DEFAULT_STORAGE))
    if ensemble is None:
        return store_of(place), [resolve(place, str(reference))]
    return store_of(place), [stage_id for member in ensemble.members for stage_id in member.stage_ids]


def with_calibration(detector: DeployedDetector, path: Path) -> DeployedDetector:
    """Return a detector with the calibration in a file. Raises InputError when it is of another model or procedure."""
    calibration = read_calibration(path)
    calibration.require_of(detector.model_id, detector.procedure, str(path))
    return replace(detector, calibration=calibration)


def load_ensemble(store: StageStore, ensemble: EnsembleRecord, device: torch.device) -> tuple[Member, ...]:
    """Return the members of an ensemble in their order, with their weights.

    Raises InputError when the store lacks a stage or one knows other species than the ensemble, and StoreError when one is damaged.
    """
    members = []
    for item in ensemble.members:
        member = member_of_stages(store, item.stage_ids, device, weight=item.weight)
        if sorted(member.species) != list(ensemble.species):
            raise InputError(f"Stage {item.stage_id[:16]} must know the species of the ensemble, but knows others.")
        members.append(member)
    return tuple(members)


def member_of_stages(store: StageStore, stage_ids: Sequence[str], device: torch.device, *, weight: float = 1.0) -> Member:
    """Return a stage, or the mean of several, as a member that runs in plain torch; raises as `whole_stage` and `load_member` do."""
    first, *others = (whole_stage(store, stage_id) for stage_id in stage_ids)
    return load_member(first, device, weight=weight, souped_with=others, embeddings=_embeddings(store, first))


def model_of_stages(store: StageStore, stage_ids: Sequence[str]) -> tuple[StageRecord, Model]:
    """Return the record of the first of some stages, and the model that has the mean of their weights; raises as `member_of_stages` does."""
    first, *others = (whole_stage(store, stage_id) for stage_id in stage_ids)
    return first.record, load_model(first, souped_with=others, embeddings=_embeddings(store, first))


def _embeddings(store: StageStore, entry: StageEntry) -> StageEntry | None:
    """The stage that keeps the embeddings of a head, and with them its encoder."""
    return whole_stage(store, entry.record.identity["embeddings"]) if entry.record.is_head else None


def hearing(procedure: Procedure, clip_s: float | None) -> Procedure:
    """Return a procedure that hears as much as a clip of a head on embeddings, where that is more."""
    return replace(procedure, context_s=max(procedure.context_s, clip_s or 0.0))


def embeddings_record(store: StageStore, record: StageRecord) -> StageRecord | None:
    """Return the record of the stage that keeps the embeddings of a head; None for another stage. Raises InputError when it is gone."""
    return known_record(store, record.identity["embeddings"]) if record.is_head else None


def device_of(name: str) -> torch.device:
    """Return a device by its name. Raises InputError when this machine does not have it."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise InputError(f"--device must be auto, cpu or cuda, but got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda needs a GPU that torch can use, but this machine has none: give --device cpu.")
    return torch.device(name)
