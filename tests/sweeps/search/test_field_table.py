"""The table of all fields: it has every field, and docs/fields.md is what the code says now."""

from pathlib import Path

import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import sed_v2s
from sweeps.cli.birdclef import birdclef
from sweeps.search.field_table import field_rows, fields_page
from sweeps.search.names import MODEL, all_names, find_field, value_at

PAGE = Path(__file__).parents[3] / "docs" / "fields.md"


def test_the_page_is_as_the_fields_are_now():
    assert PAGE.read_text(encoding="utf-8") == fields_page() + "\n", "make it again: birdclef fields > docs/fields.md"


def test_every_name_of_a_field_is_in_the_table_once():
    names = [row.name for row in field_rows()]
    assert names == [*all_names(MODEL), *all_names("every")]
    assert len(set(names)) == len(names) > 50


def test_every_field_says_what_it_means():
    assert [row.name for row in field_rows() if not row.meaning] == [], "write a docstring under the field"


def test_every_number_has_a_unit_unless_it_has_none():
    without = {row.name.rpartition(".")[2] for row in field_rows() if "number" in row.kind and not row.unit}
    unitless = {
        "focal_gamma",
        "negative_gamma",
        "positive_gamma",
        "learning_rate",
        "min_learning_rate",
        "weight_decay",
        "clip_gradient_norm",
        "seed",
        "spectrogram_beta",
        "power",
        "weight",
    }
    assert without == unitless, "say the unit of a new field in _UNITS, or here that it has none"
    units = {row.name: row.unit for row in field_rows()}
    assert units["every.augment.gain_transition_s_max"] == units["every.clip_s"] == "seconds"
    assert units["every.noise.*.snr_db_min"] == "dB" and units["model.spectrogram.f_max_hz"] == "Hz"
    assert units["model.drop_path_rate"] == "share, 0 to 1" and units["every.loss"] == ""


def test_what_a_row_says_holds():
    recipe = sed_v2s()
    rows = {row.name: row for row in field_rows()}
    assert (rows["model.drop_rate"].kind, rows["model.drop_rate"].matters_from) == ("number", "the first stage")
    assert rows["every.epochs"].default == "" and rows["every.ema_decay"].default == "0.0"
    assert rows["every.micro_batch_size"].kind == "whole number or none"
    assert rows["every.label_space"].kind == "`all` or `target`"
    assert "adamw" in rows["every.weight_decay"].meaning
    runtime = {name for name, row in rows.items() if "no result" in row.matters_from}
    assert runtime == {name for name in rows if find_field(name).is_runtime} != set()
    assert rows["every.augment.time_masks"].default == str(value_at(recipe, (0, "augment.time_masks")))


def test_the_command_shows_the_fields_whose_names_contain_a_word(capsys):
    assert birdclef(["fields", "noise.*.snr"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in shown] == ["every.noise.*.snr_db_min", "every.noise.*.snr_db_max"]
    assert birdclef(["fields"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")
    assert birdclef(["fields", "lerning_rate"]) == 2
    assert "Perhaps 'every.learning_rate' is meant" in capsys.readouterr().err


def test_a_word_that_is_in_no_name_is_refused():
    with pytest.raises(InputError, match="No name of a field contains 'xyzzy'"):
        fields_page("xyzzy")
