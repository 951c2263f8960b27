"""What stages are to learn from is in the data, or the sweep is refused before it starts."""

from dataclasses import replace

import pytest

from birdclef_core.errors import InputError
from birdclef_core.recipes import sed_v2s
from sweeps.run.stage_data import check_stage_data
from sweeps.search.search_files import override
from sweeps.search.space import Choice, Range, Search


def with_sources(tone_data):
    """The tones: those of authors 0 and 1 came in `old_archive`, the others in `xeno_canto`; no tone of `mid_only` is a target."""
    recordings = tone_data.dataset.recordings
    source = ["old_archive" if author in ("Author 0", "Author 1") else "xeno_canto" for author in recordings["author"]]
    source = ["mid_only" if name == "mid" else came for name, came in zip(recordings["primary_label"], source, strict=True)]
    return replace(tone_data.dataset, recordings=recordings.assign(source=source))


def searching(**space) -> Search:
    recipe = sed_v2s()
    stages = (recipe.stages[0], replace(recipe.stages[2], sources=(("old_archive", 0.5),)))
    return Search(name="x", recipes=(replace(recipe, stages=stages),), space=space)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "xeno-canto",
            r"stage train_ce .*'xeno-canto' must be a source of .*: .*xeno_canto \(\d+\).* Perhaps 'xeno_canto' is meant",
        ),
        ("mid_only", "stage train_ce .*but mid_only has none: all are for validation, could not be decoded, or have no species"),
    ],
)
def test_a_source_that_cannot_train_a_stage_is_refused_with_those_that_there_are(tone_data, name, problem):
    search = searching(**{f"train.sources.{name}": Range(0.1, 1.0), "pretrain.sources.mid_only": Range(0.1, 1.0)})
    with pytest.raises(InputError, match=problem):
        check_stage_data(search, with_sources(tone_data))


def test_sources_need_recordings_that_say_theirs(tone_data):
    with pytest.raises(InputError, match=r"must say which source they came in, .*: see birdclef data collect"):
        check_stage_data(searching(), tone_data.dataset)
    check_stage_data(Search(name="x", recipes=(sed_v2s(),), space={}), tone_data.dataset)
    check_stage_data(searching(), with_sources(tone_data))


@pytest.mark.parametrize("share", [Choice((0.0, 0.25)), Range(0.0, 0.25)])
def test_soundscapes_for_training_must_be_there_where_a_stage_may_draw_them(tone_data, share):
    search = Search(name="x", recipes=(sed_v2s(),), space={"train_ce.soundscape_share": share})
    with pytest.raises(
        InputError, match=r"soundscape_share of stage train_ce of recipe 'sed_v2s' can be 0\.25, but no labelled soundscape"
    ):
        check_stage_data(search, tone_data.dataset)
    check_stage_data(search, replace(tone_data.dataset, training_soundscapes=object()))
    check_stage_data(override(search, {"train_ce.soundscape_share": 0.0}), tone_data.dataset)
