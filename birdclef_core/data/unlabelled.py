"""Soundscapes without labels, which a teacher labels: of a data folder, those that no table of labels names."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from birdclef_core.data.audio_files import read_headers
from birdclef_core.data.folder_walk import walk_audio
from birdclef_core.data.groups import copies_among
from birdclef_core.data.listing import unread_findings
from birdclef_core.findings import Finding
from birdclef_core.identity import fingerprint

UNLABELLED_FOLDERS = ("unlabelled_soundscapes", "unlabeled_soundscapes", "train_soundscapes")
"""Where they are looked for. The last two are what BirdCLEF calls them."""


@dataclass(frozen=True)
class Unlabelled:
    """Soundscapes without labels."""

    root: Path
    files: pd.DataFrame
    """One row a file: path (relative to root), duration_s, size_bytes."""
    findings: tuple[Finding, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, durations and sizes, wherever the files lie. It is no part of the dataset's: only predictions depend on it."""
        names = self.files["path"].str.rsplit("/", n=1).str[-1]
        return fingerprint({"name": names.tolist(), **{name: self.files[name].tolist() for name in ("duration_s", "size_bytes")}})


def load_unlabelled(root: Path, labelled: Collection[str]) -> Unlabelled | None:
    """Return the soundscapes of a data folder that have no labels; None where there are none.

    `labelled`: paths of those that have labels, relative to root. A copy of one of them would let a model learn from what scores it, so
    files of the same name or the same content are left out too.
    """
    names = {path.rsplit("/", 1)[-1] for path in labelled}
    walked = [walk_audio(root, folder) for folder in UNLABELLED_FOLDERS]
    paths = [path for audio in walked for path in audio.paths]
    others = [path for path in paths if path not in labelled]
    alike = copies_among(root, others, labelled)
    copies = [path for path in others if path in alike or path.rsplit("/", 1)[-1] in names]
    free = [path for path in others if path not in set(copies)]
    if not free:
        return None
    table = pd.concat([pd.DataFrame({"path": free}, dtype=object), read_headers(root, free)], axis=1)
    bad = table["error"] != ""
    found = (
        Finding.of(
            "labelled_copy",
            "[soundscape without labels has|soundscapes without labels have] the name or the content of one with labels",
            copies,
            "left out: what scores a model must not train it.",
        ),
        Finding.of(
            "unusable_unlabelled",
            "[soundscape without labels|soundscapes without labels] cannot be read",
            [f"{path}: {error}" for path, error in table.loc[bad, ["path", "error"]].itertuples(index=False)],
            "left out.",
        ),
    )
    usable = table.loc[~bad, ["path", "duration_s", "size_bytes"]].reset_index(drop=True)
    own_folders = [audio for folder, audio in zip(UNLABELLED_FOLDERS, walked, strict=True) if folder != "train_soundscapes"]
    findings = (*(finding for finding in found if finding.count), *unread_findings(own_folders))
    return Unlabelled(root, usable, findings) if len(usable) else None
