"""Starting, resuming and extending: what is kept, what may be given again, what is refused, and what the record says of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import MadeUpWorkers, make_chain_builder, make_coordinator, view_of

from birdclef_core.errors import InputError
from birdclef_core.store.storage import Storage
from sweeps.budget import Limits
from sweeps.options import SweepOptions
from sweeps.run.request import RunningTime, SweepRequest, extend_request, new_request, resume_request
from sweeps.schedule.records import SweepRecords

OWN = """
from dataclasses import replace
from birdclef_core.recipes import sed_b3ns, sed_seresnext26t, sed_v2s
from sweeps.search.space import Range, Search
SEARCH = Search(name="own", recipes=({recipes},), space={{"train_ce.learning_rate": Range(1e-4, {high})}}, objective={objective!r})
"""


class Place:
    """A storage folder with searches of one's own beside it; sweeps there have made-up workers."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, str(folder / "out")
        self.write("own.py")

    def write(self, name: str, recipes: str = "sed_v2s()", high: float = 1e-3, objective: str | None = None) -> str:
        (self.folder / name).write_text(OWN.format(recipes=recipes, high=high, objective=objective))
        return str(self.folder / name)

    def start(self, **options) -> SweepRequest:
        search = str(self.folder / "own.py")
        return new_request(SweepOptions(**{"search": search, "name": "s", "storage": self.storage, "samples": 4, **options}))

    def extend(self, **given) -> SweepRequest:
        return extend_request("s", self.storage, given)

    def resume(self, *, drop_extension: bool = False, retry_failed: bool = False, **given) -> SweepRequest:
        return resume_request("s", self.storage, given, drop_extension=drop_extension, retry_failed=retry_failed)

    def run(self, request: SweepRequest, steps: int = 10_000, data: str = "data", fail_stage: str = "") -> MadeUpWorkers:
        """As the runner does: so many updates, then the end if it has come."""
        search = request.search("small")
        record = request.begin(search, budget="small", data_fingerprint=data, pretrained={"e": "random"})
        coordinator = make_coordinator(self.storage, make_chain_builder(search), sweep="s", samples=request.samples("small"))
        workers = MadeUpWorkers(coordinator)
        workers.fail_stage = fail_stage
        for _ in range(steps):
            if not workers.step():
                request.end(record, "finished", trials=len(coordinator.trials), ran_s=0.0)
                break
        return workers

    def record(self) -> dict:
        return json.loads((Path(self.storage) / "s" / "sweep.json").read_text())


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def test_a_sweep_may_go_on_elsewhere_than_where_it_began(place):
    place.run(place.start(max_concurrent=1, cpus_per_trial=1), steps=3)
    request = place.resume(max_concurrent=4, address="auto")
    assert (request.options.max_concurrent, request.options.cpus_per_trial, request.options.address) == (4, 1, "auto")
    place.run(request, steps=1)
    assert place.resume().options.max_concurrent == 4


def test_an_extended_sweep_goes_on_under_its_numbers_and_keeps_what_it_was_started_with(place):
    place.run(place.start(settings={"epochs": 1}, seed=5, cache_dir="cache"))
    request = place.extend(samples=3)
    assert (request.first_trial, request.part, request.plan_file, request.samples("small")) == (4, 1, "plan-1.json", 7)
    assert (request.options.seed, request.options.settings, request.options.budget) == (5, {"epochs": 1}, "small")
    assert {stage.epochs for stage in request.search("small").recipes[0].stages} == {1}
    workers = place.run(request)
    assert sorted(workers.coordinator.trials) == [f"t000{number}" for number in range(7)]
    assert not workers.coordinator.incomparable


