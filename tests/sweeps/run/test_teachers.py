"""References of teachers become ids of stored stages, or the answer says what may stand there."""

from dataclasses import replace

import pytest
from made_up_ensembles import ensemble_record
from made_up_store import A, B, C, P, identity, make, publish, store

from birdclef_core.config import Recipe
from birdclef_core.ensemble.record import EnsembleMember, write_record
from birdclef_core.errors import InputError
from birdclef_core.recipes import predictions, sed_seresnext26t
from birdclef_core.store.storage import Storage
from birdclef_core.teacher_config import TeacherConfig
from sweeps.run.teachers import resolve_teachers, teacher_records, teachers_by_id
from sweeps.search.space import Choice, Search

OWN = sed_seresnext26t()
TRAIN = replace(OWN.stages[2], name="train", loss="bce")


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("out"))
    make(root)
    return root


def taught_by(of: str, *values: str) -> Search:
    """A search whose students learn from predictions `of` a teacher; `values`: other teachers that are tried."""
    stages = (
        TRAIN,
        predictions("labels", of=of),
        replace(TRAIN, name="student", starts_from="train", teacher=TeacherConfig(predictions="labels")),
    )
    recipe = Recipe(name="own", model=OWN.model, stages=stages)
    return Search(
        name="own", recipes=(recipe,), space={"labels.predicts": Choice((of, *values))} if values else {}, objective="val/cmap"
    )


def members(*ids: str) -> dict:
    weights = (0.25, 0.75) if len(ids) == 2 else (1.0,)
    of = [
        EnsembleMember(stage_id=stage_id, souped_with=(), recipe="tiny", encoder="tiny", weight=weight, cpu_ms_per_window=1.0)
        for stage_id, weight in zip(ids, weights, strict=True)
    ]
    return {"members": tuple(of), "weights_of_first": ((1.0,), weights)[: len(ids)]}


@pytest.mark.parametrize(
    ("reference", "stored"), [("train", ()), ("s", (C,)), ("s/t0000/pretrain_ce", (P,)), ("9999", (P,)), (B, (B,))]
)
def test_references_become_ids_and_stages_of_the_recipe_stay_names(storage, reference, stored):
    search = resolve_teachers(taught_by(reference), storage)
    assert search.stored_teachers() == stored
    assert search.recipes[0].stages[1].predicts == (stored[0] if stored else "train")
    assert resolve_teachers(search, "nowhere") == search, "a sweep that is resumed asks for nothing again"


def test_values_of_a_parameter_become_ids_too(storage):
    search = resolve_teachers(taught_by("train", "s/t0001", "9999"), storage)
    assert search.space["labels.predicts"].values == ("train", B, P)
    assert search.stored_teachers() == (B, P)


def test_an_ensemble_becomes_its_members_with_their_weights(storage, tmp_path):
    write_record(ensemble_record(**members(A, B)), tmp_path / "ensemble.json")
    search = resolve_teachers(taught_by(str(tmp_path / "ensemble.json")), storage)
    assert search.recipes[0].stages[1].predicts == f"{A}*0.25+{B}*0.75"
    assert search.stored_teachers() == (A, B)


@pytest.mark.parametrize(
    ("of", "answer"),
    [
        ("trian", r"an earlier stage that trains \(train\), a stored stage or an ensemble, but is 'trian'.*Its sweeps: s\."),
        ("student", r"an earlier stage that trains \(train\), .* but is 'student', a later stage\."),
        ("labels", r"but is 'labels', the stage itself\."),
        ("s/t0009", "no trial 't0009'"),
        ("gone/ensemble.json", r"gone/ensemble.json must be an ensemble .*cannot be read: No such file"),
    ],
)
def test_what_cannot_teach_is_refused_with_what_can(storage, of, answer):
    with pytest.raises(InputError, match=answer):
        resolve_teachers(taught_by(of), storage)
    with pytest.raises(InputError, match=answer):
        resolve_teachers(taught_by("train", of), storage)


def test_an_ensemble_that_cannot_teach_is_refused(storage, tmp_path):
    path = tmp_path / "ensemble.json"
    write_record(ensemble_record(**members("e" * 64), storage="elsewhere"), path)
    with pytest.raises(
        InputError, match=r"Stage eeeeeeeeeeeeeeee must be in the store, but is not.* chosen from the stages of elsewhere\."
    ):
        resolve_teachers(taught_by(str(path)), storage)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(InputError, match=r"ensemble\.json"):
        resolve_teachers(taught_by(str(path)), storage)


def test_a_stored_stage_that_gives_no_probabilities_cannot_teach(storage):
    kept, (ranks, teaches) = Storage.parse(storage), ("7" * 64, "8" * 64)
    for stage_id, loss in ((ranks, "soft_auc"), (teaches, "bce")):
        own = identity("train_bce")
        publish(kept, stage_id, "train_bce", identity=own | {"stage": own["stage"] | {"loss": loss}})
    assert [record.stage_id for record in teacher_records(taught_by(teaches), kept)] == [teaches]
    with pytest.raises(InputError, match="the stored train_bce 7777777777777777, whose loss 'soft_auc' orders clips"):
        teacher_records(taught_by(ranks), kept)


def of_head(recipe: Recipe, of: str) -> Search:
    student = replace(recipe.stages[1], name="student", teacher=TeacherConfig(predictions="labels"))
    stages = (predictions("labels", of=of, on="recordings"), student)
    return Search(name="own", recipes=(replace(recipe, stages=stages),), space={})


def test_a_stored_head_teaches_by_its_reference(tiny_recipe, taught):
    storage, (embed, _, head, *_) = taught
    resolved = resolve_teachers(of_head(tiny_recipe, "s/t0000/head"), storage.root)
    assert resolved.recipes[0].stages[0].predicts == head.stage_id
    known = teachers_by_id(teacher_records(resolved, storage), storage)
    assert known[head.stage_id].embeddings_id == embed.stage_id and known[head.stage_id].model == head.model


def test_heads_and_other_stages_of_an_ensemble_teach_with_its_weights(tiny_recipe, taught, tmp_path):
    storage, (embed, _, head, _, student) = taught
    path = tmp_path / "ensemble.json"
    write_record(ensemble_record(**members(student.stage_id, head.stage_id)), path)
    resolved = resolve_teachers(of_head(tiny_recipe, str(path)), storage.root)
    assert resolved.recipes[0].stages[0].predicts == f"{student.stage_id}*0.25+{head.stage_id}*0.75"
    known = teachers_by_id(teacher_records(resolved, storage), storage)
    assert [known[task.stage_id].embeddings_id for task in (student, head)] == [None, embed.stage_id]


def test_a_stage_of_embeddings_and_a_head_without_them_cannot_teach(tiny_recipe, taught, tmp_path):
    storage, (embed, _, head, *_) = taught
    with pytest.raises(InputError, match="keeps embeddings"):
        teacher_records(of_head(tiny_recipe, embed.stage_id), storage)
    alone = Storage.parse(str(tmp_path))
    store(alone).publish_copy(store(storage).open(head.stage_id))
    with pytest.raises(InputError, match=f"the embeddings of the teacher {head.stage_id[:16]} must be undamaged, but"):
        teacher_records(of_head(tiny_recipe, head.stage_id), alone)
