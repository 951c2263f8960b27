"""Trials from a checkpoint: which recipes can start from it, what remains, and that the ids are those of the whole chain."""

from dataclasses import replace
from pathlib import Path

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, make_search
from made_up_stages import publish

from birdclef_core.errors import InputError
from birdclef_core.identity import canonical
from birdclef_core.recipes import cnn_b0ns, sed_v2s, small_budget
from birdclef_core.store.stage_store import StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.teacher_config import TeacherConfig
from sweeps.checkpoints.references import resolve
from sweeps.checkpoints.start_stage import describe_start, find_start, start_after
from sweeps.options import SweepOptions
from sweeps.run.request import extend_request, new_request, resume_request
from sweeps.search import Choice, Range, Search
from sweeps.search.chains import config_fingerprint
from sweeps.search.search_files import override

POINT = {"pretrain.variant": 0, "train_ce.learning_rate": 2e-3, "train.clip_s": 3.0}
OWN = """
from birdclef_core.recipes import sed_b3ns, sed_v2s
from sweeps.search.space import Range, Search
SEARCH = Search(name="own", recipes=(sed_v2s(), sed_b3ns()), space={"train.clip_s": Range(3.0, 5.0), "finetune.clip_s": Range(3.0, 5.0)})
"""


@pytest.fixture
def storage(tmp_path):
    return Storage.parse(str(tmp_path / "out"))


@pytest.fixture
def store(storage):
    return StageStore(storage.at("store"))


def publish_task(store, task):
    return publish(
        store, task.stage_id, parent_id=task.parent_id, recipe=task.recipe, stage=task.config.name, identity=task.identity
    )


def stages(search: Search) -> dict[str, list[str]]:
    return {recipe.name: [stage.name for stage in recipe.stages] for recipe in search.recipes}


@pytest.fixture
def start(store):
    """The second stage of sed_v2s as it is."""
    return publish_task(store, make_chain_builder().chain("sed_v2s", POINT)[1])


def test_only_recipes_of_that_model_remain_with_the_stages_that_follow(start):
    search = start_after(make_search(), start)
    assert stages(search) == {"sed_v2s": ["train_ce", "train_bce", "finetune"]}
    assert set(search.sampled_space(search.recipes[0])) == {"train_ce.learning_rate", "train.clip_s"}
    assert f"starts from sed_v2s pretrain_bce {start.stage_id[:12]} and continues with sed_v2s: train_ce → " in describe_start(
        search, start
    )


def test_the_ids_are_those_of_the_whole_chain(start):
    whole = make_chain_builder().chain("sed_v2s", POINT)
    rest = make_chain_builder(start_after(make_search(), start), start=start.stage_id).chain("sed_v2s", POINT)
    assert [task.stage_id for task in rest] == [task.stage_id for task in whole[2:]]
    assert [task.identity for task in rest] == [task.identity for task in whole[2:]]
    assert rest[0].parent_id == start.stage_id
    assert config_fingerprint(rest) != config_fingerprint(whole[2:][1:])


def test_from_another_checkpoint_the_same_stages_are_other_stages_and_other_trials(start):
    search = start_after(make_search(), start)
    one, other = (make_chain_builder(search, start=stage_id).chain("sed_v2s", POINT) for stage_id in (start.stage_id, "f" * 64))
    assert not {task.stage_id for task in one} & {task.stage_id for task in other}
    assert config_fingerprint(one) != config_fingerprint(other)


def test_where_a_recipe_lacks_the_stage_what_follows_in_the_usual_order_remains(store):
    recipe = small_budget(cnn_b0ns())
    record = publish(store, "a" * 64, stage="pretrain_bce", identity={"model": canonical(recipe.model)})
    search = Search(name="x", recipes=(recipe,), space={})
    assert stages(start_after(search, record)) == {"cnn_b0ns": ["train_ce"]}


def test_another_model_is_refused_with_the_fields_that_differ(start):
    with pytest.raises(
        InputError, match=r"model of sed_v2s pretrain_bce .* none of search 'made-up' .*spectrogram.num_mels is 64 and not 48"
    ):
        start_after(override(make_search(), {"spectrogram.num_mels": 64}), start)
    only = replace(make_search(), recipes=make_search().recipes[1:])
    with pytest.raises(InputError, match=r"sed_b3ns: encoder is 'tf_efficientnet_b3.* and \d+ more"):
        start_after(only, start)


def test_parameters_of_the_model_have_the_values_of_the_start_stage_and_are_no_longer_sampled(store):
    space = {
        "model.drop_path_rate": Range(0.0, 0.3),
        "model.spectrogram.num_mels": Choice((32, 64)),
        "train_ce.learning_rate": Range(1e-4, 1e-3),
    }
    search = replace(make_search(), space=space, pools={"model": 3, "pretrain": 2}, constraints=("model.drop_path_rate < 0.25",))
    free = replace(search, pools={})
    point = {"model.drop_path_rate": 0.125, "model.spectrogram.num_mels": 64, "train_ce.learning_rate": 2e-4}
    chain = make_chain_builder(free).chain("sed_v2s", point)
    start = publish_task(store, chain[1])
    rest = start_after(search, start)
    assert [recipe.name for recipe in rest.recipes] == ["sed_v2s"] and set(rest.space) == {"train_ce.learning_rate"}
    assert rest.recipes[0].model == chain[0].model and rest.pools == {"pretrain": 2}
    again = make_chain_builder(rest, start=start.stage_id).chain("sed_v2s", {"train_ce.learning_rate": 2e-4})
    assert [task.stage_id for task in again] == [task.stage_id for task in chain[2:]]
    with pytest.raises(InputError, match=r"sed_v2s: spectrogram\.num_mels is 48 and not 64"):
        start_after(replace(search, space={"model.drop_path_rate": Range(0.0, 0.3)}), start)


