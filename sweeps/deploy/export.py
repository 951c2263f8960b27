"""Makes a bundle of a stored stage or of an ensemble."""

from pathlib import Path

from birdclef_core.ensemble.record import read_record
from birdclef_core.errors import InputError
from birdclef_core.inference.bundle.examples import Examples, find_examples, no_examples
from birdclef_core.inference.bundle.reading import Bundle
from birdclef_core.inference.bundle.record import FORMAT_NAMES, PRECISIONS, BundlePrecision, FormatName
from birdclef_core.inference.bundle.writing import Contents, Part, check_wish, write_bundle
from birdclef_core.inference.procedure import DEFAULT, Procedure, get_procedure
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import existing_storage, known_record, resolve, store_of
from sweeps.checkpoints.replay import recording_finder
from sweeps.deploy.loading import ENSEMBLE_SUFFIX, hearing, model_of_stages
from sweeps.deploy.names import names_in_file, names_of_stage
from sweeps.execution.recordings import load_recordings
from sweeps.options import DEFAULT_CACHE, DEFAULT_STORAGE, SweepOptions


def export(
    reference: str | Path,
    to: Path,
    *,
    format: FormatName = "torch",
    precision: BundlePrecision = "float32",
    with_frontend: bool = False,
    storage: str | None = None,
    procedure: str | None = None,
    names: Path | None = None,
    data: str | Path | None = None,
    force: bool = False,
) -> Bundle:
    """Write the stage or ensemble that a reference stands for as a bundle to the folder `to`, and return the bundle.

    `reference`, `storage`, `procedure` and `names` are as for `load_detector`. `data`: a data folder or packed set on whose sound the bundle is
    compared with the networks; by default the one that trained the (first) stage. `with_frontend`: the networks have their spectrograms in
    themselves and take sound, for other programs. Raises as `load_detector` and `write_bundle` do.
    """
    for flag, value, known in (("--format", format, FORMAT_NAMES), ("--precision", precision, PRECISIONS)):
        if value not in known:
            raise InputError(f"{flag} must be one of {', '.join(known)}, but got {value!r}.")
    ensemble = read_record(Path(reference)) if str(reference).endswith(ENSEMBLE_SUFFIX) else None
    place = existing_storage(storage or (ensemble.storage if ensemble else DEFAULT_STORAGE))
    store = store_of(place)
    if ensemble:
        stages = [member.stage_ids for member in ensemble.members]
        own, weights_of_first = ensemble.procedure, ensemble.weights_of_first
    else:
        stages, own, weights_of_first = [(resolve(place, str(reference)),)], DEFAULT, ((1.0,),)
    check_wish(to, format, precision, with_frontend=with_frontend)
    parts = tuple(_part(store, stage_ids) for stage_ids in stages)
    if not ensemble:
        own = hearing(own, parts[0].clip_s)
    chosen, first = get_procedure(procedure) if procedure else own, known_record(store, stages[0][0])
    contents = Contents(
        parts=parts,
        weights_of_first=weights_of_first,
        procedure=chosen,
        names=names_in_file(names) if names else names_of_stage(place, first),
        source=str(reference),
        format=format,
        precision=precision,
        with_frontend=with_frontend,
        examples=_examples(place, first, chosen, data),
    )
    return write_bundle(contents, to, force=force)


def _examples(storage: Storage, record: StageRecord, procedure: Procedure, data: str | Path | None) -> Examples:
    """Windows of a data folder, or of the recordings that trained a stage; none where these are no longer there."""
    if data is not None:
        return find_examples(load_recordings(SweepOptions(search="-", data=str(data))), record.species, procedure)
    try:
        dataset = recording_finder(storage, None, DEFAULT_CACHE).find(record).dataset
    except InputError as error:
        return no_examples(procedure, str(error))
    return find_examples(dataset, record.species, procedure)


def _part(store: StageStore, stage_ids: tuple[str, ...]) -> Part:
    record, model = model_of_stages(store, stage_ids)
    return Part(
        stage_id=record.stage_id,
        souped_with=stage_ids[1:],
        recipe=record.recipe,
        stage=record.stage,
        model=model,
        species=tuple(record.species),
    )
