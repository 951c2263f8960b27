"""Writes a bundle: everything that a detector is made of, in one folder that appears complete."""

import platform
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.inference.bundle.formats import FORMATS, NetworkFormat
from birdclef_core.inference.bundle.reading import Bundle, open_bundle
from birdclef_core.inference.bundle.record import BundleMember, BundlePrecision, BundleRecord, FormatName, write_record
from birdclef_core.inference.bundle.timing import network_ms, one_thread, spectrogram_ms
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.procedure import Procedure
from birdclef_core.models.detector import Detector
from birdclef_core.output_place import writing_to

NETWORKS = "networks"
_WAY_OUT = "give another folder with --to"
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network that becomes a member of a bundle."""

    stage_id: str
    souped_with: tuple[str, ...]
    recipe: str
    stage: str
    model: Detector
    species: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What becomes a bundle."""

    parts: tuple[Part, ...]
    """In the order in which they should be kept when time is short."""
    weights_of_first: tuple[tuple[float, ...], ...]
    procedure: Procedure
    names: dict[str, str]
    source: str
    format: FormatName
    precision: BundlePrecision


def write_bundle(contents: Contents, folder: Path) -> Bundle:
    """Write a bundle to a folder that does not exist or is empty, and return it.

    Raises InputError when the format does not have the precision, or the folder is in use or cannot be written.
    """
    kind = FORMATS[contents.format]
    if contents.precision not in kind.precisions:
        raise InputError(
            f"--precision must be one that the format {contents.format} has ({', '.join(kind.precisions)}), but got {contents.precision}."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--to must name a folder that does not exist or is empty, but {folder} is there and is not empty.")
    aside = folder.with_name(f".{folder.name}.partial")
    with writing_to(folder, way_out=_WAY_OUT):
        shutil.rmtree(aside, ignore_errors=True)
        (aside / NETWORKS).mkdir(parents=True)
        try:
            record = _write_parts(contents, kind, aside)
            write_record(record, aside)
            if folder.exists():
                folder.rmdir()
            aside.replace(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return open_bundle(folder)


def _write_parts(contents: Contents, kind: NetworkFormat, folder: Path) -> BundleRecord:
    members = tuple(_write_part(contents, kind, folder, number) for number in range(len(contents.parts)))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return BundleRecord(
        format=contents.format,
        precision=contents.precision,
        species=tuple(sorted(contents.parts[0].species)),
        names={code: name for code, name in sorted(contents.names.items()) if code in contents.parts[0].species},
        procedure=contents.procedure,
        members=members,
        weights_of_first=contents.weights_of_first,
        source=contents.source,
        made_with={"python": platform.python_version(), "torch": torch.__version__, "processor": processor()},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        calibration=None,
        files={path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
    )


def _write_part(contents: Contents, kind: NetworkFormat, folder: Path, number: int) -> BundleMember:
    part, procedure = contents.parts[number], contents.procedure
    name = f"{NETWORKS}/{number + 1}_{_file_name(part.recipe)}{kind.suffix}"
    kind.write(Network(part.model), folder / name, contents.precision)
    member = BundleMember(
        stage_id=part.stage_id,
        souped_with=part.souped_with,
        recipe=part.recipe,
        stage=part.stage,
        model=part.model.config,
        species=part.species,
        network=name,
        num_frames=input_shape(part.model.config, procedure)[2],
        network_ms=0.0,
        spectrogram_ms=0.0,
    )
    with one_thread():
        runtime = kind.load(member, folder / name, _CPU, contents.precision)
        return replace(
            member,
            network_ms=network_ms(runtime, part.model.config, procedure),
            spectrogram_ms=spectrogram_ms(part.model.config, procedure),
        )


def processor() -> str:
    """Return what this machine's processor is called, as far as it is known."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def _file_name(recipe: str) -> str:
    """Return the name of a recipe as a part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in recipe) or "network"
