"""The settings of models and stages: frozen dataclasses that check their values.

A field marked with `runtime()` cannot change a result and is not in a stage's identity. One marked with `added()` came after stages had
been stored without it, and is in the identity where it differs from its default. Every other field is, defaults included (see
`identity.py`).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from birdclef_core.augment_config import AugmentConfig, MixingConfig, NoiseGroup
from birdclef_core.config_rules import require, require_choice, require_types, shortened, types_of, wrong_type
from birdclef_core.errors import InputError
from birdclef_core.source_config import SourceShares, checked_shares, proportions, with_shares
from birdclef_core.teacher_config import TeacherConfig

HeadName = Literal["sed", "cnn"]
LossName = Literal["ce", "bce", "focal", "asymmetric", "soft_auc"]
LabelSpaceName = Literal["all", "target"]
DbScale = Literal["unit", "over_255"]
HeadTransfer = Literal["by_species", "drop"]
Precision = Literal["float32", "tf32", "bfloat16"]
PredictedAudio = Literal["unlabelled", "recordings"]
OptimizerName = Literal["adam", "adamw", "radam"]
ScheduleName = Literal["cosine", "one_cycle", "constant"]
ClassBalance = Literal["inverse", "inverse_sqrt", "none"]
EncoderAxes = Literal["frequency_time", "time_frequency"]

SUMMED_LOSSES: tuple[LossName, ...] = ("bce", "focal", "asymmetric")
"""Losses that are sums over the species and clips of a batch; the others are means over its clips."""
STAGE_NAMES = ("pretrain_ce", "pretrain_bce", "train_ce", "train_bce", "finetune")
"""The stages of the 2023 solution, in their order. A recipe of one's own may have others."""
SAMPLE_RATE_HZ = 32_000
FIRST_WEIGHTS = "first_weights"
"""Value of `starts_from` of a stage that starts from the encoder's first weights."""
EMBEDS = "encoder:"
"""Beginning of `predicts` of a stage that keeps embeddings."""
REPLICATE_MARK = "@"
"""Stands between the name of a stage and that of its replicate, where a trial is trained several times."""
_STAGE_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MAX_STAGE_NAME = 40
_OTHER_GROUPS = ("every", "model", "recipe", FIRST_WEIGHTS)
"""Names that stand for something else than a stage."""

ConfigT = TypeVar("ConfigT")


def runtime(default: Any) -> Any:
    """Return a dataclass field that does not change a result, so that it is not in the identity."""
    return field(default=default, metadata={"runtime": True})


def added(default: Any, form: Callable[[Any], Any] | None = None) -> Any:
    """Return a dataclass field that is in the identity only where it differs from its default, so that stages of the time before it keep
    their ids. With the default, a stage must be trained as it was before there was the field. `form` makes of its values what is in the
    identity, the same of values that mean the same."""
    return field(default=default, metadata={"added": True, "form": form})


