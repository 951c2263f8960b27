"""What `runtime.py` of a bundle runs: it finds species in recordings, with numpy, soundfile, torch, and what the bundle's format needs.

Shapes: B windows, C species.
"""

import argparse
import csv
import json
import os
import sys
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from birdclef_core.config import SAMPLE_RATE_HZ
from birdclef_core.errors import BirdclefError, DataError, InputError
from birdclef_core.inference.bundle.record import BUNDLE_FILE, VERSION, BundleMember, BundleRecord, verify
from birdclef_core.inference.deployed import SHOWN_DIGITS, DeployedDetector, Member
from birdclef_core.inference.networks.file_runtime import load_onnx_network
from birdclef_core.inference.networks.openvino_runtime import OpenVinoRuntime
from birdclef_core.inference.networks.program_runtime import ProgramRuntime
from birdclef_core.inference.results.calibration import Calibration, rounded, sigmoid
from birdclef_core.inference.results.columns import COLUMN_NAMES
from birdclef_core.inference.results.postprocess import NO_POSTPROCESSING
from birdclef_core.inference.runtime import Runtime
from birdclef_core.inference.sound import SoundFile
from birdclef_core.inference.windows import Window

AUDIO = (".ogg", ".oga", ".flac", ".wav", ".mp3", ".aif", ".aiff")

RUNTIMES: dict[str, Callable[[BundleMember, Path, str], Runtime]] = {
    "torch": lambda member, path, precision: ProgramRuntime(path),
    "openvino": lambda member, path, precision: OpenVinoRuntime(path, precision, torch.get_num_threads()),
    "onnx": lambda member, path, precision: load_onnx_network(member, path),
}


def main(folder: Path, arguments: Sequence[str] | None = None) -> int:
    """Run the command line for the bundle in a folder and return its exit code: 0 done, 1 a file could not be read, 2 wrong input."""
    parser = argparse.ArgumentParser(description="Find species in recordings with the bundle that this file lies in.")
    parser.add_argument("audio", nargs="+", type=Path, metavar="AUDIO", help="audio files, and folders with audio at any depth")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="CSV", help="the table of detections")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--threshold", type=float, default=0.5, metavar="X", help="least score of a detection (default 0.5)")
    which.add_argument("--top", type=int, metavar="N", help="instead: the N highest scores of each window")
    parser.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: all cores)")
    parsed = parser.parse_args(arguments)
    try:
        _check(parsed)
        if parsed.threads is not None:
            torch.set_num_threads(parsed.threads)
        return _predict(load(folder), parsed)
    except BirdclefError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code


def _check(parsed: argparse.Namespace) -> None:
    """Raise InputError for numbers that mean nothing."""
    for flag in ("threads", "top"):
        value = getattr(parsed, flag)
        if value is not None and value < 1:
            raise InputError(f"--{flag} >= 1 must hold, but got {value}.")
    if not 0 <= parsed.threshold <= 1:
        raise InputError(f"--threshold must be from 0 to 1, but got {parsed.threshold}.")


def load(folder: Path) -> DeployedDetector:
    """Return the detector of a bundle. Raises InputError when the bundle is damaged, or a library is missing that it needs."""
    record = _read(BundleRecord, folder / BUNDLE_FILE)
    if record.version != VERSION:
        raise InputError(f"{folder / BUNDLE_FILE} must be of version {VERSION}, but is of version {record.version}.")
    verify(record, folder)
    members = tuple(
        Member(
            model_id=member.model_id(record.precision),
            config=member.model,
            species=member.species,
            runtime=RUNTIMES[record.format](member, folder / member.network, record.precision),
            weight=weight,
            takes_sound=member.takes_sound,
            clip_s=member.head.clip_s if member.head else None,
        )
        for member, weight in zip(record.members, record.weights, strict=True)
    )
    calibration = _read(Calibration, folder / record.calibration) if record.calibration else None
    return DeployedDetector(members, record.procedure, names=record.names, calibration=calibration)


def _predict(detector: DeployedDetector, parsed: argparse.Namespace) -> int:
    code = 0
    aside = parsed.out.with_name(f".{parsed.out.name}.tmp")
    try:
        with aside.open("w", encoding="utf-8", newline="") as file:
            code = _write(detector, parsed, file)
        aside.replace(parsed.out)
    except OSError as error:
        raise InputError(f"{parsed.out} must be a place that can be written to, but: {error.strerror}.") from None
    return code


