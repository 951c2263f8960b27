"""Finds labelled soundscapes: those of a data folder, or a table of labels and a folder of audio that lie anywhere."""

import tempfile
from dataclasses import replace
from functools import reduce
from pathlib import Path

from birdclef_core.data.soundscapes import SOUNDSCAPE_LABELS, Soundscapes, find_soundscapes, load_soundscapes
from birdclef_core.errors import DataError, InputError

_TABLE, _FOLDER = next(iter(SOUNDSCAPE_LABELS.items()))


def read_labels(labels: Path, soundscapes: Path | None = None) -> Soundscapes:
    """Return the labelled windows in a table, or of a data folder.

    `labels` is a data folder, as `load_soundscapes` reads it, or a table in one of its forms, whose audio is in the folder `soundscapes`;
    of a table that lies in a data folder under its usual name, that folder's. Raises InputError when there are none, it is not said
    where the audio is, or no window has audio, and DataError for a table that cannot be read.
    """
    if labels.is_dir():
        found = find_soundscapes(labels)
        if found is None:
            raise InputError(f"{labels} must have labelled soundscapes, such as {_TABLE} with {_FOLDER}, but has none.")
        labels, folder = found
    else:
        folder = labels.parent / SOUNDSCAPE_LABELS.get(labels.name, "")
        if soundscapes is None and labels.name not in SOUNDSCAPE_LABELS:
            raise InputError(f"The folder with the audio of {labels} must be named: --soundscapes DIR.")
    return _read(labels, soundscapes or folder)


def _read(table: Path, folder: Path) -> Soundscapes:
    """Return the labelled windows in a table. `load_soundscapes` wants a data folder, so one is made, of links."""
    if not table.exists():
        raise InputError(f"The labels must exist, but {table} does not.")
    if not folder.is_dir():
        raise InputError(f"The soundscapes must be in a folder, but {folder} is none.")
    with tempfile.TemporaryDirectory(prefix="birdclef-labels-") as name:
        root = Path(name)
        (root / _TABLE).symlink_to(table.absolute())
        (root / _FOLDER).symlink_to(folder.absolute())

        def as_named(text: str) -> str:
            links = ((root / _TABLE, table), (root / _FOLDER, folder), (_TABLE, table.name))
            return reduce(lambda text, link: text.replace(str(link[0]), str(link[1])), links, text)

        try:
            found = load_soundscapes(root)
        except DataError as error:
            raise DataError(as_named(str(error))) from None
    assert found is not None
    paths = found.files["path"].str.removeprefix(f"{_FOLDER}/")
    findings = tuple(
        replace(item, fault=as_named(item.fault), meaning=as_named(item.meaning), examples=tuple(map(as_named, item.examples)))
        for item in found.findings
    )
    return replace(found, root=folder, files=found.files.assign(path=paths), findings=findings)
