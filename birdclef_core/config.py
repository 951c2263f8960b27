"""What a model and a stage are made of: frozen dataclasses that validate themselves and say what each field means.

A field marked with `runtime()` cannot change the result and stays out of a stage's identity; every other field is in it,
defaults too (see `identity.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from birdclef_core.errors import InputError

HeadName = Literal["sed", "cnn"]
LossName = Literal["ce", "bce"]
LabelSpaceName = Literal["all", "target"]
StageName = Literal["pretrain_ce", "pretrain_bce", "train_ce", "train_bce", "finetune"]
DbScale = Literal["unit", "over_255"]
HeadTransfer = Literal["by_species", "drop"]
Precision = Literal["float32", "bfloat16"]

STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
SAMPLE_RATE_HZ = 32_000

ConfigT = TypeVar("ConfigT")


def runtime(default: Any) -> Any:
    """A dataclass field that does not change the result, so that it is left out of the identity."""
    return field(default=default, metadata={"runtime": True})


def _require(condition: bool, rule: str, **values: object) -> None:
    if not condition:
        raise InputError(f"{rule} must hold, but got {', '.join(f'{name}={value!r}' for name, value in values.items())}.")


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, but got {value!r}.")


def _require_probabilities(config: object) -> None:
    for item in fields(config):  # type: ignore[arg-type]
        if item.name == "prob" or item.name.endswith("_prob"):
            value = getattr(config, item.name)
            _require(0 <= value <= 1, f"0 <= {item.name} <= 1", **{item.name: value})


@dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
    """A mel spectrogram in decibels, scaled, with or without its deltas along frequency (FACTS: recipes' table)."""

    num_mels: int = 128
    """Mel bins."""
    n_fft: int = 2048
    """Window and FFT length in samples."""
    hop_length: int = 627
    """Samples between two frames."""
    f_min_hz: float = 0.0
    f_max_hz: float = 16_000.0
    db_scale: DbScale = "unit"
    """`unit`: (dB + 80) / 80; `over_255`: dB / 255."""
    deltas: bool = True
    """Three channels (mel, delta, delta of delta) in place of one."""

    def __post_init__(self) -> None:
        _require_choice("db_scale", self.db_scale, get_args(DbScale))
        _require(self.num_mels >= 8, "num_mels >= 8", num_mels=self.num_mels)
        _require(0 < self.hop_length <= self.n_fft, "0 < hop_length <= n_fft", hop_length=self.hop_length, n_fft=self.n_fft)
        _require(
            0 <= self.f_min_hz < self.f_max_hz <= SAMPLE_RATE_HZ / 2,
            f"0 <= f_min_hz < f_max_hz <= {SAMPLE_RATE_HZ // 2}",
            f_min_hz=self.f_min_hz,
            f_max_hz=self.f_max_hz,
        )

    @property
    def num_channels(self) -> int:
        return 3 if self.deltas else 1


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """One backbone with its spectrogram in front and its head behind."""

    head: HeadName = "sed"
    encoder: str = "seresnext26t_32x4d.bt_in1k"
    """A timm model name."""
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    drop_rate: float = 0.5
    """timm's drop_rate."""
    drop_path_rate: float = 0.2
    """timm's stochastic depth."""
    head_dropout: float = 0.5

    def __post_init__(self) -> None:
        _require_choice("head", self.head, get_args(HeadName))
        for name in ("drop_rate", "drop_path_rate", "head_dropout"):
            _require(0 <= getattr(self, name) < 1, f"0 <= {name} < 1", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """How the clips of a batch are mixed with each other."""

    wave_prob: float = 0.0
    """Probability that a batch is mixed as waveforms; labels are joined by OR."""
    wave_double_prob: float = 1.0
    """Given that, the probability that two clips are mixed and not three."""
    spectrogram_prob: float = 0.0
    """Probability that a batch is mixed as spectrograms with a coefficient per clip; labels likewise."""
    spectrogram_beta: float = 2.0
    """The coefficient is drawn from Beta(b, b)."""

    def __post_init__(self) -> None:
        _require_probabilities(self)
        _require(self.spectrogram_beta > 0, "spectrogram_beta > 0", spectrogram_beta=self.spectrogram_beta)


@dataclass(frozen=True, kw_only=True)
class NoiseGroup:
    """Background noise of one kind, added to a clip at a signal-to-noise ratio drawn for each clip."""

    source: str = "*"
    """Sub-folder of `background_noise/`; `*`, or a sub-folder that is not there, means every noise file."""
    prob: float = 0.5
    snr_db_min: float = 3.0
    snr_db_max: float = 30.0

    def __post_init__(self) -> None:
        _require_probabilities(self)
        _require(
            self.snr_db_min <= self.snr_db_max, "snr_db_min <= snr_db_max", snr_db_min=self.snr_db_min, snr_db_max=self.snr_db_max
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What is done to a clip alone: first to its waveform, then to its spectrogram."""

    gain_prob: float = 0.2
    gain_db: float = 12.0
    """The gain is drawn from -gain_db to +gain_db."""
    gain_transition_prob: float = 0.2
    """A gain that changes smoothly over the clip, between two values of the same range."""
    gaussian_noise_prob: float = 0.2
    pink_noise_prob: float = 0.2
    coloured_noise_snr_db_min: float = 5.0
    coloured_noise_snr_db_max: float = 30.0
    """Range of the signal-to-noise ratio of Gaussian and pink noise."""
    time_shift_prob: float = 0.4
    """The clip is rolled by a random share of its length."""
    pitch_shift_prob: float = 0.4
    pitch_shift_semitones: float = 4.0
    """The shift is drawn from - to + this and applied to the mel spectrogram."""
    time_masks: int = 1
    time_mask_frames: int = 60
    """Each mask is up to this long."""
    frequency_masks: int = 1
    frequency_mask_bins: int = 24
    tilt_prob: float = 0.5
    """A random linear slope over frequency, as microphones and distance give."""
    tilt_db: float = 10.0
    """The slope's largest change from one edge to the other."""

    def __post_init__(self) -> None:
        _require_probabilities(self)
        for name in ("time_masks", "time_mask_frames", "frequency_masks", "frequency_mask_bins"):
            _require(getattr(self, name) >= 0, f"{name} >= 0", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of training: what is learnt, from which clips, for how long."""

    name: StageName
    label_space: LabelSpaceName
    """`all`: every species of the metadata; `target`: the species to be detected."""
    loss: LossName
    epochs: int
    learning_rate: float
    clip_s: float
    """Length of a training clip and of an evaluation window, in seconds."""
    batch_size: int
    seed: int
    """Any integer >= 0, also over 2**32."""
    clips_per_epoch: int | None = None
    """Clips drawn in one epoch; None: as many as there are training recordings."""
    freeze_encoder: bool = False
    """Finetune: SED freezes encoder, linear layer and input BatchNorm; CNN freezes encoder and GeM."""
    head_transfer: HeadTransfer = "by_species"
    """What happens to head rows when the label space changes: carried over by species, or dropped as the seed did."""
    label_smoothing: float = 0.1
    """Of the cross-entropy loss."""
    secondary_target: float = 0.9
    """Target of a species that is heard in the background."""
    weight_decay: float = 1e-3
    min_learning_rate: float = 1e-6
    """Where the cosine schedule ends."""
    precision: Precision = "float32"
    """Arithmetic of the encoder; spectrogram and loss are always float32."""
    mixing: MixingConfig = MixingConfig()
    noise: tuple[NoiseGroup, ...] = (NoiseGroup(),)
    augment: AugmentConfig = AugmentConfig()
    evaluation_batch_size: int = runtime(64)
    """Windows scored at once."""

    def __post_init__(self) -> None:
        _require_choice("stage name", self.name, STAGE_NAMES)
        _require_choice("label_space", self.label_space, get_args(LabelSpaceName))
        _require_choice("loss", self.loss, get_args(LossName))
        _require_choice("head_transfer", self.head_transfer, get_args(HeadTransfer))
        _require_choice("precision", self.precision, get_args(Precision))
        _require(self.epochs >= 1, "epochs >= 1", stage=self.name, epochs=self.epochs)
        _require(self.batch_size >= 2, "batch_size >= 2", stage=self.name, batch_size=self.batch_size)
        _require(self.seed >= 0, "seed >= 0", stage=self.name, seed=self.seed)
        _require(0.5 <= self.clip_s <= 60, "0.5 <= clip_s <= 60", stage=self.name, clip_s=self.clip_s)
        _require(
            0 < self.min_learning_rate <= self.learning_rate,
            "0 < min_learning_rate <= learning_rate",
            stage=self.name,
            learning_rate=self.learning_rate,
            min_learning_rate=self.min_learning_rate,
        )
        if self.clips_per_epoch is not None:
            _require(
                self.clips_per_epoch >= self.batch_size,
                "clips_per_epoch >= batch_size",
                stage=self.name,
                clips_per_epoch=self.clips_per_epoch,
                batch_size=self.batch_size,
            )

    @property
    def clip_samples(self) -> int:
        return round(self.clip_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the chain of stages that trains it."""

    name: str
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    ensemble_weight: float = 1.0
    """Weight of the model's logits in the recipe's own ensemble."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        order = sorted(set(names), key=STAGE_NAMES.index)
        if not names or names != order:
            raise InputError(f"Stages must be unique and in the order {', '.join(STAGE_NAMES)}, but {self.name} has {names}.")


def evolve(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """A copy of a nested config with dotted fields replaced, such as {"mixing.wave_prob": 0.5}.

    Raises InputError for a field that does not exist (naming those that do) or a value of the wrong type.
    """
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        known = {item.name: item for item in fields(config)}  # type: ignore[arg-type]
        if head not in known:
            raise InputError(f"{type(config).__name__} has no field {head!r}; it has {', '.join(known)}.")
        old = getattr(config, head)
        if rest:
            if not is_dataclass(old):
                raise InputError(f"{head!r} of {type(config).__name__} has no fields inside, but got {key!r}.")
            value = evolve(old, {rest: value})
        else:
            value = _coerce(f"{type(config).__name__}.{head}", old, value)
        config = replace(config, **{head: value})  # type: ignore[type-var]
    return config


def _coerce(name: str, old: Any, value: Any) -> Any:
    """`value` in the type of the field's present value: an int may stand for a float, nothing else is converted."""
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if old is None or value is None or type(old) is type(value):
        return value
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    raise InputError(f"{name} takes a {type(old).__name__}, but got {value!r}.")
