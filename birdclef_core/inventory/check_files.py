"""What can be wrong with audio files, judged by what was measured of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from birdclef_core.data.folder_walk import suffix_of
from birdclef_core.data.recording_names import xeno_canto_ids
from birdclef_core.findings import Finding, Level
from birdclef_core.inventory.problems import Problem

SILENT_DB = -80.0
"""Root mean square without the mean, over full scale: three steps of 16 bits."""
CLIPPED_SHARE = 1e-3
DC_OFFSET = 0.01
SHORT_S = 0.5
"""The shortest clip that a stage can have."""

LIMITS = {"silent_db": SILENT_DB, "clipped_share": CLIPPED_SHARE, "dc_offset": DC_OFFSET, "short_s": SHORT_S}

_SHOWN = 3  # Names of files that are the same.
_SUFFIXES: dict[str, tuple[str, ...]] = {
    "OGG": ("ogg", "oga", "opus"),
    "MP3": ("mp3",),
    "MPEG": ("mp3",),
    "FLAC": ("flac",),
    "AIFF": ("aif", "aiff", "aifc"),
    "AU": ("au",),
    "CAF": ("caf",),
    **dict.fromkeys(("WAV", "WAVEX", "RF64", "W64"), ("wav", "w64")),
}


@dataclass(frozen=True)
class _Rule:
    kind: str
    level: Level
    fault: str
    meaning: str
    breaks: Callable[[pd.DataFrame], pd.Series]
    """Which files break the rule."""
    detail: Callable[[pd.DataFrame], pd.Series]
    """What to say of those."""


def _decoded(files: pd.DataFrame) -> pd.Series:
    return (files["error"] == "") & ~files["is_missing"]


def _rms_db(files: pd.DataFrame) -> pd.Series:
    return 20 * np.log10(files["rms"].clip(lower=1e-10))


def _text(values: pd.Series, form: str) -> pd.Series:
    return values.map(form.format)


def _absence(files: pd.DataFrame) -> pd.Series:
    """Return the label of a missing recording, and why it is missing where that is known."""
    reason = files["absence"].where(files["absence"] != "missing", "")
    return files["primary_label"] + (", " + reason).where(reason != "", "")


_RULES = (
    _Rule(
        "missing",
        "loses",
        "[row of the metadata has|rows of the metadata have] no audio",
        "left out of training and scoring.",
        lambda files: files["is_missing"],
        _absence,
    ),
    _Rule(
        "unlabelled",
        "loses",
        "audio [file is|files are] named by no row of the metadata",
        "never read. Add rows for them, or collect them as a folder of their own with names of species.",
        lambda files: files["kind"] == "unlabelled",
        lambda files: _text(files["duration_s"], "{:.1f} s"),
    ),
    _Rule(
        "unreadable",
        "loses",
        "audio [file|files] cannot be decoded",
        "left out of training and scoring; training refuses the data when there are many.",
        lambda files: (files["error"] != "") & ~files["is_missing"],
        lambda files: files["error"],
    ),
    _Rule(
        "truncated",
        "loses",
        "audio [file breaks|files break] off before the end that the file itself gives",
        "trained on as far as they go; the rest was lost, most likely in a download. Get the files again.",
        lambda files: _decoded(files) & (files["cut"] != ""),
        lambda files: files["cut"],
    ),
    _Rule(
        "damaged",
        "loses",
        "audio [file has|files have] damage inside, and part of the sound is missing",
        "the rest is trained on; what is missing is silence where the file says how long it was. Get the files again.",
        lambda files: _decoded(files) & (files["gap"] != ""),
        lambda files: files["gap"],
    ),
    _Rule(
        "wrong_length",
        "note",
        "audio [file states|files state] another length than the sound that is there, or none",
        "read to the end, so training is not harmed; other programs may read only a part of them.",
        lambda files: _decoded(files) & (files["length"] != ""),
        lambda files: files["length"],
    ),
    _Rule(
        "silent",
        "loses",
        f"audio [file has|files have] no sound above {SILENT_DB:g} dB",
        "silence is taught or scored as a bird, or mixed in as noise. Remove the files, or get them again.",
        lambda files: _decoded(files) & (_rms_db(files) < SILENT_DB),
        lambda files: _text(_rms_db(files), "{:.0f} dB"),
    ),
    _Rule(
        "clipped",
        "note",
        f"audio [file has|files have] more than {CLIPPED_SHARE:.1%} of the samples at full scale",
        "trained on as they are: the distortion adds overtones to the spectrogram that no bird sang.",
        lambda files: _decoded(files) & (files["clipped_share"] > CLIPPED_SHARE),
        lambda files: _text(files["clipped_share"], "{:.1%}"),
    ),
    _Rule(
        "dc_offset",
        "note",
        f"audio [file has|files have] a mean more than {DC_OFFSET:.0%} of full scale away from zero",
        "harmless: the offset is removed when a file is decoded.",
        lambda files: _decoded(files) & (files["mean"].abs() > DC_OFFSET),
        lambda files: _text(files["mean"], "{:+.1%}"),
    ),
    _Rule(
        "not_finite",
        "note",
        "audio [file has|files have] samples that are not numbers",
        "decoded as silence; infinite samples are decoded as full scale.",
        lambda files: _decoded(files) & (files["not_finite"] > 0),
        lambda files: _text(files["not_finite"], "{:.0f} samples"),
    ),
    _Rule(
        "wrong_extension",
        "note",
        "audio [file holds|files hold] another format than the name says",
        "read by content, so training is not harmed; other programs may refuse them.",
        lambda files: _decoded(files) & has_wrong_extension(files["path"], files["format"]),
        lambda files: "is " + files["format"],
    ),
    _Rule(
        "too_short",
        "note",
        f"audio [file lasts|files last] less than {SHORT_S:g} s",
        "repeated many times to fill a clip, which makes a rhythm that the bird does not have.",
        lambda files: _decoded(files) & (files["duration_s"] < SHORT_S),
        lambda files: _text(files["duration_s"], "{:.2f} s"),
    ),
)


def file_problems(files: pd.DataFrame) -> list[Problem]:
    """Return problems of single files, and files that are the same recording. `files` is the table of a `CheckReport`."""
    found = []
    for rule in _RULES:
        cases = files[rule.breaks(files)]
        listed = cases["path"] + ": " + rule.detail(cases) if len(cases) else cases["path"]
        finding = Finding.of(rule.kind, rule.fault, listed, rule.meaning, level=rule.level)
        found.append(Problem(finding, tuple(cases["path"])))
    return [*found, *_duplicates(files)]


def has_wrong_extension(paths: pd.Series, formats: pd.Series) -> pd.Series:
    """Return whether the name of each file promises another format than the one that libsndfile found."""
    suffixes = paths.map(suffix_of)
    return pd.Series(
        [suffix not in _SUFFIXES.get(name, ()) for suffix, name in zip(suffixes, formats, strict=True)],
        index=paths.index,
        dtype=bool,
    )


def same_recordings(files: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the rows of each recording that there are several files of: equal samples, or one Xeno-canto number."""
    sound = files[(files["kind"] == "recording") & _decoded(files) & (_rms_db(files) >= SILENT_DB)]
    for key in (sound["content"], xeno_canto_ids(sound["path"])):
        rows = sound[key.notna() & key.duplicated(keep=False)]
        for _, group in rows.groupby(key):
            if len(group["path"].unique()) > 1:
                yield group


def in_words(names: pd.Series) -> str:
    """Return the first few names as text."""
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
    meaning = "Keep one; collecting does so where files are equal to the byte."
    return [
        Problem(
            Finding.of(
                "duplicate",
                "[recording is|recordings are] there several times",
                same.values(),
                f"drawn more often than others. {meaning}",
                level="note",
            ),
            tuple(path for paths in same for path in paths),
        ),
        Problem(
            Finding.of(
                "duplicate_with_other_label",
                "[recording has|recordings have] several primary labels",
                contradict.values(),
                f"the same sound is taught as different species. {meaning}",
            ),
            tuple(path for paths in contradict for path in paths),
        ),
    ]
