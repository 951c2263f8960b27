"""What can be wrong with audio files, told from what was measured of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from birdclef_core.data.audio_files import xeno_canto_ids
from birdclef_core.findings import Finding
from birdclef_core.inventory.problems import Level, Problem

SILENT_DB = -80.0
"""Root mean square without the mean, over full scale: three steps of 16 bits."""
CLIPPED_SHARE = 1e-3
DC_OFFSET = 0.01
SHORT_S = 0.5
"""The shortest clip that a stage can have."""

LIMITS = {"silent_db": SILENT_DB, "clipped_share": CLIPPED_SHARE, "dc_offset": DC_OFFSET, "short_s": SHORT_S}

_SHOWN = 3  # Names of files that are the same.
_SUFFIXES = {"OGG": "ogg", "MP3": "mp3", "MPEG": "mp3", "FLAC": "flac", "WAV": "wav", "WAVEX": "wav", "RF64": "wav"}


@dataclass(frozen=True)
class _Rule:
    kind: str
    level: Level
    rule: str
    meaning: str
    breaks: Callable[[pd.DataFrame], pd.Series]
    """Which files break it."""
    detail: Callable[[pd.DataFrame], pd.Series]
    """What to say of those."""


def _decoded(files: pd.DataFrame) -> pd.Series:
    return (files["error"] == "") & ~files["is_missing"]


def _rms_db(files: pd.DataFrame) -> pd.Series:
    return 20 * np.log10(files["rms"].clip(lower=1e-10))


def _suffix(files: pd.DataFrame) -> pd.Series:
    return files["path"].str.rsplit(".", n=1).str[-1].str.lower()


def _text(values: pd.Series, form: str) -> pd.Series:
    return values.map(form.format)


_RULES = (
    _Rule(
        "missing",
        "loses",
        "every row of the metadata has its audio",
        "labels without audio: left out of training and scoring.",
        lambda files: files["is_missing"],
        lambda files: files["primary_label"],
    ),
    _Rule(
        "unlabelled",
        "loses",
        "every audio file is named by the metadata",
        "audio without labels: never read. Add rows for it, or collect it as a folder of its own with species' names.",
        lambda files: files["kind"] == "unlabelled",
        lambda files: _text(files["duration_s"], "{:.1f} s"),
    ),
    _Rule(
        "unreadable",
        "loses",
        "every audio file can be decoded to its end",
        "left out of training and scoring; many of them, and training refuses the data.",
        lambda files: (files["error"] != "") & ~files["is_missing"],
        lambda files: files["error"],
    ),
    _Rule(
        "truncated",
        "loses",
        "every audio file is as long as it says",
        "what is there is trained on; the rest was lost, in a download most likely. Get the file again.",
        lambda files: _decoded(files) & files["is_cut"],
        lambda files: _text(files["duration_s"], "{:.1f} s are there") + _text(files["header_s"], " of {:.1f} s or more"),
    ),
    _Rule(
        "silent",
        "loses",
        f"every file has sound above {SILENT_DB:g} dB",
        "the model is told that silence is a bird, or that it is noise. Remove the file, or get it again.",
        lambda files: _decoded(files) & (_rms_db(files) < SILENT_DB),
        lambda files: _text(_rms_db(files), "{:.0f} dB"),
    ),
    _Rule(
        "clipped",
        "note",
        f"at most {CLIPPED_SHARE:.1%} of the samples are at full scale",
        "trained on as it is: the distortion draws overtones into the spectrogram that no bird sang.",
        lambda files: _decoded(files) & (files["clipped_share"] > CLIPPED_SHARE),
        lambda files: _text(files["clipped_share"], "{:.1%}"),
    ),
    _Rule(
        "dc_offset",
        "note",
        f"the mean of the samples is within {DC_OFFSET:.0%} of full scale",
        "harmless: the offset is removed when the file is decoded.",
        lambda files: _decoded(files) & (files["mean"].abs() > DC_OFFSET),
        lambda files: _text(files["mean"], "{:+.1%}"),
    ),
    _Rule(
        "not_finite",
        "note",
        "every sample is a number",
        "what is not a number is decoded as silence, what is infinite as full scale.",
        lambda files: _decoded(files) & (files["not_finite"] > 0),
        lambda files: _text(files["not_finite"], "{:.0f} samples"),
    ),
    _Rule(
        "wrong_extension",
        "note",
        "a file is what its name says",
        "read by its content, so training is not harmed; other programs may refuse it.",
        lambda files: _decoded(files) & (files["format"].map(_SUFFIXES).fillna("") != _suffix(files)),
        lambda files: "is " + files["format"],
    ),
    _Rule(
        "too_short",
        "note",
        f"a recording lasts at least {SHORT_S:g} s",
        "repeated to fill a clip, many times over: a rhythm that the bird does not have.",
        lambda files: _decoded(files) & (files["duration_s"] < SHORT_S),
        lambda files: _text(files["duration_s"], "{:.2f} s"),
    ),
)


def file_problems(files: pd.DataFrame) -> list[Problem]:
    """Problems of single files, and files that are the same recording. `files` is the table of a `CheckReport` with is_missing."""
    found = []
    for rule in _RULES:
        cases = files[rule.breaks(files)]
        listed = cases["path"] + ": " + rule.detail(cases) if len(cases) else cases["path"]
        found.append(Problem(rule.kind, rule.level, Finding.of(rule.rule, listed, rule.meaning), tuple(cases["path"])))
    return [*found, *_duplicates(files)]


def same_recordings(files: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows of each recording that there are several files of: equal samples, or one Xeno-canto number."""
    sound = files[(files["kind"] == "recording") & _decoded(files) & (_rms_db(files) >= SILENT_DB)]
    for key in (sound["content"], xeno_canto_ids(sound["path"])):
        rows = sound[key.notna() & key.duplicated(keep=False)]
        for _, group in rows.groupby(key):
            if len(group["path"].unique()) > 1:
                yield group


def in_words(names: pd.Series) -> str:
    """The first few of them."""
    shown = " and ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _duplicates(files: pd.DataFrame) -> list[Problem]:
    same: dict[tuple[str, ...], str] = {}
    contradict: dict[tuple[str, ...], str] = {}
    for group in same_recordings(files):
        paths = tuple(group["path"])
        if group["primary_label"].nunique() > 1:
            contradict[paths] = in_words(group["path"] + " (" + group["primary_label"] + ")")
        else:
            same[paths] = in_words(group["path"])
    return [
        Problem(
            "duplicate",
            "note",
            Finding.of(
                "a recording is there once",
                same.values(),
                "drawn more often than others. Keep one; collecting does so where files are equal to the byte.",
            ),
            tuple(path for paths in same for path in paths),
        ),
        Problem(
            "duplicate_with_other_label",
            "loses",
            Finding.of(
                "a recording has one primary label",
                contradict.values(),
                "the same sound is taught as different species. Keep one; collecting does so where files are equal to the byte.",
            ),
            tuple(path for paths in contradict for path in paths),
        ),
    ]
