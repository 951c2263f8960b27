"""A made-up record of a sweep."""

from birdclef_core.recipes import cnn_b0ns
from sweeps.options import SweepOptions
from sweeps.schedule.records import VERSION, SweepPart, SweepRecord
from sweeps.search.space import Choice, Range, Search

SEARCH = Search(
    name="sed",
    recipes=(cnn_b0ns(),),
    space={"train_ce.learning_rate": Range(1e-4, 1e-3, log=True), "train_ce.clip_s": Choice((3.0, 5.0))},
    pools={"train": 2},
)


def sweep_record(options: SweepOptions | None = None, **changes) -> SweepRecord:
    options = options or SweepOptions(search="sed", name="s")
    part = SweepPart(
        started_at="2026-11-22T12:00:00+0000",
        first_trial=0,
        samples=4,
        options=options,
        search=SEARCH,
        pretrained={"tiny": "random"},
        code_version="c0de",
        versions={"python": "3.11"},
        git_commit="",
    )
    values = {
        "version": VERSION,
        "name": "s",
        "search": "sed",
        "data_fingerprint": "d" * 64,
        "started_at": "2026-11-22T12:00:00+0000",
        "options": options,
        "code_version": "c0de",
        "trials": 0,
        "parts": (part,),
        "state": "finished",
        "state_since": "2026-11-22T13:00:00+0000",
        "ran_s": 0.0,
    }
    return SweepRecord(**{**values, **changes})