def test_what_was_run_when_is_in_the_record_and_a_resume_goes_on_with_the_last(place):
    place.run(place.start())
    other = place.write("other.py", "sed_b3ns(), sed_v2s()", high=1e-2)
    place.run(place.extend(samples=3, search=other, settings={"train_ce.epochs": 2}), steps=3)
    record = place.record()
    assert [(part["first_trial"], part["samples"], part["search"]["name"]) for part in record["parts"]] == [
        (0, 4, "own"),
        (4, 3, "own"),
    ]
    assert record["state"] == "running" and record["trials"] == 4
    request = place.resume()
    assert (request.part, request.first_trial, request.samples("small"), request.plan_file) == (1, 4, 7, "plan-1.json")
    search = request.search("small")
    assert [recipe.name for recipe in search.recipes] == ["sed_b3ns", "sed_v2s"]
    assert search.recipes[0].stages[2].epochs == 2
    workers = place.run(request)
    assert len(workers.coordinator.trials) == 7 and len(workers.coordinator.incomparable) == 4, "the old ones had other epochs"
    assert place.record()["state"] == "finished" and len(place.record()["parts"]) == 2


def test_a_sweep_goes_on_with_its_own_search_whatever_became_of_the_file(place):
    place.run(place.start())
    before = place.resume().search("small")
    place.write("own.py", "sed_b3ns()", high=1e-2)
    assert place.resume().search("small") == place.extend(samples=1).search("small") == before
    (place.folder / "own.py").unlink()
    assert place.extend(samples=1).search("small") == before
    with pytest.raises(InputError, match="no search"):
        place.extend(samples=1, budget="full").check_search()


def test_an_extension_trains_only_what_is_new(place):
    first = place.run(place.start())
    search = place.write("other.py", "replace(sed_v2s(), stages=sed_v2s().stages[:4]), sed_b3ns()")
    request = place.extend(samples=3, search=search)
    chains = make_chain_builder(request.search("small"))
    store = view_of(first.coordinator).store
    coordinator = make_coordinator(place.storage, chains, sweep="s", samples=request.samples("small"), store=store)
    workers = MadeUpWorkers(coordinator)
    workers.run()
    executed = first.executed + workers.executed
    assert len(executed) == len(set(executed))
    assert any(set(record.stage_ids) & set(first.executed) for record in list(coordinator.trials.values())[4:])


def test_the_command_lines_objective_wins_over_that_of_the_search_file(place):
    assert place.start().check_search().objective is None
    search = place.write("other.py", objective="val/lrap")
    assert place.start(search=search).check_search().objective == "val/lrap"
    asked = place.start(search=search, objective="0.5*val/cmap+0.5*val/auroc").check_search()
    assert asked.objective == "0.5*val/cmap + 0.5*val/auroc"


def test_a_sweep_keeps_its_objective_and_another_is_refused(place):
    place.run(place.start(objective="val/lrap"))
    assert place.resume().search("small").objective == place.extend(samples=1).search("small").objective == "val/lrap"
    place.extend(samples=1, objective="val/lrap").check_search()
    place.extend(samples=1, search=place.write("other.py", high=1e-2)).check_search()
    other = place.write("third.py", objective="val/auroc")
    place.extend(samples=1, search=other, objective="val/lrap").check_search()
    for given in (
        {"objective": "val/auroc"},
        {"search": other, "objective": "val/auroc"},
        {"budget": "full", "objective": "val/auroc"},
    ):
        with pytest.raises(
            InputError, match=r"compared by the same objective, and s has val/lrap, but got val/auroc\. Start a new sweep"
        ):
            place.extend(samples=1, **given).check_search()


def test_a_sweep_keeps_both_objectives(place):
    both = "val/cmap, cost/device_hours"
    place.run(place.start(search=place.write("both.py", objective="val/cmap,cost/device_hours")))
    assert place.resume().search("small").objective == place.extend(samples=1).search("small").objective == both
    place.extend(samples=1, objective="val/cmap,cost/device_hours").check_search()
    for other in ("val/cmap", "val/cmap,cost/cpu_seconds_10min"):
        with pytest.raises(InputError, match="s has val/cmap, cost/device_hours, but got val/cmap"):
            place.extend(samples=1, objective=other).check_search()


def test_pruning_by_rank_is_refused_where_a_cost_counts_too(place):
    asked = {"objective": "val/cmap,cost/device_hours", "pruning": "halving"}
    with pytest.raises(InputError, match="--pruning halving compares scores alone"):
        place.start(**asked).check_search()


def test_a_search_file_with_another_objective_cannot_extend_a_sweep(place):
    place.run(place.start(search=place.write("first.py", objective="val/lrap")))
    with pytest.raises(InputError, match="s has val/lrap, but got val/auroc"):
        place.extend(samples=1, search=place.write("second.py", objective="val/auroc")).check_search()


