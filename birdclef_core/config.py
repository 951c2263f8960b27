"""What a model and a stage are made of: frozen dataclasses that validate themselves and say what each field means.

A field marked with `runtime()` cannot change the result and stays out of a stage's identity; every other field is in it,
defaults too (see `identity.py`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args

from birdclef_core.errors import InputError

HeadName = Literal["sed", "cnn"]
LossName = Literal["ce", "bce"]
LabelSpaceName = Literal["all", "target"]
StageName = Literal["pretrain_ce", "pretrain_bce", "train_ce", "train_bce", "finetune"]
DbScale = Literal["unit", "over_255"]
HeadTransfer = Literal["by_species", "drop"]
Precision = Literal["float32", "tf32", "bfloat16"]

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
    """Arithmetic of the encoder; spectrogram and loss are always float32. `tf32` is float32 where the device has no TF32."""
    micro_batch_size: int | None = None
    """Clips that go through the model at once, their gradients added up over the batch; None: all of it. It is in the identity:
    BatchNorm takes its statistics from a micro-batch, and dropout is drawn for each."""
    clip_gradient_norm: float | None = None
    """Gradients are scaled down to this norm where theirs is larger; None: never."""
    ema_decay: float = 0.0
    """The weights scored and published are an exponential moving average over steps; 0: the weights themselves."""
    average_epochs: int = 1
    """The weights published are the mean of those at the ends of this many last epochs."""
    early_stop_epochs: int | None = None
    """The stage ends when its score has not risen for so many epochs, and the best epoch's weights are published; None: it runs to
    its end, and the last weights are published."""
    mixing: MixingConfig = MixingConfig()
    noise: tuple[NoiseGroup, ...] = (NoiseGroup(),)
    augment: AugmentConfig = AugmentConfig()
    evaluation_batch_size: int = runtime(64)
    """Windows scored at once."""
    checkpoint_every_s: float = runtime(600.0)
    """Within a longer epoch, a checkpoint is written this often."""
    compile_encoder: bool = runtime(False)
    """Try torch.compile when the stage starts and keep it where it is measured to pay. Equal within rounding, hence not in the
    identity."""

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
        _require(self.checkpoint_every_s >= 0, "checkpoint_every_s >= 0", checkpoint_every_s=self.checkpoint_every_s)
        self._check_optional()

    def _check_optional(self) -> None:
        if self.micro_batch_size is not None:
            _require(
                1 <= self.micro_batch_size <= self.batch_size,
                "1 <= micro_batch_size <= batch_size",
                micro_batch_size=self.micro_batch_size,
                batch_size=self.batch_size,
            )
        if self.clip_gradient_norm is not None:
            _require(self.clip_gradient_norm > 0, "clip_gradient_norm > 0", clip_gradient_norm=self.clip_gradient_norm)
        if self.early_stop_epochs is not None:
            _require(self.early_stop_epochs >= 1, "early_stop_epochs >= 1", early_stop_epochs=self.early_stop_epochs)
        _require(0 <= self.ema_decay < 1, "0 <= ema_decay < 1", ema_decay=self.ema_decay)
        _require(
            1 <= self.average_epochs <= self.epochs,
            "1 <= average_epochs <= epochs",
            average_epochs=self.average_epochs,
            epochs=self.epochs,
        )
        _require(
            self.average_epochs == 1 or (not self.ema_decay and self.early_stop_epochs is None),
            "average_epochs == 1, or neither ema_decay nor early_stop_epochs,",
            average_epochs=self.average_epochs,
            ema_decay=self.ema_decay,
            early_stop_epochs=self.early_stop_epochs,
        )

    @property
    def clip_samples(self) -> int:
        return round(self.clip_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the chain of stages that trains it: any of them, in any order, each once."""

    name: str
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    ensemble_weight: float = 1.0
    """Weight of the model's logits in the recipe's own ensemble."""

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise InputError(f"A recipe must have at least one stage and none twice, but {self.name} has {names}.")


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
            value = _coerce(f"{type(config).__name__}.{head}", known[head].type, old, value)
        config = replace(config, **{head: value})  # type: ignore[type-var]
    return config


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field of a nested config, or of its JSON form, with its dotted name: ("mixing.wave_prob", 0.5).

    The names are those that `evolve` takes. Configs in a tuple are numbered, as in "noise.0.prob"; any other tuple or list is one value.
    """
    items: Iterable[tuple[object, Any]]
    if is_dataclass(value):
        items = ((item.name, getattr(value, item.name)) for item in fields(value))
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)) and value and (is_dataclass(value[0]) or isinstance(value[0], Mapping)):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from flatten(item, f"{name}.{key}" if name else str(key))


def _coerce(name: str, hint: Any, old: Any, value: Any) -> Any:
    """`value` in a type of the field: an int may stand for a float and a list for a tuple, nothing else is converted."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (type(old),)
    if float in kinds and type(value) is int:
        return float(value)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if type(value) in kinds:
        return value
    names = " or ".join("None" if kind is NoneType else kind.__name__ for kind in kinds)
    raise InputError(f"{name} takes a {names}, but got {value!r}.")