def test_where_nothing_remains_it_is_said_why(store):
    last = publish_task(store, make_chain_builder().chain("sed_v2s", POINT)[-1])
    with pytest.raises(InputError, match=r"Stages must remain after sed_v2s finetune .*, but sed_v2s ends with finetune"):
        start_after(make_search(), last)


def test_a_stage_that_is_not_whole_is_refused_and_left_as_it_is(storage, store, start):
    assert find_start(storage, start.stage_id[:8]).stage_id == start.stage_id
    with pytest.raises(InputError, match=r"stage or sweep"):
        find_start(storage, "abcdef")
    weights = Path(store.location(start.stage_id))
    weights.write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"must be undamaged, but those of .* are not: .*sha256 differs"):
        find_start(storage, start.stage_id)
    assert store.is_published(start.stage_id), "a look does not set it aside"
    store.unpublish(start.stage_id)
    with pytest.raises(InputError, match=r"are not: it is not published. Import it again"):
        find_start(storage, start.stage_id)


def test_trials_from_a_checkpoint_share_what_follows_it_and_do_not_train_it(tmp_path, start):
    search = start_after(make_search(), start)
    search = replace(search, space={"train_ce.learning_rate": Choice((1e-3, 2e-3)), "finetune.learning_rate": Range(1e-4, 1e-3)})
    workers = MadeUpWorkers(make_coordinator(tmp_path, make_chain_builder(search, start=start.stage_id), samples=8))
    workers.run()
    assert start.stage_id not in workers.executed
    assert len(workers.executed) == len(set(workers.executed))
    chains = [record.stage_ids for record in workers.coordinator.trials.values()]
    assert {len(chain) for chain in chains} == {3} and len({chain[0] for chain in chains}) <= 3


class Place:
    """A storage folder with a search of one's own, and a checkpoint of its first recipe."""

    def __init__(self, folder: Path, storage: Storage, start: str) -> None:
        (folder / "own.py").write_text(OWN)
        self.storage, self.start_id = storage, start
        self.options = SweepOptions(
            search=str(folder / "own.py"), name="s", storage=storage.root, samples=3, from_stage=start[:10]
        )

    def run(self, request):
        search = request.search("small")
        record = request.begin(search, budget="small", data_fingerprint="data", pretrained={})
        chains = make_chain_builder(search, start=request.start.stage_id)
        workers = MadeUpWorkers(make_coordinator(self.storage.root, chains, sweep="s", samples=request.samples("small")))
        workers.run()
        request.end(record, "finished", trials=len(workers.coordinator.trials), ran_s=0.0)
        return workers.coordinator


@pytest.fixture
def place(tmp_path, storage, store):
    model = small_budget(sed_v2s()).model
    start = publish(store, "b" * 64, recipe="sed_v2s", stage="pretrain_bce", identity={"model": canonical(model)})
    return Place(tmp_path, storage, start.stage_id)


def test_the_start_is_kept_by_its_whole_id_and_goes_for_a_resume_and_an_extension(place):
    place.run(new_request(place.options))
    for request in (resume_request("s", place.storage.root, {}), extend_request("s", place.storage.root, {"samples": 2})):
        assert request.options.from_stage == request.start.stage_id == place.start_id
        assert stages(request.search("small")) == {"sed_v2s": ["train_ce", "train_bce", "finetune"]}
    coordinator = place.run(request)
    assert len(coordinator.trials) == 5 and not coordinator.incomparable


def test_an_extension_from_another_stage_does_not_compare_with_the_trials_before(place, store):
    before = place.run(new_request(place.options))
    next_stage = make_chain_builder(new_request(replace(place.options, name="x")).search("small"), start=place.start_id).chain(
        "sed_v2s", before.trials["t0000"].params
    )[0]
    publish_task(store, next_stage)
    request = extend_request("s", place.storage.root, {"samples": 2, "from_stage": "s/t0000/train_ce"})
    assert stages(request.search("small")) == {"sed_v2s": ["train_bce", "finetune"]}
    coordinator = place.run(request)
    assert len(coordinator.incomparable) == 3 and len(coordinator.trials) == 5
    assert resolve(place.storage, "s/t0003/train_bce") == coordinator.trials["t0003"].stage_ids[0]


def test_a_setting_that_makes_another_model_is_refused_for_an_extension_too(place):
    place.run(new_request(place.options))
    request = extend_request("s", place.storage.root, {"samples": 2, "settings": {"spectrogram.num_mels": 64}})
    with pytest.raises(InputError, match=r"num_mels is 64 and not 48"):
        request.check_search()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"predicts": "pretrain_ce"}, "predicts"),
        ({"starts_from": "pretrain_bce"}, "starts_from"),
        ({"teacher": TeacherConfig(predictions="pretrain_bce")}, "teacher.predictions"),
    ],
)
def test_a_stage_that_needs_one_before_the_start_is_refused_with_the_way_out(start, changes, field):
    search = make_search()
    recipe = search.recipe("sed_v2s")
    late = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], **changes), *recipe.stages[3:]))
    with pytest.raises(
        InputError, match=rf"but {field} of stage train_ce of recipe 'sed_v2s' is 'pretrain_.*leave --from-stage out"
    ):
        start_after(replace(search, recipes=(late,)), start)
