"""Where results are written: a place that can be written to, or an error that names it and the way out."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soundfile

from birdclef_core.errors import InputError


@contextmanager
def writing_to(place: Path, *, way_out: str = "give another with --out") -> Iterator[None]:
    """Raise InputError in place of an error of the file system, such as a full or read-only disk, while `place` is written.

    `way_out` is what the user can do besides freeing space.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # The reader of what is printed has closed the pipe.
    except (OSError, UnicodeError, soundfile.SoundFileError) as error:
        raise InputError(_refusal(place, error, way_out)) from error


def require_folder(place: Path) -> Path:
    """Make the folder `place` where it does not exist, and return it. Raises InputError when it cannot be written to."""
    if place.exists() and not place.is_dir():
        raise InputError(f"The place for results must be a folder, but {place} is a file. Give another with --out.")
    with writing_to(place):
        place.mkdir(parents=True, exist_ok=True)
        _try_writing(place)
    return place


def folder_for_check(root: Path, wanted: Path | None) -> Path | None:
    """Return the folder for the results of checking `root`: the one that is wanted, else `root` itself, else one here.

    Returns None where neither `root` nor the current folder can be written to, or `root` is no folder. Raises InputError when
    `wanted` cannot be written to.
    """
    if wanted:
        return require_folder(wanted)
    if not root.is_dir():
        return None
    folder = first_writable(root, Path.cwd())
    return folder if folder in (root, None) else require_folder(folder / f"{root.absolute().name}-check")


def place_of_report(root: Path, wanted: Path | None) -> Path:
    """Return the path of the page about `root`: the one that is wanted, else in `root`, else here.

    Raises InputError when it cannot be written.
    """
    if wanted is None:
        folder = first_writable(root, Path.cwd())
        return root / "report.html" if folder in (root, None) else folder / f"{root.absolute().name}-report.html"
    if wanted.is_dir():
        raise InputError(f"The page must be a file, but {wanted} is a folder. Give a name such as {wanted / 'report.html'}.")
    if wanted.exists() and not wanted.is_file():
        raise InputError(f"The page must be a file, but {wanted} is a pipe or a device. Give another name.")
    require_folder(wanted.absolute().parent)
    return wanted


def first_writable(*places: Path) -> Path | None:
    """Return the first folder that exists and can be written to; None when there is none."""
    for place in places:
        try:
            _try_writing(place)
        except OSError:
            continue
        return place
    return None


def _try_writing(folder: Path) -> None:
    """Raises OSError where no file can be made. A permission alone says too little: disks are mounted read-only, and fill up."""
    with tempfile.TemporaryFile(dir=folder, prefix=".birdclef-") as file:
        file.write(b"\0")


def _refusal(place: Path, error: Exception, way_out: str) -> str:
    reason = (getattr(error, "strerror", None) or str(error)).rstrip(".")
    about = getattr(error, "filename", None)
    where = f" ({about})" if about and str(about) != str(place) else ""
    return f"{place} must be a place that can be written to, but: {reason}{where}. Free some space, or {way_out}."
