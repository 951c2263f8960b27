"""A sweep from a stage that was trained on its validation recordings: refused with the numbers, or allowed and marked everywhere.

Stages are made up and nothing is trained; recordings, folds, command line, records and result are real.
"""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import soundfile
from made_up import MadeUpWorkers
from made_up_stages import publish
from numpy.random import default_rng

from birdclef_core.data.dataset import load_dataset
from birdclef_core.identity import canonical
from birdclef_core.recipes import sed_v2s, small_budget
from birdclef_core.store.recordings_table import table_name
from birdclef_core.store.stage_store import StageRecord, StageStore
from birdclef_core.store.storage import Storage
from birdclef_core.store.summary import IMPORTED, Spread
from sweeps.checkpoints.garbage import find_garbage, remove_garbage
from sweeps.cli.birdclef import birdclef
from sweeps.cli.tune import tune_main
from sweeps.execution.audio_cache import AudioCache
from sweeps.execution.nodes.slots import Slots
from sweeps.execution.recordings_list import RecordingsList
from sweeps.plan import planner
from sweeps.run import runner
from sweeps.tracking.events import DeliveryStatus, StageStarted, SweepFinished, SweepStarted, TrialStarted

SEARCH = """
from birdclef_core.recipes import sed_v2s
from sweeps.search.space import Range, Search
SEARCH = Search(name="own", recipes=(sed_v2s(),), space={"finetune.learning_rate": Range(1e-4, 1e-3)})
"""
TAUGHT = """
from dataclasses import replace
from birdclef_core.recipes import predictions, sed_v2s
from birdclef_core.teacher_config import TeacherConfig
from sweeps.search.space import Range, Search
OWN = sed_v2s()
LABELS = predictions("labels", of="aaaa", on="recordings")
STUDENT = replace(OWN.stages[2], name="student", teacher=TeacherConfig(predictions="labels"))
RECIPE = replace(OWN, stages=(LABELS, STUDENT))
SEARCH = Search(name="own", recipes=(RECIPE,), space={"student.learning_rate": Range(1e-4, 4e-4)})
"""
SPECIES, AUTHORS = 4, 10


def add_recordings(root: Path, numbers: range, author) -> None:
    """A tenth of a second of noise for each number; `author` gives the author of a number."""
    rows = pd.read_csv(root / "train.csv").to_dict("records") if (root / "train.csv").exists() else []
    for number in numbers:
        name = f"sp{number % SPECIES}/rec{number}.wav"
        (root / "train_audio" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "train_audio" / name, default_rng(number).normal(0, 0.1, 3200), 32_000)
        rows.append(
            {"primary_label": name[:3], "secondary_labels": "[]", "filename": name, "author": author(number), "rating": 4.0}
        )
    pd.DataFrame(rows).to_csv(root / "train.csv", index=False)


