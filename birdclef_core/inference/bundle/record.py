"""The record of a bundle, `bundle.json`: what the detector is made of, and the hash of each of its files."""

import math
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from birdclef_core.config import ModelConfig
from birdclef_core.errors import InputError
from birdclef_core.identity import file_sha256, fingerprint
from birdclef_core.inference.deployed import detector_id, soup_id
from birdclef_core.inference.procedure import Procedure
from birdclef_core.json_files import to_json

BUNDLE_FILE = "bundle.json"
VERSION: Literal[1] = 1
"""Version of the record. One of another version is refused, because what it means could only be guessed."""

FormatName = Literal["torch", "openvino", "onnx"]
BundlePrecision = Literal["float32", "bfloat16", "int8"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
PRECISIONS: tuple[BundlePrecision, ...] = get_args(BundlePrecision)

_SUM_TOLERANCE = 1e-6
_WAY_OUT = "copy the whole bundle again, or export it again with birdclef export"


@dataclass(frozen=True, kw_only=True)
class BundleHead:
    """How a network hears that is a head on the embeddings of an encoder."""

    clip_s: float
    """Seconds that it hears at once. A window is heard in the middle of a longer clip, or by several clips of which the largest logit counts."""
    hidden: int
    """Size of its hidden layer; 0: it has none."""
    encoder: str | None
    """The file of an ONNX encoder, in the bundle; the network is the head alone then. None: the network has its encoder in itself."""
    encoder_rate_hz: int
    """Sample rate of the sound that the ONNX encoder takes."""
    encoder_output: str
    """Its output that is the embedding; empty: the first with two axes."""


@dataclass(frozen=True, kw_only=True)
class BundleMember:
    """One network of a bundle."""

    stage_id: str
    """Id of the stage that has its weights, 64 digits."""
    souped_with: tuple[str, ...]
    """Ids of the other stages if its weights are the mean of several; empty for a stage alone."""
    recipe: str
    stage: str
    """Name of the stage."""
    model: ModelConfig
    """Its spectrogram, encoder and head."""
    species: tuple[str, ...]
    """Species codes in the order of the network's classes."""
    network: str
    """The file of the network, in the bundle."""
    num_frames: int
    """Frames of its spectrograms."""
    takes_sound: bool
    """Whether the network has its spectrogram in itself: it takes the sound of the procedure's context (a head on embeddings that of a clip),
    at 32 kHz."""
    network_ms: float
    """Milliseconds of CPU time of the network for one window, with one thread, on the machine that made the bundle."""
    spectrogram_ms: float
    """The same for its spectrogram; 0 for a network that has it in itself. Members with the same decibels share most of it."""
    head: BundleHead | None = None
    """How a head on embeddings hears; None: it is another network."""

    def model_id(self, precision: BundlePrecision) -> str:
        """Return the id of the network: in float32 that of what it was made of, otherwise a hash of that and the precision."""
        own = soup_id((self.stage_id, *self.souped_with))
        return own if precision == "float32" else fingerprint([own, precision])


@dataclass(frozen=True, kw_only=True)
class BundleRecord:
    """The record of a bundle."""

    version: Literal[1] = VERSION
    format: FormatName
    precision: BundlePrecision
    species: tuple[str, ...]
    """Species codes, sorted."""
    names: dict[str, str]
    """What people call a species, by its code, as far as it is known."""
    procedure: Procedure
    members: tuple[BundleMember, ...]
    """In the order in which they should be kept when time is short."""
    weights_of_first: tuple[tuple[float, ...], ...]
    """The k-th entry has the k weights of the first k members when only these run."""
    source: str
    """The REF or the ensemble that it was made of."""
    made_with: dict[str, str]
    """Versions of what made it, and the processor that timings are of."""
    created_at: str
    """ISO 8601."""
    calibration: str | None
    """The file of the calibration, in the bundle; None where there is none."""
    files: dict[str, str]
    """sha256 of every file of the bundle but this record, by its path in the bundle."""

    def __post_init__(self) -> None:
        if not self.members or not self.species or list(self.species) != sorted(set(self.species)):
            raise InputError("members must have at least one entry, and species must be sorted and each be there once.")
        if any(sorted(member.species) != list(self.species) for member in self.members):
            raise InputError("the species of each member must be those of the bundle.")
        if [len(weights) for weights in self.weights_of_first] != list(range(1, len(self.members) + 1)):
            raise InputError("weights_of_first must have an entry of k weights for the first k members, for each k.")
        if any(min(item) <= 0 or not math.isclose(sum(item), 1, abs_tol=_SUM_TOLERANCE) for item in self.weights_of_first):
            raise InputError("the weights of each entry of weights_of_first must be above 0 and sum to 1.")
        named = {member.network for member in self.members} | ({self.calibration} if self.calibration else set())
        named |= {member.head.encoder for member in self.members if member.head and member.head.encoder}
        if missing := sorted(named - set(self.files)):
            raise InputError(f"files must have the hash of {missing[0]}.")
        if outside := [name for name in self.files if not _is_inside(name)]:
            raise InputError(f"files must lie in the bundle, but {outside[0]!r} does not.")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of all members."""
        return self.weights_of_first[-1]

    @property
    def model_id(self) -> str:
        """Id of its detector."""
        return detector_id([member.model_id(self.precision) for member in self.members], self.weights)

    def with_calibration(self, name: str, sha256: str) -> "BundleRecord":
        """Return the record with the file of a calibration."""
        return replace(self, calibration=name, files=dict(sorted({**self.files, name: sha256}.items())))


def write_record(record: BundleRecord, folder: Path) -> None:
    """Write the record of a bundle; it appears complete."""
    aside = folder / f".{BUNDLE_FILE}.tmp"
    aside.write_text(to_json(record, indent=1), encoding="utf-8")
    aside.replace(folder / BUNDLE_FILE)


def verify(record: BundleRecord, folder: Path) -> None:
    """Raise InputError when a file of a bundle is missing or has another content than when the bundle was made."""
    for name, sha256 in record.files.items():
        path = folder / name
        try:
            found = file_sha256(path)
        except OSError as error:
            raise InputError(f"{path} is a part of the bundle, but cannot be read ({error.strerror}): {_WAY_OUT}.") from None
        if found != sha256:
            raise InputError(f"{path} must be as it was when the bundle was made, but has another content: {_WAY_OUT}.")


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and str(path) == name and "\\" not in name