@dataclass(frozen=True, kw_only=True)
class SpectrogramConfig:
    """Settings of a mel spectrogram in scaled decibels, with or without deltas along frequency."""

    num_mels: int = 128
    """Number of mel bins."""
    n_fft: int = 2048
    """Length of window and FFT in samples."""
    hop_length: int = 627
    """Samples from one frame to the next."""
    f_min_hz: float = 0.0
    """Frequency in Hz at which the lowest mel bin begins."""
    f_max_hz: float = 16_000.0
    """Frequency in Hz at which the highest mel bin ends, at most 16,000."""
    db_scale: DbScale = "unit"
    """Scaling of decibels; `unit`: (dB + 80) / 80, `over_255`: dB / 255."""
    deltas: bool = True
    """Whether there are three channels (mel, delta, delta of delta) and not one."""

    def __post_init__(self) -> None:
        require_types(self)
        require_choice("db_scale", self.db_scale, get_args(DbScale))
        require(self.num_mels >= 8, "num_mels >= 8", num_mels=self.num_mels)
        require(0 < self.hop_length <= self.n_fft, "0 < hop_length <= n_fft", hop_length=self.hop_length, n_fft=self.n_fft)
        require(
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
    """Settings of a model: spectrogram, encoder and head."""

    head: HeadName = "sed"
    """What turns features into scores: `sed`: scores over time, with attention; `cnn`: one score for a clip, read in pieces of 5 s."""
    encoder: str = "seresnext26t_32x4d.bt_in1k"
    """Name of a timm model."""
    encoder_axes: EncoderAxes = "frequency_time"
    """Height and width of the picture that the encoder sees. Weights are of use only with the axes that they were trained with.

    In the 2023 solution, a SED sees frequency x time and a CNN sees time x frequency."""
    spectrogram: SpectrogramConfig = SpectrogramConfig()
    drop_rate: float = 0.5
    """`drop_rate` of timm: dropout of a CNN's feature map before it is pooled. Most encoders of a SED have nothing that it changes."""
    drop_path_rate: float = 0.2
    """`drop_path_rate` of timm, its stochastic depth."""
    head_dropout: float = 0.5
    """Dropout before the linear layers of the head."""

    def __post_init__(self) -> None:
        require_types(self)
        require_choice("head", self.head, get_args(HeadName))
        require_choice("encoder_axes", self.encoder_axes, get_args(EncoderAxes))
        for name in ("drop_rate", "drop_path_rate", "head_dropout"):
            require(0 <= getattr(self, name) < 1, f"0 <= {name} < 1", **{name: getattr(self, name)})


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """Settings of a stage: what is learnt, from which clips, for how long."""

    name: str
    """Name of the stage: letters a to z, digits and `_`."""
    label_space: LabelSpaceName
    """`all`: all species of the metadata; `target`: the species to detect."""
    loss: LossName
    """`ce`: cross-entropy, for one species a clip. For any number of them: `bce`: binary cross-entropy; `focal` (Lin et al. 2017) and
    `asymmetric` (Ridnik et al. 2021): the same with less weight on what is right already; `soft_auc`: clips of a batch are ranked for
    each species (Gao & Zhou 2015)."""
    epochs: int
    """Number of epochs."""
    learning_rate: float
    """Highest learning rate of the schedule, that of the head."""
    clip_s: float
    """Length of a training clip and of an evaluation window, in seconds."""
    batch_size: int
    """Number of clips of a training step."""
    seed: int
    """Random seed: any integer >= 0, also over 2**32."""
    clips_per_epoch: int | None = None
    """Number of clips in an epoch; None: as many as there are training recordings."""
    freeze_encoder: bool = False
    """Whether parts of the model are not trained: encoder, linear layer and input BatchNorm of a SED; encoder and GeM of a CNN."""
    head_transfer: HeadTransfer = "by_species"
    """What happens to rows of the head when the label space changes: copied by species, or dropped as in the 2023 solution."""
    label_smoothing: float = 0.1
    """Label smoothing of the cross-entropy loss."""
    secondary_target: float = 0.9
    """Target of species in the background, which are secondary labels."""
    weight_decay: float = 1e-3
    """Weight decay: of `adam` and `radam` added to the gradient; of `adamw` taken off the weights, times the learning rate."""
    min_learning_rate: float = 1e-6
    """Learning rate to which the schedules `cosine` and `one_cycle` fall, and from which a warm-up rises."""
    precision: Precision = "float32"
    """Precision of the encoder; spectrogram and loss are always float32. `tf32` is float32 on a device without TF32."""
    micro_batch_size: int | None = None
    """Number of clips that go through the model at once, with gradients summed over the batch; None: the whole batch.

    It is in the identity because BatchNorm takes its statistics from a micro-batch, and dropout is drawn for each."""
    clip_gradient_norm: float | None = None
    """Gradients with a larger norm are scaled down to this norm; None: never."""
    ema_decay: float = 0.0
    """Decay of an exponential moving average of the weights, which is scored and published; 0: the weights themselves are."""
    average_epochs: int = 1
    """Number of last epochs over whose ends the published weights are averaged."""
    early_stop_epochs: int | None = None
    """Number of epochs without a better score after which the stage stops and publishes the weights of its best epoch.

    None: it runs to its end and publishes its last weights."""
    focal_gamma: float = added(2.0)
    """Of the loss `focal`: how much less a species counts the better its score is already; 0: not at all (Lin et al. 2017)."""
    focal_alpha: float = added(0.25)
    """Of the loss `focal`: weight of species that are heard, from 0 to 1; that of the others is the rest to 1 (Lin et al. 2017)."""
    positive_gamma: float = added(0.0)
    """Of the loss `asymmetric`: as `focal_gamma`, for species that are heard (Ridnik et al. 2021)."""
    negative_gamma: float = added(4.0)
    """Of the loss `asymmetric`: as `focal_gamma`, for species that are not heard (Ridnik et al. 2021)."""
    negative_margin: float = added(0.05)
    """Of the loss `asymmetric`: probability up to which a species that is not heard costs nothing (Ridnik et al. 2021)."""
    optimizer: OptimizerName = added("adam")
    """`adam` (Kingma & Ba 2015), `adamw`: with decoupled weight decay (Loshchilov & Hutter 2019), `radam` (Liu et al. 2020)."""
    schedule: ScheduleName = added("cosine")
    """How the learning rate changes; `cosine`: it falls after each epoch; `one_cycle`: it rises and falls with each step (Smith & Topin
    2018); `constant`: it stays."""
    warmup_epochs: float = added(0.0)
    """Number of epochs, also a part of one, in which the learning rate rises with each step before it is `cosine` or `constant`."""
    layer_decay: float = added(1.0)
    """Factor from the learning rate of each group of the encoder's layers to that of the group below it; 1: all layers have the same
    (Clark et al. 2020). timm says which layers are a group."""
    frozen_blocks: int = added(0)
    """Number of groups of the encoder's layers, from its input on, that are not trained; with one or more, the input BatchNorm of a SED
    is not trained either. timm says which layers are a group."""
    thaw_every: int = added(0)
    """Number of epochs after which the next group of the encoder's layers is trained too, the last group first; the head is trained from
    the beginning (Howard & Ruder 2018). 0: all are trained from the beginning."""
    class_balance: ClassBalance = added("inverse")
    """How often a recording is drawn, by the number of recordings of its species: 1 / number, 1 / square root of it, or all alike."""
    clip_candidates: int = added(1)
    """Number of places that are drawn in a recording; the clip is taken from the one where the sound above the rumble is loudest."""
    mixing: MixingConfig = MixingConfig()
    noise: tuple[NoiseGroup, ...] = (NoiseGroup(),)
    augment: AugmentConfig = AugmentConfig()
    starts_from: str = added("")
    """Name of the earlier stage of the chain whose weights it starts from; `first_weights`: it starts as the first stage does; empty:
    the last earlier stage that trains. Of a head on embeddings: an earlier head on the same embeddings with a hidden layer of the same size;
    empty: random weights."""
    teacher: TeacherConfig = added(TeacherConfig())
    predicts: str = added("")
    """For a stage that trains nothing and makes predictions: whose. The name of an earlier stage, which may be a head on embeddings, or the
    reference of a stored stage or the path of an ensemble. Of its other settings only clip_s (the length of a window), label_space, precision and predicts_on count.

    `encoder:timm` or `encoder:FILE.onnx`: it keeps the embeddings of all windows by an encoder that is not trained."""
    predicts_on: PredictedAudio = added("unlabelled")
    """What a stage that predicts hears: `unlabelled`: soundscapes without labels; `recordings`: the training recordings."""
    encoder_rate_hz: int = added(SAMPLE_RATE_HZ)
    """Of a stage that keeps embeddings by an ONNX encoder: the sample rate in Hz of the sound that it takes."""
    encoder_output: str = added("")
    """Of a stage that keeps embeddings by an ONNX encoder: the name of its output (B, D); empty: the first with two axes."""
    embeddings: str = added("")
    """For a stage that trains a head alone: name of the earlier stage whose embeddings it is trained on. It hears no sound, so that nothing
    about clips, augmentation or mixing counts, and starts from random weights or from another head (`starts_from`)."""
    head_hidden: int = added(0)
    """Of a head on embeddings: size of its hidden layer; 0: it is linear."""
    soundscape_share: float = added(0.0)
    """Share of the clips of a batch that are labelled windows of soundscapes, of those files that are for training."""
    compared_with: str = runtime("")
    """Which stages of other trials its score is compared with when trials are stopped: empty: those of its name; another name: all that have
    it here; `nothing`: none, so that it stops no trial. Only stages with the same label space and loss are ever compared."""
    sources: SourceShares = added((), proportions)
    """Share of each source, a collection that recordings came in (`birdclef data collect`), of the clips of recordings. They are divided by
    their sum, and a source that is not named does not train in the stage. Empty: sources do not count."""
    evaluation_batch_size: int = runtime(64)
    """Number of windows that are scored at once."""
    checkpoint_every_s: float = runtime(600.0)
    """Seconds between two checkpoints within an epoch."""
    compile_encoder: bool = runtime(False)
    """Whether to try torch.compile when the stage starts, and to keep it if it is faster. Results are equal but for rounding."""

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "noise", tuple(self.noise))
        object.__setattr__(self, "sources", checked_shares(self.sources))
        check_stage_name(self.name)
        if self.compared_with:
            check_stage_name(self.compared_with, field="compared_with")
        require_choice("label_space", self.label_space, get_args(LabelSpaceName))
        require_choice("loss", self.loss, get_args(LossName))
        require_choice("head_transfer", self.head_transfer, get_args(HeadTransfer))
        require_choice("precision", self.precision, get_args(Precision))
        require_choice("optimizer", self.optimizer, get_args(OptimizerName))
        require_choice("schedule", self.schedule, get_args(ScheduleName))
        require_choice("class_balance", self.class_balance, get_args(ClassBalance))
        require(self.epochs >= 1, "epochs >= 1", stage=self.name, epochs=self.epochs)
        require(self.batch_size >= 2, "batch_size >= 2", stage=self.name, batch_size=self.batch_size)
        require(self.seed >= 0, "seed >= 0", stage=self.name, seed=self.seed)
        require(0.5 <= self.clip_s <= 60, "0.5 <= clip_s <= 60", stage=self.name, clip_s=self.clip_s)
        require(
            0 < self.min_learning_rate <= self.learning_rate,
            "0 < min_learning_rate <= learning_rate",
            stage=self.name,
            learning_rate=self.learning_rate,
            min_learning_rate=self.min_learning_rate,
        )
        if self.clips_per_epoch is not None:
            require(
                self.clips_per_epoch >= self.batch_size,
                "clips_per_epoch >= batch_size",
                stage=self.name,
                clips_per_epoch=self.clips_per_epoch,
                batch_size=self.batch_size,
            )
        require(0 <= self.label_smoothing < 1, "0 <= label_smoothing < 1", label_smoothing=self.label_smoothing)
        require(self.weight_decay >= 0, "weight_decay >= 0", weight_decay=self.weight_decay)
        require(self.evaluation_batch_size >= 1, "evaluation_batch_size >= 1", evaluation_batch_size=self.evaluation_batch_size)
        require(0 <= self.secondary_target <= 1, "0 <= secondary_target <= 1", secondary_target=self.secondary_target)
        require(self.checkpoint_every_s >= 0, "checkpoint_every_s >= 0", checkpoint_every_s=self.checkpoint_every_s)
        require_choice("predicts_on", self.predicts_on, get_args(PredictedAudio))
        shares = self.soundscape_share + (self.teacher.share if self.teacher.predictions else 0)
        require(
            0 <= self.soundscape_share <= 1 and shares <= 1,
            "0 <= soundscape_share and soundscape_share + teacher.share <= 1",
            stage=self.name,
            soundscape_share=self.soundscape_share,
            teacher_share=self.teacher.share,
        )
        require(self.head_hidden >= 0, "head_hidden >= 0", head_hidden=self.head_hidden)
        require(
            1000 <= self.encoder_rate_hz <= 192_000, "1000 <= encoder_rate_hz <= 192000", encoder_rate_hz=self.encoder_rate_hz
        )
        if self.embeddings:
            others = (self.predicts, self.teacher.predictions, self.soundscape_share, self.layer_decay != 1)
            require(not any(others), "no predicts, teacher, soundscape_share or layer_decay beside embeddings", stage=self.name)
        require(self.clip_candidates >= 1, "clip_candidates >= 1", clip_candidates=self.clip_candidates)
        self._check_optional()
        self._check_loss()
        self._check_what_trains()

    def _check_optional(self) -> None:
        if self.micro_batch_size is not None:
            require(
                1 <= self.micro_batch_size <= self.batch_size,
                "1 <= micro_batch_size <= batch_size",
                micro_batch_size=self.micro_batch_size,
                batch_size=self.batch_size,
            )
        if self.clip_gradient_norm is not None:
            require(self.clip_gradient_norm > 0, "clip_gradient_norm > 0", clip_gradient_norm=self.clip_gradient_norm)
        if self.early_stop_epochs is not None:
            require(self.early_stop_epochs >= 1, "early_stop_epochs >= 1", early_stop_epochs=self.early_stop_epochs)
        require(0 <= self.ema_decay < 1, "0 <= ema_decay < 1", ema_decay=self.ema_decay)
        require(
            1 <= self.average_epochs <= self.epochs,
            "1 <= average_epochs <= epochs",
            average_epochs=self.average_epochs,
            epochs=self.epochs,
        )
        require(
            self.average_epochs == 1 or (not self.ema_decay and self.early_stop_epochs is None),
            "average_epochs == 1, or neither ema_decay nor early_stop_epochs,",
            average_epochs=self.average_epochs,
            ema_decay=self.ema_decay,
            early_stop_epochs=self.early_stop_epochs,
        )

    def _check_loss(self) -> None:
        for name in ("focal_gamma", "positive_gamma", "negative_gamma"):
            require(getattr(self, name) >= 0, f"{name} >= 0", **{name: getattr(self, name)})
        require(0 < self.focal_alpha < 1, "0 < focal_alpha < 1", focal_alpha=self.focal_alpha)
        require(0 <= self.negative_margin < 1, "0 <= negative_margin < 1", negative_margin=self.negative_margin)
        require(
            self.loss != "soft_auc" or self.micro_batch_size != 1 or bool(self.embeddings),
            "micro_batch_size above 1 with loss='soft_auc', which ranks the clips of a micro-batch against each other,",
            stage=self.name,
            micro_batch_size=self.micro_batch_size,
            loss=self.loss,
        )

    def _check_what_trains(self) -> None:
        require(
            0 <= self.warmup_epochs < self.epochs,
            "0 <= warmup_epochs < epochs",
            stage=self.name,
            warmup_epochs=self.warmup_epochs,
            epochs=self.epochs,
        )
        require(
            not self.warmup_epochs or self.schedule != "one_cycle",
            "warmup_epochs == 0, or a schedule other than 'one_cycle', which has a warm-up of its own,",
            warmup_epochs=self.warmup_epochs,
            schedule=self.schedule,
        )
        require(0 < self.layer_decay <= 1, "0 < layer_decay <= 1", layer_decay=self.layer_decay)
        for name in ("frozen_blocks", "thaw_every"):
            require(getattr(self, name) >= 0, f"{name} >= 0", **{name: getattr(self, name)})
        require(
            not self.thaw_every or self.thaw_every < self.epochs,
            "thaw_every < epochs, or no layer of the encoder would ever be trained,",
            stage=self.name,
            thaw_every=self.thaw_every,
            epochs=self.epochs,
        )
        require(
            not self.freeze_encoder or not (self.frozen_blocks or self.thaw_every),
            "freeze_encoder == False, or frozen_blocks == 0 and thaw_every == 0,",
            freeze_encoder=self.freeze_encoder,
            frozen_blocks=self.frozen_blocks,
            thaw_every=self.thaw_every,
        )

    @property
    def embeds(self) -> bool:
        """Whether it trains nothing and keeps embeddings."""
        return self.predicts.startswith(EMBEDS)

    @property
    def clip_samples(self) -> int:
        return round(self.clip_s * SAMPLE_RATE_HZ)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the chain of stages that trains it: any stages in any order, each once."""

    name: str
    model: ModelConfig
    stages: tuple[StageConfig, ...]
    ensemble_weight: float = 1.0
    """Weight of the model's logits in the ensemble of the 2023 solution."""

    def __post_init__(self) -> None:
        require_types(self)
        object.__setattr__(self, "stages", tuple(self.stages))
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) < len(names):
            raise InputError(f"A recipe must have at least one stage and none twice, but {self.name} has {names}.")