class Place:
    """A folder of recordings, a storage, and the command lines on both."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.output = folder, folder / "data", folder / "out"
        self.storage = Storage.parse(str(self.output))
        self.store = StageStore(self.storage.at("store"))
        (folder / "own.py").write_text(SEARCH)
        add_recordings(self.data, range(120), lambda number: f"author{number // SPECIES % AUTHORS}")

    def recordings(self, fold: int, data: Path | None = None) -> RecordingsList:
        dataset = load_dataset(data or self.data, fold=fold)
        return RecordingsList(self.store.storage, dataset, dataset.fingerprint)

    def trained(self, fold: int, letter: str = "a", *, data: Path | None = None, **values) -> StageRecord:
        """A stage that a sweep with this fold trained."""
        recordings = self.recordings(fold, data)
        recordings.keep()
        return self.stage(recordings.data_fingerprint, letter, **values)

    def stage(self, data_fingerprint: str, letter: str = "a", **values) -> StageRecord:
        identity = {"model": canonical(small_budget(sed_v2s()).model), "data": data_fingerprint, "parent": "random", "code": "c"}
        known = {"recipe": "sed_v2s", "stage": "pretrain_bce", "identity": identity}
        return publish(self.store, letter * 64, **{**known, **values})

    def tune(self, start: str, fold: int, *more: str, name: str = "s") -> int:
        options = ["--search", str(self.folder / "own.py"), "--name", name, "--data", str(self.data), "--fold", str(fold)]
        return tune_main([*options, "--from-stage", start, *self.common(), *more])

    def common(self) -> list[str]:
        return ["--storage", str(self.output), "--samples", "2", "--budget", "small", "--tracking-uri", "off"]

    def birdclef(self, *command: str) -> int:
        return birdclef([*command, "--storage", str(self.output)])


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class ListTracker:
    def __init__(self) -> None:
        self.events = []

    def log(self, event) -> None:
        self.events.append(event)

    def keep(self) -> None:
        pass

    def close(self, timeout_s: float) -> DeliveryStatus:
        return DeliveryStatus(delivered=len(self.events), kept=0, rejected=0)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def tracker(monkeypatch):
    """Lets sweeps run with made-up workers, and returns what is tracked."""
    tracker = ListTracker()
    monkeypatch.setattr(runner, "connect", lambda address: nullcontext())
    monkeypatch.setattr(
        runner, "find_slots", lambda *_, **__: Slots(gpus_per_trial=0, cpus_per_trial=1, max_concurrent=1, num_nodes=1)
    )
    monkeypatch.setattr(runner, "make_tracker", lambda *_: tracker)
    monkeypatch.setattr(AudioCache, "build_and_say", lambda *_: None)
    monkeypatch.setattr(runner._Driver, "_fit", lambda driver, coordinator, *_: Workers(coordinator, published=set()).run())
    return tracker


class Workers(MadeUpWorkers):
    """With the scores that a ranking shows."""

    def updates(self, planned):
        shown = {"val/cmap": 0.25, "val/cmap_pad5": 0.5, "val/cmap_chance": 0.1}
        return [replace(update, metrics={**update.metrics, **shown}) for update in super().updates(planned)]


def sides(place: Place, fold: int) -> tuple[set[str], set[str]]:
    """Ids of the training and of the validation recordings of a fold."""
    recordings = load_dataset(place.data, fold=fold).recordings
    is_validation = recordings["is_validation"]
    return set(recordings["recording_id"][~is_validation]), set(recordings["recording_id"][is_validation])


def test_another_fold_is_refused_with_the_numbers_and_the_ways_out(place, capsys):
    start = place.trained(fold=0)
    (trained, _), (_, validation) = sides(place, 0), sides(place, 1)
    leaked = len(validation & trained)
    assert 0 < leaked <= len(validation)
    assert place.tune("aaaa", 1) == 2
    said = capsys.readouterr().err
    assert (
        f"but {leaked} of the {len(validation)} validation recordings of fold 1 trained sed_v2s pretrain_bce {start.stage_id[:12]}"
        in said
    )
    assert "all scores would be too high" in said
    free = [str(fold) for fold in range(5) if not sides(place, fold)[1] & trained]
    assert "0" in free and "1" not in free
    assert f"Ways out: --fold {' or '.join(free)} (no leak), another start stage, or --allow-leaked-scores (marks" in said
    assert not (place.output / "s").exists(), "nothing was written"
    assert place.tune("aaaa", 1, "--plan") == 2


def test_a_fold_without_validation_recordings_is_no_way_out(place, capsys):
    """Two authors fill two of the five folds."""
    place.data = place.folder / "few"
    add_recordings(place.data, range(16), lambda number: f"author{number // SPECIES % 2}")
    place.trained(fold=0)
    assert place.tune("aaaa", 1) == 2
    assert "Ways out: --fold 0 (no leak), another" in capsys.readouterr().err


def test_the_same_fold_passes_without_a_word(place, tracker, capsys):
    place.trained(fold=1)
    assert place.tune("aaaa", 1) == 0
    said = capsys.readouterr().out
    assert "leaked" not in said and "which recordings trained" not in said
    assert "leaked" not in (place.output / "s" / "result" / "ranking.md").read_text()
    runs = [*tracker.of(TrialStarted), *tracker.of(StageStarted), *tracker.of(SweepStarted)]
    assert len(runs) > 4 and all("birdclef.leaked" not in run.tags for run in runs)


def test_the_flag_allows_it_and_marks_every_score(place, tracker, capsys):
    place.trained(fold=0)
    (trained, _), (_, validation) = sides(place, 0), sides(place, 1)
    mark = f"{len(validation & trained)} of {len(validation)}"
    assert place.tune("aaaa", 1, "--allow-leaked-scores") == 0
    said = capsys.readouterr().out
    sentence = f"leaked: {mark} validation recordings trained the start stage"
    assert f"Warning: scores will be too high. Each is marked as {sentence}." in said
    assert f"* {sentence}" in said.splitlines()
    assert any(line.startswith("Best: t000") and line.endswith(f", {sentence}.") for line in said.splitlines())
    result = place.output / "s" / "result"
    table, _, legend = (result / "ranking.md").read_text().split("\n\n")
    for row in table.splitlines()[2:]:
        assert row.count(r"\*") == 2, "objective and cmap_pad5"
    assert legend == f"\\* {sentence}\n"
    assert sentence in (result / "tree.html").read_text()
    runs = [*tracker.of(TrialStarted), *tracker.of(StageStarted), *tracker.of(SweepStarted)]
    assert len(runs) == 2 + 2 * 3 - 2 + 1, "two trials that share all stages but the last"
    assert {run.tags["birdclef.leaked"] for run in runs} == {mark}
    assert f"Scores are **{sentence}**." in tracker.of(SweepStarted)[0].note
    assert sentence in tracker.of(SweepFinished)[0].table_markdown
    (part,) = json.loads((place.output / "s" / "sweep.json").read_text())["parts"]
    assert part["leak"] == {
        "num_validation": len(validation),
        "num_trained": len(validation & trained),
        "num_by_author": 0,
        "num_soundscapes": 0,
        "unknown": [],
        "source": "the start stage",
    }


def test_a_resumed_and_an_extended_sweep_keep_flag_and_marks(place, tracker, capsys):
    """The extension starts from a clean stage: its trials are not marked, those before are."""
    place.trained(fold=0)
    clean = place.trained(fold=1, letter="b")
    assert place.tune("aaaa", 1, "--allow-leaked-scores") == 0
    assert tune_main(["--resume", "s", "--storage", str(place.output)]) == 0
    assert capsys.readouterr().out.count("* leaked: ") == 2
    command = ["--extend", "s", "--samples", "2", "--storage", str(place.output), "--search", str(place.folder / "own.py")]
    assert tune_main([*command, "--from-stage", clean.stage_id]) == 0
    rows = (place.output / "s" / "result" / "ranking.md").read_text().splitlines()
    marked = {row.split("|")[1].strip(): r"\*" in row for row in rows[2:] if row.startswith("| t")}
    assert marked == {"t0000": True, "t0001": True, "t0002": False, "t0003": False}
    leaked = [event.tags.get("birdclef.leaked") for event in tracker.of(TrialStarted)]
    assert leaked[0] == leaked[1] != leaked[2] == leaked[3] is None


def test_a_sweep_that_was_started_before_leaks_were_looked_for_can_be_resumed_with_the_flag(place, tracker, capsys):
    place.trained(fold=0)
    assert place.tune("aaaa", 1, "--allow-leaked-scores") == 0
    file = place.output / "s" / "sweep.json"
    values = json.loads(file.read_text())
    for options in (values["options"], values["parts"][0]["options"]):
        del options["allow_leaked_scores"]
    del values["parts"][0]["leak"]
    file.write_text(json.dumps(values))
    capsys.readouterr()
    resume = ["--resume", "s", "--storage", str(place.output)]
    assert tune_main(resume) == 2
    refusal = capsys.readouterr().err
    assert "Ways out: another start stage, or --allow-leaked-scores" in refusal, "a resumed sweep keeps its fold"
    assert tune_main([*resume, "--allow-leaked-scores"]) == 0
    assert "* leaked: " in capsys.readouterr().out


def test_trials_of_a_part_that_was_not_checked_are_unknown(place, tracker, capsys):
    """The first part is of an older version of the code; the extension starts from a clean stage."""
    place.trained(fold=0)
    clean = place.trained(fold=1, letter="b")
    assert place.tune("aaaa", 1, "--allow-leaked-scores") == 0
    file = place.output / "s" / "sweep.json"
    values = json.loads(file.read_text())
    del values["parts"][0]["leak"]
    file.write_text(json.dumps(values))
    capsys.readouterr()
    command = ["--extend", "s", "--samples", "1", "--storage", str(place.output), "--search", str(place.folder / "own.py")]
    assert tune_main([*command, "--from-stage", clean.stage_id]) == 0
    assert "* leaked: unknown, because" in capsys.readouterr().out


def test_a_resumed_sweep_with_other_recordings_is_refused_for_these(place, tracker, capsys):
    place.trained(fold=1)
    assert place.tune("aaaa", 1) == 0
    add_recordings(place.data, range(120, 160), lambda number: f"author{number // SPECIES % AUTHORS}")
    assert tune_main(["--resume", "s", "--storage", str(place.output)]) == 2
    assert "The recordings of a sweep must stay as they were" in capsys.readouterr().err


def test_a_leak_of_an_ancestor_is_found(place, capsys):
    """The start stage was trained on the current recordings, from a stage that a leaked sweep had started from."""
    first = place.trained(fold=0, stage="pretrain_ce")
    place.trained(fold=1, letter="b", parent_id=first.stage_id)
    assert place.tune("bbbb", 1) == 2
    said = capsys.readouterr().err
    assert "trained sed_v2s pretrain_bce bbbbbbbbbbbb or a stage that it was trained from" in said
    assert "--fold" not in said.partition("Ways out")[2], "no fold is free of both"


@pytest.mark.parametrize("fold", [0, 1])
def test_a_head_on_embeddings_teaches_in_its_own_fold_alone(place, tracker, capsys, fold):
    embed = place.trained(fold=0, letter="e", stage="embed")
    publish(place.store, "e" * 64, stage="embed", identity=embed.identity | {"model": {}, "stage": {"embeds": "onnx"}})
    head = place.trained(fold=0, stage="head")
    publish(place.store, head.stage_id, stage="head", recipe="heads", identity=head.identity | {"embeddings": "e" * 64})
    (place.folder / "own.py").write_text(TAUGHT)
    options = ["--search", str(place.folder / "own.py"), "--name", "s", "--data", str(place.data), "--fold", str(fold)]
    assert tune_main([*options, *place.common()]) == (2 if fold else 0)
    said = capsys.readouterr()
    (trained, _), (_, validation) = sides(place, 0), sides(place, 1)
    leak = (
        f"A teacher must not have been trained on recordings that score the stages after it, but {len(validation & trained)} of"
    )
    assert (leak in said.err) == bool(fold) and (not fold or "trained heads head aaaaaaaaaaaa or a stage" in said.err)
    assert (place.output / "s").exists() != bool(fold)


def test_authors_alone_are_refused_in_words_of_their_own(place, capsys):
    """The start stage was trained on other recordings of all authors."""
    other = place.folder / "other"
    add_recordings(other, range(1000, 1120), lambda number: f"author{number // SPECIES % AUTHORS}")
    place.trained(fold=0, data=other)
    _, validation = sides(place, 1)
    assert place.tune("aaaa", 1) == 2
    said = capsys.readouterr().err
    assert "validation recordings of fold 1 have an author (or place and day, where it is unknown) in common with" in said
    assert f"of the {len(validation)} " in said and "Such recordings are alike" in said


def test_recordings_without_an_author_are_not_by_the_same_author(place, tracker):
    for root, first in ((place.data, 120), (place.folder / "other", 2000)):
        add_recordings(root, range(first, first + 80), lambda number: "" if number >= 120 else "nobody")
    place.trained(fold=0, data=place.folder / "other")
    assert place.tune("aaaa", 1) == 0


def test_renamed_copies_are_found_by_their_content(place, capsys):
    copied = place.folder / "copied"
    table = pd.read_csv(place.data / "train.csv")
    for name in table["filename"]:
        species, _, file = name.partition("/")
        target = copied / "train_audio" / species / f"copy-of-{file}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place.data / "train_audio" / name, target)
    table["filename"] = table["filename"].str.replace("/", "/copy-of-")
    table["author"] = "somebody" + table.index.astype(str)
    table.to_csv(copied / "train.csv", index=False)
    place.trained(fold=0, data=copied)
    assert place.tune("aaaa", 1) == 2
    assert "validation recordings of fold 1 trained sed_v2s" in capsys.readouterr().err


def test_a_folder_that_grew_passes_where_no_recording_changed_sides(place, tracker, capsys):
    """More recordings of the authors of each side."""
    place.trained(fold=1)
    before = sides(place, 1)
    add_recordings(place.data, range(120, 160), lambda number: f"author{number // SPECIES % AUTHORS}")
    after = sides(place, 1)
    assert before[0] < after[0] and before[1] < after[1]
    assert place.tune("aaaa", 1) == 0
    assert "leaked" not in capsys.readouterr().out


def test_a_folder_that_grew_is_refused_where_recordings_moved_into_validation(place, capsys):
    """As when authors were corrected: some recordings that trained are by authors who validate now."""
    place.trained(fold=1)
    trained, validated = sides(place, 1)
    authors = load_dataset(place.data).recordings.set_index("recording_id")["author"]
    table = pd.read_csv(place.data / "train.csv")
    stems = table["filename"].str.removesuffix(".wav").str.partition("/")[2]
    table.loc[stems.isin(sorted(trained)[:8]), "author"] = authors[min(validated)]
    table.to_csv(place.data / "train.csv", index=False)
    _, validation = sides(place, 1)
    moved = validation & trained
    assert moved
    assert place.tune("aaaa", 1) == 2
    said = capsys.readouterr().err
    assert f"but {len(moved)} of the {len(validation)} validation recordings of fold 1 trained sed_v2s" in said


def test_what_trained_an_imported_stage_is_unknown_and_said(place, tracker, capsys):
    place.stage(IMPORTED)
    assert place.tune("aaaa", 1) == 0
    said = capsys.readouterr().out
    assert "it is not known which recordings trained sed_v2s pretrain_bce aaaaaaaaaaaa: it was imported." in said
    assert "Best: t0000" in said or "Best: t0001" in said
    sentence = "leaked: unknown, because it is not known which recordings trained the start stage"
    assert f"* {sentence}" in said.splitlines() and f"{sentence}." in said
    assert {event.tags["birdclef.leaked"] for event in tracker.of(TrialStarted)} == {"unknown"}


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_table_that_is_damaged_or_gone_is_unknown_and_said(place, tracker, capsys, damage):
    start = place.trained(fold=0)
    file = place.output / "store" / table_name(start.identity["data"])
    file.write_bytes(file.read_bytes()[:100]) if damage == "cut" else file.unlink()
    assert place.tune("aaaa", 1) == 0
    said = capsys.readouterr().out
    assert ("the table of its recordings is damaged" if damage == "cut" else "the store has no table of its recordings") in said
    assert "leaked: unknown" in said


def test_the_driver_keeps_the_table_and_mends_a_damaged_one(place, tracker):
    place.trained(fold=1)
    file = place.output / "store" / table_name(place.recordings(1).data_fingerprint)
    whole = file.read_bytes()
    file.write_bytes(b"rubbish")
    assert place.tune("aaaa", 1) == 0
    assert file.read_bytes() == whole


def test_a_plan_keeps_no_table(place, tracker, capsys, monkeypatch):
    monkeypatch.setattr(planner, "measure_clips_per_s", lambda *_, **__: Spread(low=1.0, middle=1.0, high=1.0))
    place.stage(IMPORTED)
    assert place.tune("aaaa", 1, "--plan") == 0
    assert "it was imported" in capsys.readouterr().out
    assert not (place.output / "store" / "recordings").exists()


def test_lineage_and_the_list_of_stages_show_what_trained_a_stage_and_the_leak(place, capsys):
    first = place.trained(fold=0, stage="pretrain_ce")
    second = place.trained(fold=1, letter="b", parent_id=first.stage_id)
    imported = place.stage(IMPORTED, "c", stage="pretrain_ce")
    place.trained(fold=1, letter="d", parent_id=imported.stage_id)
    assert place.birdclef("lineage", second.stage_id) == 0
    (trained, held_out), (now_trained, validation) = sides(place, 0), sides(place, 1)
    said = capsys.readouterr().out
    assert f"on      {len(trained)} recordings, validated on {len(held_out)}\n" in said
    leaked = f"scores leaked: {len(validation & trained)} of {len(validation)}"
    assert f"on      {len(now_trained)} recordings, validated on {len(validation)}; {leaked}\n" in said
    assert place.birdclef("lineage", "dddd") == 0
    said = capsys.readouterr().out
    assert "on      unknown recordings: it was imported" in said and "scores leaked: unknown" in said
    assert place.birdclef("store", "ls") == 0
    said = capsys.readouterr().out
    scores = {line[:1]: line.split()[3] for line in said.splitlines() if line[:16] in ("a" * 16, "b" * 16, "c" * 16, "d" * 16)}
    assert scores == {"a": "0.500", "b": "0.500*", "c": "0.500", "d": "0.500?"}
    assert "* A leaked score" in said and "? The score may be leaked" in said


def test_the_store_counts_its_tables_and_keeps_them_for_the_stages(place, tracker, capsys):
    place.trained(fold=0)
    assert place.tune("aaaa", 0) == 0
    remove_garbage(place.storage, find_garbage(place.storage, 0))
    assert place.recordings(0)._kept is not None
    assert place.birdclef("store", "du") == 0
    assert "1 x tables of the recordings that stages were trained on" in capsys.readouterr().out
    assert place.birdclef("store", "verify") == 0


def test_a_soundscape_that_trained_the_start_stage_and_scores_now_is_refused_or_marked(place, tracker, capsys):
    """`soundscapes_for_training.txt` named S0 when the stage was trained, and names S1 now."""
    (place.data / "test_soundscapes").mkdir()
    for number in range(2):
        wave = default_rng(1000 + number).normal(0, 0.1, 160_000)
        soundfile.write(place.data / "test_soundscapes" / f"S{number}.wav", wave, 32_000)
    (place.data / "test_soundscapes_labels.csv").write_text("row_id,labels\nS0_5,sp0\nS1_5,sp1\n")
    listed = place.data / "soundscapes_for_training.txt"
    listed.write_text("S0\n")
    recordings = place.recordings(0)
    recordings.keep()
    model = canonical(small_budget(sed_v2s()).model)
    for letter, share in (("a", 0.25), ("b", 0.0)):
        identity = {"model": model, "stage": {"soundscape_share": share}, "parent": "random", "code": "c"}
        place.stage("", letter, identity=identity | {"data": recordings.data_fingerprint})
    assert place.tune("aaaa", 0, name="same") == 0, "S0 still trains"
    listed.write_text("S1\n")
    capsys.readouterr()
    assert place.tune("aaaa", 0) == 2
    refusal = capsys.readouterr().err
    assert "labelled soundscapes that score the stages after it, but 1 of them trained" in refusal and "--fold" not in refusal
    assert place.tune("bbbb", 0, name="other") == 0, "it learned from recordings alone"
    capsys.readouterr()
    assert place.tune("aaaa", 0, "--allow-leaked-scores") == 0
    said = capsys.readouterr().out
    assert "marked as leaked: 1 labelled soundscape that scores trained the start stage." in said


STUDENT = """
from dataclasses import replace
from birdclef_core.config import Recipe
from birdclef_core.recipes import predictions, sed_v2s
from birdclef_core.teacher_config import TeacherConfig
from sweeps.search import Search
OWN = sed_v2s()
STUDENT = replace(OWN.stages[3], name="student", teacher=TeacherConfig(predictions="labels"))
STAGES = (predictions("labels", of="{teacher}", on="recordings"), STUDENT)
SEARCH = Search(name="own", recipes=(Recipe(name="own", model=OWN.model, stages=STAGES),), space={{}})
"""


def test_a_stored_teacher_that_was_trained_on_validation_recordings_is_refused_or_marked(place, tracker, capsys):
    place.trained(fold=1)
    (place.folder / "own.py").write_text(STUDENT.format(teacher="aaaa"))
    options = ["--search", str(place.folder / "own.py"), "--data", str(place.data), *place.common(), "--name", "s"]
    assert tune_main(options) == 2
    (_, validates), (trained, _) = sides(place, 0), sides(place, 1)
    refusal = capsys.readouterr().err
    assert f"{len(validates & trained)} of the {len(validates)} validation recordings of fold 0 trained" in refusal
    assert "another teacher" in refusal and "--allow-leaked-scores" in refusal
    assert tune_main([*options, "--allow-leaked-scores"]) == 0
    assert "Each is marked as leaked" in capsys.readouterr().out
    assert tune_main(["--extend", "s", "--samples", "1", "--storage", str(place.output)]) == 0, "the flag is kept"


def test_what_a_stored_teacher_is_needed_for_is_not_removed(place, tracker, capsys):
    place.trained(fold=0)
    (place.folder / "own.py").write_text(STUDENT.format(teacher="aaaa"))
    options = ["--search", str(place.folder / "own.py"), "--data", str(place.data), *place.common(), "--name", "s"]
    assert tune_main(options) == 0
    remove_garbage(place.storage, find_garbage(place.storage, 0))
    assert place.store.is_published("a" * 64), "the sweep may be extended"


def test_the_flag_without_a_start_stage_is_refused(place, capsys):
    options = ["--search", str(place.folder / "own.py"), "--data", str(place.data), "--allow-leaked-scores"]
    assert tune_main([*options, *place.common()]) == 2
    assert "(--from-stage, or predicts of a stage of the search). Leave it out." in capsys.readouterr().err
