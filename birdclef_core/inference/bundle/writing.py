"""Writes a bundle: everything that a detector is made of, in one folder that appears complete."""

import errno
import os
import platform
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.inference.bundle.card import CARD_FILE, card
from birdclef_core.inference.bundle.examples import Examples
from birdclef_core.inference.bundle.formats import FORMATS, NetworkFormat
from birdclef_core.inference.bundle.parity import PARITY_FILE, Parity, compare
from birdclef_core.inference.bundle.reading import Bundle, open_bundle
from birdclef_core.inference.bundle.record import (
    BundleHead,
    BundleMember,
    BundlePrecision,
    BundleRecord,
    FormatName,
    write_record,
)
from birdclef_core.inference.bundle.timing import network_ms, one_thread, spectrogram_ms
from birdclef_core.inference.deployed import DeployedDetector
from birdclef_core.inference.networks.encoder_head import HeadNetwork
from birdclef_core.inference.networks.network import Network, input_shape
from birdclef_core.inference.networks.sound_network import SoundNetwork
from birdclef_core.inference.procedure import Procedure
from birdclef_core.inference.standalone.copying import copy_runtime
from birdclef_core.inference.stored import Model, member_of_model
from birdclef_core.json_files import to_json
from birdclef_core.models.detector import Detector
from birdclef_core.output_place import writing_to
from birdclef_core.stages.embeddings.hearing import EncoderWithHead, FileWithHead