def _write(detector: DeployedDetector, parsed: argparse.Namespace, file: IO[str]) -> int:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMN_NAMES)
    unreadable = 0
    for path in _files(parsed.audio):
        try:
            windows, logits_WC, faults = hear(detector, path)
        except BirdclefError as error:
            unreadable += 1
            print(f"Not predicted: {_shown(error)}", file=sys.stderr)
            continue
        if faults:
            print(f"Predicted as far as possible, because of damage: {_shown(path)}: {'; '.join(faults)}", file=sys.stderr)
        table.writerows(_rows(detector, path, windows, logits_WC, parsed.threshold, parsed.top))
    return 1 if unreadable else 0


def hear(detector: DeployedDetector, path: Path) -> tuple[list[Window], NDArray[np.float32], tuple[str, ...]]:
    """Return the windows of a file, their logits (W, C), and what is wrong with it although it can be used. Raises DataError when it cannot be
    read."""
    if _shown(path) != str(path):  # libsndfile cannot open it
        raise DataError(f"{path} must have a name in UTF-8, but has not: rename it.")
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise DataError(f"{path} must be a file, but is a pipe or a device.")
    sound = SoundFile(path, detector.procedure)
    windows: list[Window] = []
    parts = [np.zeros((0, len(detector.species)), dtype=np.float32)]
    for some, heard in detector.hear_stream(sound.blocks()):
        windows += some
        parts.append(heard.logits_BC)
    return windows, np.concatenate(parts), sound.faults


def _rows(
    detector: DeployedDetector,
    path: Path,
    windows: list[Window],
    logits_WC: NDArray[np.float32],
    threshold: float,
    top: int | None,
) -> Iterator[list[object]]:
    calibration = detector.calibration
    changed_WC = (NO_POSTPROCESSING if calibration is None else calibration.postprocessing).apply(logits_WC)
    score_WC = sigmoid(changed_WC)
    calibrated_WC = np.full_like(score_WC, np.nan) if calibration is None else calibration.probabilities(changed_WC)
    for row, window in enumerate(windows):
        # Of equal scores, the first species counts.
        best = np.sort(np.argsort(-score_WC[row], kind="stable")[:top]) if top else np.flatnonzero(score_WC[row] >= threshold)
        for column in best:
            code = detector.species[column]
            yield [
                _shown(path),
                _seconds(window.start),
                _seconds(window.end),
                code,
                detector.name(code),
                float(rounded(score_WC[row, column])),
                "" if calibration is None else float(rounded(calibrated_WC[row, column])),
                "" if top else threshold,
                detector.model_id[:SHOWN_DIGITS],
            ]


def _seconds(sample: int) -> str:
    """A time as an exact decimal: a sample at 32 kHz has at most eight digits behind the point."""
    text = f"{sample / SAMPLE_RATE_HZ:.8f}".rstrip("0")
    return text + "0" if text.endswith(".") else text


def _shown(name: object) -> str:
    """The name of a file as text that can be written anywhere, as the project shows it."""
    return os.fsencode(str(name)).decode("utf-8", "backslashreplace")


def _files(named: Sequence[Path]) -> Iterator[Path]:
    for path in named:
        if path.is_dir():
            yield from sorted(item for item in path.rglob("*") if item.suffix.lower() in AUDIO and item.is_file())
        else:
            yield path


def _read(kind: type, path: Path) -> Any:
    """Return the dataclass in a JSON file. Raises InputError when it cannot be read or a field is missing."""
    try:
        return _value(kind, json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} must be a record of this version, but is not: {error}.") from None


def _value(kind: Any, value: Any) -> Any:
    """Return the value of a type that JSON stands for: dataclasses, tuples, mappings, and what may be None."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{item.name: _value(hints[item.name], value[item.name]) for item in fields(kind)})
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return tuple(_value(arguments[0], item) for item in value)
    if origin is dict:
        return {key: _value(arguments[1], item) for key, item in value.items()}
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(next(item for item in arguments if item is not type(None)), value)
    return value
