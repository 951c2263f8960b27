"""Opens a bundle: its files are verified, and its networks become a detector."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256
from birdclef_core.inference.bundle.formats import FORMATS
from birdclef_core.inference.bundle.parity import PARITY_FILE, Parity
from birdclef_core.inference.bundle.record import BUNDLE_FILE, BundleRecord, verify, write_record
from birdclef_core.inference.deployed import DeployedDetector, Member
from birdclef_core.inference.results.calibration import CALIBRATION_FILE, Calibration, read_calibration, write_calibration
from birdclef_core.json_files import from_json
from birdclef_core.output_place import writing_to


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been verified."""

    folder: Path
    record: BundleRecord

    def runs_on(self, device: str) -> bool:
        """Return whether its format runs on a kind of device."""
        return device in FORMATS[self.record.format].devices

    def detector(self, device: torch.device | None = None, *, standalone: bool = False) -> DeployedDetector:
        """Return its detector, with its calibration if it has one. `device`: by default the CPU. `standalone`: as its own `runtime.py`
        loads it, which may run code of the bundle.

        Raises InputError when the format does not run on the device, when a network is not what the record says, or when a library is
        missing that its format needs.
        """
        chosen, kind = device or torch.device("cpu"), FORMATS[self.record.format]
        if not self.runs_on(chosen.type):
            raise InputError(
                f"A bundle of the format {self.record.format} runs on {' and '.join(kind.devices)}, but the device is {chosen.type}."
            )
        load = kind.load_standalone if standalone else kind.load
        members = tuple(
            Member(
                model_id=member.model_id(self.record.precision),
                config=member.model,
                species=member.species,
                runtime=load(member, self.folder / member.network, chosen, self.record.precision),
                weight=weight,
                takes_sound=member.takes_sound,
                clip_s=member.head.clip_s if member.head else None,
            )
            for member, weight in zip(self.record.members, self.record.weights, strict=True)
        )
        detector = DeployedDetector(
            members, self.record.procedure, chosen, self.record.names, weights_of_first=self.record.weights_of_first
        )
        if self.record.calibration is None:
            return detector
        path = self.folder / self.record.calibration
        calibration = read_calibration(path)
        calibration.require_of(detector.model_id, detector.procedure, str(path))
        return replace(detector, calibration=calibration)

    def parity(self) -> Parity:
        """Return how far it is from what it was made of."""
        path = self.folder / PARITY_FILE
        return from_json(Parity, path.read_bytes(), file=str(path))


def is_bundle(path: Path) -> bool:
    """Return whether a path is a folder with the record of a bundle."""
    return (path / BUNDLE_FILE).is_file()


def open_bundle(folder: Path) -> Bundle:
    """Return a bundle. Raises InputError, with the file and what is wrong, when it is none, is damaged, or is of another version."""
    file = folder / BUNDLE_FILE
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{folder} must be a bundle, but its {BUNDLE_FILE} cannot be read: {error.strerror}.") from None
    record = from_json(BundleRecord, content, file=str(file))
    verify(record, folder)
    return Bundle(folder, record)


def load_bundle(folder: Path | str, device: torch.device | None = None) -> DeployedDetector:
    """Return the detector of a bundle; raises as `open_bundle` and `Bundle.detector` do."""
    return open_bundle(Path(folder)).detector(device)


def set_calibration(bundle: Bundle, calibration: Calibration) -> Bundle:
    """Put a calibration into a bundle, in place of the one that it has, and return the bundle with it.

    Raises InputError when it is of another detector, or the bundle cannot be written.
    """
    path = bundle.folder / CALIBRATION_FILE
    calibration.require_of(bundle.record.model_id, bundle.record.procedure, str(path))
    with writing_to(bundle.folder, way_out="copy the bundle to a place that can be written to"):
        write_calibration(calibration, path)
        record = bundle.record.with_calibration(CALIBRATION_FILE, file_sha256(path))
        write_record(record, bundle.folder)
    return Bundle(bundle.folder, record)
