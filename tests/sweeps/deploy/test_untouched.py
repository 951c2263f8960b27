"""An ensemble is scored on soundscapes that no sweep has seen, and on no others that are called so."""

import shutil

import pytest
from made_up_detector import write_sound
from made_up_ensembles import make_place

from birdclef_core.ensemble.scores import ENSEMBLE
from birdclef_core.ensemble.selection import Rules
from birdclef_core.errors import InputError
from sweeps.deploy.ensembles import EnsembleWish, choose_ensemble


@pytest.fixture(scope="module")
def place(tone_data, tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("untouched"), tone_data.dataset.root, trials=2)


def labelled(root, files: dict[str, int]):
    """A data folder with soundscapes of 10 s, by their names and the seeds of their noise."""
    rows = ["row_id,labels"]
    for name, seed in files.items():
        write_sound(root / "test_soundscapes" / f"{name}.wav", 10.0, seed=seed)
        rows += [f"{name}_5,low", f"{name}_10,top"]
    (root / "test_soundscapes_labels.csv").write_text("\n".join(rows) + "\n")
    return root


def choose(place, untouched, **values):
    said: list[str] = []
    wish = EnsembleWish(
        references=("s",), storage=place.storage.root, cache_dir=str(place.cache), device="cpu", untouched=untouched, **values
    )
    return choose_ensemble(wish, said.append, lambda title: lambda done, total: None), said


def test_an_ensemble_is_scored_on_them_once_it_is_chosen(place, tmp_path):
    chosen, said = choose(place, labelled(tmp_path / "kept_out", {"u0": 10, "u1": 11}))
    untouched = chosen.record.scores.untouched
    assert (untouched.source, untouched.metric, untouched.num_rows, untouched.num_groups) == ("soundscapes", "auroc", 4, 2)
    assert all(way.scores.untouched.value is not None for way in chosen.verdict.ways)
    assert "Untouched are 4 labelled windows of 2 files in " + str(tmp_path / "kept_out" / "test_soundscapes") + "." in said
    without, _ = choose(place, None)
    assert without.verdict.way(ENSEMBLE).members == chosen.verdict.way(ENSEMBLE).members, "they decide nothing"
    assert without.record.scores.untouched.value is None


def test_windows_that_cannot_be_heard_are_counted(place, tmp_path):
    folder = labelled(tmp_path, {"u0": 10, "u1": 11})
    (folder / "test_soundscapes_labels.csv").open("a").write("u1_15,low\nu1_12,low\n")
    chosen, said = choose(place, folder)
    assert chosen.record.scores.untouched.num_rows == 4
    assert any("; 1 window could not be heard" in text for text in said)


def test_soundscapes_that_a_sweep_has_seen_are_refused(place, tmp_path):
    """As a copy with another name, as a recording that trained, and as the same file in another format."""
    seen = place.data / "test_soundscapes" / "s0.wav"
    folder = labelled(tmp_path / "copied", {"u0": 10, "u1": 11})
    shutil.copyfile(seen, folder / "test_soundscapes" / "u1.wav")
    for data in (None, place.data):
        with pytest.raises(InputError, match=r"1 of the 2 of .* also in the data of the sweeps \(u1.wav\)"):
            choose(place, folder, data=data, rules=Rules(max_members=1))
    folder = labelled(tmp_path / "named", {"s2": 12})
    write_sound(folder / "test_soundscapes" / "s2.wav", 15.0, seed=99)
    with pytest.raises(InputError, match=r"1 of the 1 of .*\(s2.wav\)"):
        choose(place, folder)
    with pytest.raises(InputError, match="must have labelled soundscapes"):
        choose(place, tmp_path)