def check_stage_name(name: str, *, field: str = "The name of a stage") -> None:
    """Raise InputError for a name that no stage can have. `field`: what it is, for the message."""
    if not _STAGE_NAME.fullmatch(name) or len(name) > _MAX_STAGE_NAME or name in _OTHER_GROUPS:
        raise InputError(
            f"{field} must be of small letters, digits and single _, begin with a letter, have at most {_MAX_STAGE_NAME} "
            f"characters and be none of {', '.join(_OTHER_GROUPS)}, but is {shortened(repr(name))}."
        )


def evolve(config: ConfigT, changes: Mapping[str, Any]) -> ConfigT:
    """Return a copy of a nested config with fields replaced by their dotted names, such as {"mixing.wave_prob": 0.5}, or
    {"sources.birdclef2023": 0.7} for the share of a source.

    Raises InputError for a field that does not exist (naming those that do) or a value of the wrong type.
    """
    known = {item.name: item for item in fields(config)}  # type: ignore[arg-type]
    new: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if head not in known:
            raise InputError(f"{type(config).__name__} has no field {head!r}; it has {', '.join(known)}.")
        if rest:
            if known[head].type == SourceShares:
                value = _coerce(f"{type(config).__name__}.{key}", float, value)
            elif not is_dataclass(getattr(config, head)):
                raise InputError(f"{head!r} of {type(config).__name__} has no fields inside, but got {key!r}.")
            inside.setdefault(head, {})[rest] = value
        else:
            new[head] = _coerce(f"{type(config).__name__}.{head}", known[head].type, value)
    for head, within in inside.items():
        change = with_shares if known[head].type == SourceShares else evolve
        new[head] = change(new.get(head, getattr(config, head)), within)
    # All at once: rules hold between fields.
    return replace(config, **new) if new else config  # type: ignore[type-var]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every field of a nested config, or of its JSON form, with its dotted name: ("mixing.wave_prob", 0.5).

    The names are those that `evolve` takes. Configs in a tuple are numbered, as in "noise.0.prob"; pairs of a name and a number are named, as
    in "sources.birdclef2023"; any other tuple or list is one value.
    """
    items: Iterable[tuple[object, Any]]
    if is_dataclass(value):
        items = ((item.name, getattr(value, item.name)) for item in fields(value))
    elif isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)) and value and (is_dataclass(value[0]) or isinstance(value[0], Mapping)):
        items = enumerate(value)
    elif isinstance(value, (list, tuple)) and value and all(map(_is_share, value)):
        items = iter(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from flatten(item, f"{name}.{key}" if name else str(key))


def _is_share(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and [type(part) for part in item] in ([str, float], [str, int])


def _coerce(name: str, hint: Any, value: Any) -> Any:
    """`value` in a type of the field: an int becomes a float and a list a tuple if need be; nothing else is converted."""
    kinds = types_of(hint)
    if float in kinds and type(value) is int:
        return float(value)
    if tuple in kinds and isinstance(value, list):
        return tuple(value)
    if type(value) in kinds:
        return value
    raise wrong_type(name, kinds, value)