NETWORKS = "networks"
_WAY_OUT = "give another folder with --to"
_FULL_BYTES = 2**20
"""A disk with less space than this is full."""
_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A network that becomes a member of a bundle."""

    stage_id: str
    souped_with: tuple[str, ...]
    recipe: str
    stage: str
    model: Model
    species: tuple[str, ...]

    @property
    def clip_s(self) -> float | None:
        """Seconds that a head on embeddings hears at once; None: another network."""
        return None if isinstance(self.model, Detector) else self.model.clip_s


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
    with_frontend: bool = False
    """Whether the networks have their spectrograms in themselves and take sound."""
    examples: Examples
    """Windows of real sound, on which the bundle is compared with the networks. Without any, it can only be written by force."""


def write_bundle(contents: Contents, folder: Path, *, force: bool = False) -> Bundle:
    """Write a bundle to a folder that does not exist or is empty, and return it.

    `force`: also when it differs from the networks by more than its precision allows, or there is too little sound to know. Raises
    InputError when it does so without force, when the format does not have the precision or needs a library that is missing, and when the
    folder is in use or cannot be written.
    """
    check_wish(folder, contents.format, contents.precision, with_frontend=contents.with_frontend)
    if not FORMATS[contents.format].has_encoder_files and any(isinstance(part.model, FileWithHead) for part in contents.parts):
        able = " or ".join(name for name, kind in FORMATS.items() if kind.has_encoder_files)
        raise InputError(f"A head on the embeddings of an ONNX encoder needs --format {able}, but got {contents.format}.")
    if contents.precision == "int8" and not len(contents.examples.wave_RT):
        raise InputError(
            f"int8 is fitted on real sound, but there is none: name a data folder with --data. {contents.examples.source}"
        )
    kind = FORMATS[contents.format]
    aside = folder.with_name(f".{folder.name}.partial")
    with writing_to(folder, way_out=_WAY_OUT):
        shutil.rmtree(aside, ignore_errors=True)
        (aside / NETWORKS).mkdir(parents=True)
        try:
            record = _write_parts(contents, kind, aside)
            parity = _write_parity(contents, record, aside, force=force)
            copy_runtime(aside, kind.library)
            (aside / CARD_FILE).write_text(card(record, parity), encoding="utf-8")
            write_record(replace(record, files=_hashes(aside)), aside)
            if folder.exists():
                folder.rmdir()
            aside.replace(folder)
        except RuntimeError as error:  # torch and OpenVINO say so when the disk is full
            if shutil.disk_usage(aside).free < _FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return open_bundle(folder)


def check_wish(folder: Path, format: FormatName, precision: BundlePrecision, *, with_frontend: bool) -> None:
    """Raise InputError when the format does not have the precision or no spectrogram in a network, or the folder is in use."""
    known = FORMATS[format].precisions
    if precision not in known:
        raise InputError(f"--precision must be one that the format {format} has ({', '.join(known)}), but got {precision}.")
    if with_frontend and not FORMATS[format].has_frontend:
        able = " or ".join(name for name, kind in FORMATS.items() if kind.has_frontend)
        raise InputError(f"--with-frontend needs --format {able}, but got {format}, whose networks take spectrograms.")
    if with_frontend and precision != "float32":
        raise InputError(
            f"--with-frontend needs --precision float32, but got {precision}: quiet sounds would vanish from spectrograms in {precision}."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--to must name a folder that does not exist or is empty, but {folder} is there and is not empty.")


def _write_parts(contents: Contents, kind: NetworkFormat, folder: Path) -> BundleRecord:
    members = tuple(_write_part(contents, kind, folder, number) for number in range(len(contents.parts)))
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
        files=_hashes(folder),
    )


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def _write_parity(contents: Contents, record: BundleRecord, folder: Path, *, force: bool) -> Parity:
    """Compare what was written with the networks, if there is sound. Raises InputError when it breaks a rule, unless it is forced."""
    bundled = Bundle(folder, record).detector(standalone=True)
    networks = [member.network for member in record.members]
    parity = compare(_original(contents), bundled, networks, contents.examples, record.precision, processor())
    (folder / PARITY_FILE).write_text(to_json(parity, indent=1), encoding="utf-8")
    if parity.broken_rules and not force:
        raise InputError(
            f"A bundle must give the scores of what it was made of: {'; '.join(parity.broken_rules)}. Name a data folder with labelled sound with --data, "
            "take another precision, or write it all the same with --force."
        )
    return parity


def _original(contents: Contents) -> DeployedDetector:
    """What the bundle is made of, in torch."""
    members = tuple(
        member_of_model(part.model, _CPU, model_id=part.stage_id, species=part.species, weight=weight)
        for part, weight in zip(contents.parts, contents.weights_of_first[-1], strict=True)
    )
    return DeployedDetector(members, contents.procedure)


def _write_part(contents: Contents, kind: NetworkFormat, folder: Path, number: int) -> BundleMember:
    part, procedure = contents.parts[number], contents.procedure
    name = f"{NETWORKS}/{number + 1}_{_file_name(part.recipe)}{kind.suffix}"
    (original,) = _original(replace(contents, parts=(part,), weights_of_first=((1.0,),))).members
    heard, model = _heard(contents, number), part.model
    is_file = isinstance(model, FileWithHead)
    takes_sound = contents.with_frontend or is_file
    member = BundleMember(
        stage_id=part.stage_id,
        souped_with=part.souped_with,
        recipe=part.recipe,
        stage=part.stage,
        model=model.config,
        species=part.species,
        network=name,
        num_frames=0 if is_file else input_shape(model.config, procedure, original.clip)[2],
        takes_sound=takes_sound,
        network_ms=0.0,
        spectrogram_ms=0.0,
        head=_head(model, name),
    )
    if isinstance(model, FileWithHead):
        assert member.head is not None and member.head.encoder is not None
        shutil.copyfile(model.path, folder / member.head.encoder)
        embedding_BD = original.runtime(heard[:2]).embedding_BD
        kind.write(HeadNetwork(model.head), embedding_BD, folder / name, contents.precision)
    else:
        network = Network(model)
        in_one = SoundNetwork(network, procedure, original.clip) if contents.with_frontend else network
        kind.write(in_one, heard, folder / name, contents.precision)
    num_clips = 1 if original.clip is None else len(procedure.clips(original.clip))
    with one_thread():
        runtime = kind.load(member, folder / name, _CPU, contents.precision)
        return replace(
            member,
            network_ms=num_clips * network_ms(runtime, tuple(heard.shape[1:])),
            spectrogram_ms=0.0 if takes_sound else num_clips * spectrogram_ms(model.config, original.clip or procedure.context),
        )


def _head(model: Model, network: str) -> BundleHead | None:
    """Return how a head on embeddings hears, whose network is in the file of that name; None for another network."""
    if isinstance(model, Detector):
        return None
    if isinstance(model, EncoderWithHead):
        own: tuple[str | None, int, str] = None, SAMPLE_RATE_HZ, ""
        hidden = model.head.head.hidden
    else:
        own = network.removesuffix(".onnx") + ".encoder.onnx", model.rate_hz, model.output
        hidden = model.head.hidden
    encoder, rate_hz, output = own
    return BundleHead(clip_s=model.clip_s, hidden=hidden, encoder=encoder, encoder_rate_hz=rate_hz, encoder_output=output)


def _heard(contents: Contents, number: int) -> Tensor:
    """Return what a network is given of windows of real sound; of noise where there is none."""
    wave_RT = contents.examples.wave_RT
    if not len(wave_RT):
        wave_RT = np.random.default_rng(0).uniform(-0.5, 0.5, (2, contents.procedure.context)).astype(np.float32)
    original = _original(contents)
    member = original.members[number]
    if contents.with_frontend or member.takes_sound:
        return original.sound_of(member, torch.from_numpy(wave_RT))
    (heard,) = replace(original, members=(member,)).inputs(wave_RT)
    return heard


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