def test_a_sweep_that_has_not_ended_is_to_be_resumed_first(place):
    place.run(place.start(samples=20), steps=5)
    with pytest.raises(
        InputError,
        match=r"but s is running, or was killed: 2 of its 2 trials .* 18 have not begun. Finish it first: --resume s",
    ):
        place.extend(samples=3)


@pytest.mark.parametrize("samples", [None, 0])
def test_an_extension_says_how_many_more(place, samples):
    place.run(place.start())
    with pytest.raises(InputError, match="takes --samples N"):
        place.extend(**({} if samples is None else {"samples": samples}))


def test_a_sweep_that_is_not_there_names_those_that_are(place):
    place.run(place.start())
    with pytest.raises(InputError, match=r"no sweep 'x' in .*; those that exist: s"):
        extend_request("x", place.storage, {"samples": 3})
    with pytest.raises(InputError, match="--resume s, or extend it by --extend s"):
        place.start()


def test_other_recordings_are_refused(place):
    place.run(place.start())
    for request in (place.resume(), place.extend(samples=1, data="elsewhere")):
        request.check_data("data")
        with pytest.raises(InputError, match=r"began with data data and .* is other now"):
            request.check_data("other")


def test_fewer_trials_than_there_were_are_refused(place):
    place.run(place.start())
    pieces = sorted((Path(place.storage) / "s" / "trials").iterdir())
    began = next(number for number, piece in enumerate(pieces) if '"trial":"t0003"' in piece.read_text())
    for piece in pieces[began:]:
        piece.unlink()
    with pytest.raises(InputError, match=r"had 4 trials and .* has 3. Nothing was changed"):
        place.resume()


def test_the_storage_by_which_a_sweep_was_found_is_the_one_that_it_goes_on_with(place, monkeypatch):
    place.run(place.start())
    records = SweepRecords(Storage.parse(place.storage).at("s"))
    record = records.load_sweep()
    records.save_sweep(replace(record, options=replace(record.options, storage="out")))
    assert place.resume().options.storage == place.extend(samples=1).options.storage == place.storage


def test_failed_trials_are_tried_again_under_their_names(place):
    place.run(place.start(samples=3), fail_stage="train_bce")
    records = SweepRecords(Storage.parse(place.storage).at("s"))
    failed = [trial.trial for trial in records.load_trials() if trial.status == "failed"]
    assert failed
    place.run(place.resume())
    assert [trial.trial for trial in records.load_trials() if trial.status == "failed"] == failed, "unless asked for, they stay"
    request = place.resume(retry_failed=True)
    assert [trial.trial for trial in request.retried] == failed
    assert [trial.trial for trial in records.load_trials() if trial.status == "failed"] == failed, "nothing was changed yet"
    place.run(request)
    trials = records.load_trials()
    assert len(trials) == 3 and {trial.status for trial in trials} <= {"finished", "pruned"}
    assert all(draw.outcome.kind != "failed" for trial in trials for draw in trial.told)
    with pytest.raises(InputError, match="--retry-failed tries failed trials again, but s has none"):
        place.resume(retry_failed=True)


def spoil(place: Place) -> None:
    """Make the search of the sweep's last part one that an older version let in: a learning rate below 0."""
    record = place.record()
    record["parts"][-1]["search"]["space"]["train_ce.learning_rate"]["low"] = -1.0
    (Path(place.storage) / "s" / "sweep.json").write_text(json.dumps(record))


def test_a_sweep_whose_own_search_is_wrong_says_so_before_it_goes_on_and_how_to(place):
    place.run(place.start(samples=40), steps=3)
    spoil(place)
    with pytest.raises(
        InputError, match=r"s cannot draw from its own search, .*'train_ce\.learning_rate'.*-1\.0.*Start a new sweep"
    ):
        place.resume().check_search()
    with pytest.raises(InputError, match=r"--drop-extension takes back an extension, but s has none"):
        place.resume(drop_extension=True)


