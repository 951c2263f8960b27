"""An encoder starts from the same weights throughout a sweep, or the sweep is refused; from a checkpoint none are looked for."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up_records import sweep_record
from made_up_stages import publish

from birdclef_core.data.soundscapes import Soundscapes
from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.models.encoders import RANDOM, PretrainedWeights
from birdclef_core.recipes import sed_v2s
from birdclef_core.store.recordings_table import read_recordings
from birdclef_core.store.storage import Storage
from sweeps.checkpoints.references import store_of
from sweeps.cli.tune import tune_main
from sweeps.execution import recordings_list
from sweeps.execution.audio_cache import AudioCache
from sweeps.options import SweepOptions
from sweeps.run import inputs
from sweeps.run.request import SweepRequest
from sweeps.schedule.records import SweepRecords
from sweeps.search.space import Search

ENCODER = sed_v2s().model.encoder
SEARCH = Search(name="x", recipes=(sed_v2s(),), space={})


@pytest.fixture
def sweep_request(tmp_path) -> SweepRequest:
    options = SweepOptions(search="x", storage=str(tmp_path))
    return SweepRequest(kind="start", name="s", options=options, records=SweepRecords(Storage.parse(str(tmp_path)).at("s")))


def make(request, tone_data, tmp_path, search=SEARCH):
    said, cache = [], AudioCache(folder=tmp_path)
    if request.record:
        request = replace(request, record=replace(request.record, data_fingerprint=cache.data_fingerprint(tone_data.dataset)))
    return inputs.make_chain_builder(request, search, [tone_data.dataset], cache, said.append), said


def with_history(request: SweepRequest, weights: str, pretrained: str = "auto") -> SweepRequest:
    part = replace(sweep_record().parts[0], pretrained={ENCODER: weights})
    return replace(
        request, kind="extend", record=sweep_record(parts=(part,)), options=replace(request.options, pretrained=pretrained)
    )


@pytest.fixture
def reachable(monkeypatch):
    monkeypatch.setattr(inputs, "resolve_pretrained", lambda encoder, mode: PretrainedWeights("timm:x", found="the hub's"))


def with_soundscapes(tone_data, *labels: tuple[str, ...]):
    windows = pd.DataFrame({"row_id": [str(row) for row in range(len(labels))], "file": 0, "end_s": 5, "labels": labels})
    return replace(tone_data.dataset, soundscapes=Soundscapes(Path(), pd.DataFrame(), windows, ()))


def test_the_default_objective_follows_the_data(tone_data):
    """Soundscapes in which no target species is heard, or all are heard everywhere, have no AUROC."""
    said: list[str] = []
    assert inputs.choose_objective(None, [tone_data.dataset], said.append) == "val/cmap"
    assert (
        inputs.choose_objective(None, [with_soundscapes(tone_data, ("low",), ("top",))], said.append) == "val_soundscapes/auroc"
    )
    assert inputs.choose_objective(None, [with_soundscapes(tone_data, ("mid",), ())], said.append) == "val/cmap"
    assert inputs.choose_objective(None, [with_soundscapes(tone_data, ("low", "top"))], said.append) == "val/cmap"
    assert inputs.choose_objective("val/lrap", [with_soundscapes(tone_data, ("low",), ())], said.append) == "val/lrap"
    assert said[:2] == [
        "Objective: trials are compared by val/cmap (the default without labelled soundscapes).",
        "Objective: trials are compared by val_soundscapes/auroc (the default with labelled soundscapes).",
    ]
    assert said[-1] == "Objective: trials are compared by val/lrap."
    assert (
        inputs.choose_objective("val/lrap,cost/device_hours", [tone_data.dataset], said.append) == "val/lrap, cost/device_hours"
    )
    assert said[-1] == (
        "Objective: trials are compared by val/lrap, cost/device_hours. The second is device hours of all stages of its chain, reused ones "
        "too; less is better. The result is the Pareto front of both."
    )


@pytest.mark.parametrize(
    ("asked", "labels", "why"),
    [
        (
            "val_soundscapes/auroc",
            None,
            "for val_soundscapes/auroc .* has no labelled soundscapes of target species. Scores .*: val/cmap,",
        ),
        (
            "0.5*val/cmap + 0.5*val_soundscapes/cmap",
            (("mid",), ()),
            "for val_soundscapes/cmap .* no labelled soundscapes of target",
        ),
        (
            "val_soundscapes/auroc",
            (("low", "top"),),
            "for val_soundscapes/auroc .* has too few labels for it. .* val_soundscapes/cmap,",
        ),
    ],
)
def test_an_objective_that_the_data_do_not_have_is_refused_before_anything_is_trained(tone_data, asked, labels, why):
    dataset = with_soundscapes(tone_data, *labels) if labels else tone_data.dataset
    with pytest.raises(InputError, match=why):
        inputs.choose_objective(asked, [dataset], print)


@pytest.mark.parametrize("plan", [(), ("--plan",)], ids=["run", "plan"])
def test_on_the_command_line_such_an_objective_is_wrong_input_and_nothing_is_written(
    tone_data, tmp_path, monkeypatch, capsys, plan
):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "--search",
        "sed",
        "--data",
        str(tone_data.dataset.root),
        "--objective",
        "val/cmap + val_soundscapes/auroc",
        *plan,
    ]
    assert tune_main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: The data must have what trials are compared by, but for val_soundscapes/auroc ")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_looked_for_once_and_said(sweep_request, tone_data, tmp_path, reachable):
    chains, said = make(sweep_request, tone_data, tmp_path)
    assert chains.pretrained[ENCODER].name == "timm:x" and said == ["Encoders: the hub's"]
    assert make(with_history(sweep_request, "timm:x"), tone_data, tmp_path)[0].pretrained == chains.pretrained


def test_what_was_random_stays_random_though_weights_can_be_had_now(sweep_request, tone_data, tmp_path, reachable):
    assert make(with_history(sweep_request, "random"), tone_data, tmp_path)[0].pretrained == {ENCODER: RANDOM}


@pytest.mark.parametrize(("before", "mode"), [("timm:y", "auto"), ("random", "require")])
def test_other_weights_than_before_are_refused(sweep_request, tone_data, tmp_path, reachable, before, mode):
    with pytest.raises(InputError, match=f"has started from {before} in s, but these are timm:x .the hub's."):
        make(with_history(sweep_request, before, mode), tone_data, tmp_path)


def test_from_a_checkpoint_no_weights_are_looked_for(sweep_request, tone_data, tmp_path, monkeypatch):
    monkeypatch.setattr(inputs, "resolve_pretrained", None)
    storage = Storage.parse(sweep_request.options.storage)
    start = publish(store_of(storage), "a" * 64, stage="train_bce", identity={"model": canonical(sed_v2s().model)})
    sweep_request = replace(sweep_request, options=replace(sweep_request.options, from_stage=start.stage_id))
    chains, said = make(sweep_request, tone_data, tmp_path)
    assert chains.start == start.stage_id and "starts from tiny train_bce" in said[0]


@pytest.mark.parametrize("first", [{"starts_from": "first_weights"}, {"predicts": "encoder:timm"}])
def test_from_a_checkpoint_weights_are_looked_for_where_a_stage_begins_with_them(
    sweep_request, tone_data, tmp_path, reachable, first
):
    """A student that starts from the checkpoint may have a teacher that begins with the encoder's own weights."""
    start = publish(store_of(Storage.parse(str(tmp_path))), "a" * 64, stage="own", identity={"model": canonical(sed_v2s().model)})
    sweep_request = replace(sweep_request, options=replace(sweep_request.options, from_stage=start.stage_id))
    stages = (replace(sed_v2s().stages[2], name="first", **first), *sed_v2s().stages[3:])
    search = replace(SEARCH, recipes=(replace(sed_v2s(), stages=stages),))
    chains, said = make(sweep_request, tone_data, tmp_path, search)
    assert chains.pretrained[ENCODER].name == "timm:x" and said[0] == "Encoders: the hub's"


def test_parts_have_the_data_of_their_fold_or_seeds_of_their_own(tone_data, tmp_path):
    cache, options = AudioCache(folder=tmp_path), SweepOptions(search="x")
    folds = [tone_data.dataset.of_fold(fold) for fold in range(2)]
    of_folds = inputs.make_replicates(replace(options, folds=2), folds, cache)
    assert [(replicate.name, replicate.fold, replicate.seed) for replicate in of_folds] == [("fold0", 0, 0), ("fold1", 1, 0)]
    assert [replicate.data_fingerprint for replicate in of_folds] == [fold.fingerprint for fold in folds]
    repeats = inputs.make_replicates(replace(options, repeats=2), folds[:1], cache)
    assert [(replicate.name, replicate.fold, replicate.seed) for replicate in repeats] == [
        ("repeat0", None, 0),
        ("repeat1", None, 1),
    ]
    assert inputs.make_replicates(options, folds[:1], cache) == ()


def test_the_store_keeps_the_recordings_of_every_fold_and_reads_their_files_once(tone_data, tmp_path, monkeypatch):
    storage, read = Storage.parse(str(tmp_path)), []
    monkeypatch.setattr(recordings_list, "content_hashes", lambda files: read.append(len(files)) or ["x"] * len(files))
    folds = [tone_data.dataset.of_fold(fold) for fold in range(3)]
    for recordings in inputs.list_recordings(storage, folds, AudioCache(folder=tmp_path)):
        recordings.keep()
    assert read == [len(tone_data.dataset.recordings)]
    tables = [read_recordings(storage, fold.fingerprint) for fold in folds]
    assert all(table is not None for table in tables)
    assert not tables[0]["is_validation"].equals(tables[1]["is_validation"])


def test_an_objective_must_be_defined_in_every_fold(tone_data):
    """With recordings of one species alone there is no AUROC."""
    first, second = (tone_data.dataset.of_fold(fold) for fold in range(2))
    is_one = second.recordings["is_validation"] & (second.recordings["primary_label"] == "low")
    one_species = replace(second, recordings=second.recordings.assign(is_validation=is_one))
    assert inputs.choose_objective("val/auroc", [first, second], print) == "val/auroc"
    with pytest.raises(InputError, match="has too few labels"):
        inputs.choose_objective("val/auroc", [first, one_species], print)


def test_chains_know_which_recording_came_in_which_source(sweep_request, tone_data, tmp_path, reachable):
    recipe = replace(sed_v2s(), stages=tuple(replace(stage, sources=(("x", 1.0),)) for stage in sed_v2s().stages))
    search = replace(SEARCH, recipes=(recipe,))
    with pytest.raises(InputError, match="must say which source they came in"):
        make(sweep_request, tone_data, tmp_path, search)
    dataset = replace(tone_data.dataset, recordings=tone_data.dataset.recordings.assign(source="x"))
    chains, _ = make(sweep_request, replace(tone_data, dataset=dataset), tmp_path, search)
    assert chains.chain("sed_v2s", {})[1].identity["sources"] == chains.sources_fingerprint == dataset.sources_fingerprint != ""