def test_an_extension_that_cannot_begin_is_dropped_and_leaves_nothing(place):
    place.run(place.start(max_concurrent=3))
    request = place.extend(samples=3, settings={"train_bce.epochs": 1})
    request.begin(request.search("small"), budget="small", data_fingerprint="data", pretrained={"e": "random"})
    plan = Path(place.storage) / "s" / request.plan_file
    plan.write_text("{}")
    spoil(place)
    with pytest.raises(
        InputError, match=r"'train_ce\.learning_rate'.*Drop the extension that brought it: --resume s --drop-extension\."
    ):
        place.resume().check_search()
    with pytest.raises(InputError, match=r"must have ended before it is extended.*--resume s \(with --drop-extension"):
        place.extend(samples=1)
    assert plan.exists() and len(place.record()["parts"]) == 2, "nothing was changed"
    request = place.resume(drop_extension=True, max_concurrent=5)
    assert request.check_search() == place.resume(drop_extension=True).search("small")
    assert (request.part, request.samples("small"), request.options.max_concurrent) == (0, 4, 5)
    assert request.options.settings == {}
    place.run(request)
    assert not plan.exists()
    record = place.record()
    assert (record["state"], record["trials"], len(record["parts"]), record["parts"][0]["samples"]) == ("finished", 4, 1, 4)
    extended = place.run(place.extend(samples=2))
    assert len(extended.coordinator.trials) == 6 and len(place.record()["parts"]) == 2


def test_the_trials_of_an_extension_that_is_dropped_are_finished_and_no_others_are_drawn(place):
    place.run(place.start())
    place.run(place.extend(samples=20), steps=3)
    spoil(place)
    drawn = len(place.resume(drop_extension=True).known)
    assert 4 < drawn < 24
    workers = place.run(place.resume(drop_extension=True))
    records = workers.coordinator.trials.values()
    assert len(records) == drawn and all(record.ended for record in records)
    record = place.record()
    assert (record["state"], record["trials"], [part["samples"] for part in record["parts"]]) == (
        "finished",
        drawn,
        [4, drawn - 4],
    )
    with pytest.raises(InputError, match=r"'train_ce\.learning_rate'.*Give the extension another search: --search\."):
        place.extend(samples=2).check_search()
    other = place.write("other.py", high=2e-3)
    assert len(place.run(place.extend(samples=2, search=other)).coordinator.trials) == drawn + 2


def test_a_wrong_setting_is_said_before_anything_is_made(place):
    with pytest.raises(InputError, match=r"--set epoch=1: .*Perhaps 'every\.epochs' is meant"):
        place.start(settings={"epoch": 1}).check_search()
    place.run(place.start())
    with pytest.raises(InputError, match=r"--set epoch=1: .*Perhaps 'every\.epochs' is meant"):
        place.extend(samples=1, settings={"epoch": 1}).check_search()


def test_settings_that_only_the_small_budget_can_take_are_not_refused(place):
    place.start(search="sed", settings={"clips_per_epoch": 32}).check_search()
    place.start(search="sed", settings={"clips_per_epoch": 32}, data="inputs").check_search()
    with pytest.raises(InputError, match="clips_per_epoch >= batch_size"):
        place.start(search="sed", settings={"clips_per_epoch": 32}, budget="full").check_search()


@pytest.mark.parametrize("value", ["(1, 2)", "{3}", "object()", "float('nan')", "NoiseGroup()"])
def test_a_choice_of_a_value_that_a_record_cannot_hold_is_refused_before_anything_is_written(place, value):
    text = (place.folder / "own.py").read_text().replace("Range(1e-4, 0.001)", f"Choice(({value}, 1e-3))")
    text = text.replace("import Range, Search", "import Choice, Search\nfrom birdclef_core.augment_config import NoiseGroup")
    (place.folder / "own.py").write_text(text)
    with pytest.raises(
        InputError,
        match=r"own\.py, line \d+, 'train_ce\.learning_rate': The values of a Choice must be text, finite numbers, true, false or None",
    ):
        place.start().check_search()
    assert not Path(place.storage).exists()


@pytest.mark.parametrize(("value", "shown"), [("Ellipsis", "Ellipsis"), ("'high'", "'high'")])
def test_a_recipe_with_a_value_of_a_wrong_type_is_refused_with_its_place(place, value, shown):
    place.write("own.py", recipes=f"replace(sed_v2s(), ensemble_weight={value})")
    with pytest.raises(InputError, match=rf"own\.py, line \d+: Recipe\.ensemble_weight takes a float, but got {shown}"):
        place.start().check_search()
    assert not Path(place.storage).exists()


@pytest.mark.parametrize("file", ["sweep.json", "trials/00000000-00000000.jsonl"])
def test_a_damaged_record_is_refused_before_anything_is_written(place, file):
    place.run(place.start(), steps=3)
    path = Path(place.storage) / "s" / file
    path.write_text(
        path.read_text().replace('"status":"running"', '"status":"purple"').replace('"state": "running"', '"state": "purple"')
    )
    before = {path: path.read_bytes() for path in Path(place.storage).rglob("*.json")}
    for ask in (place.resume, lambda: place.extend(samples=1)):
        with pytest.raises(InputError, match=f"{file} cannot be read: .*stat.* must be 'waiting'|state must be 'running'"):
            ask()
    assert {path: path.read_bytes() for path in Path(place.storage).rglob("*.json")} == before


def test_limits_alone_may_end_a_sweep_and_without_them_it_has_a_default(place):
    assert place.start(samples=None).samples("small") == 6
    assert place.start(samples=None, max_hours=2).samples("small") is None
    assert place.start(samples=None, price_per_hour=2).samples("small") == 6, "a price is no limit"
    assert place.start(samples=5, max_gpu_hours=2).samples("small") == 5
    assert place.start(max_cost=4, price_per_hour=2).limits == Limits(cost=4, price_per_hour=2)


def test_a_sweep_goes_on_with_other_limits_and_the_time_that_it_ran_is_kept(place):
    request = place.start(samples=None, max_hours=1)
    record = request.begin(request.search("small"), budget="small", data_fingerprint="data", pretrained={})
    request.end(record, "finished", trials=0, ran_s=3000.0)
    assert place.record()["parts"][0]["samples"] is None
    resumed = place.resume()
    assert (resumed.limits, resumed.ran_s, resumed.samples("small")) == (Limits(hours=1), 3000.0, None)
    more = place.resume(max_hours=2.0, max_gpu_hours=5.0)
    assert more.limits == Limits(hours=2.0, gpu_hours=5.0)
    record = more.begin(more.search("small"), budget="small", data_fingerprint="data", pretrained={})
    assert record.ran_s == 3000.0 and place.resume().limits == more.limits


def test_an_extension_takes_further_trials_or_a_limit_of_the_whole_sweep(place):
    place.run(place.start())
    extension = place.extend(max_gpu_hours=9.0)
    assert (extension.samples("small"), extension.limits) == (None, Limits(gpu_hours=9.0))
    place.run(place.extend(samples=2, max_gpu_hours=9.0))
    assert place.extend(samples=3).limits == Limits(gpu_hours=9.0), "a limit stays until another is given"
    assert place.extend(samples=3).samples("small") == 4 + 2 + 3


class Ticking:
    """A budget whose clock goes on by half a minute whenever it is looked at."""

    def __init__(self) -> None:
        self.now_s = 100.0

    @property
    def ran_s(self) -> float:
        self.now_s += 20.0
        return self.now_s


def test_how_long_drivers_ran_is_on_record_while_they_run(place):
    """A killed driver's time counts too, but for the last minute."""
    request = place.start(max_hours=1)
    record = request.begin(request.search("small"), budget="small", data_fingerprint="data", pretrained={})
    observer = RunningTime(request.records, record, Ticking())
    kept = []
    for _ in range(12):
        observer.updated(None, None)
        kept.append(place.record()["ran_s"])
    assert kept[0] > 100.0 and kept[-1] > kept[0] and len(set(kept)) < len(kept), "not at every update"


def test_a_pruning_that_needs_another_sampler_is_refused_before_anything_is_written(tmp_path):
    place = Place(tmp_path)
    assert place.start(pruning="worth").check_search().sampler == "stage"
    with pytest.raises(InputError, match="--pruning worth needs the sampler 'stage', but the search has 'tpe'"):
        place.start(pruning="worth", sampler="tpe").check_search()
    assert not (tmp_path / "out").exists()
