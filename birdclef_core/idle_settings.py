"""Which settings of a stage count only together with another one, so that a sweep can refuse those that never count."""

from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields

from birdclef_core.config import EMBEDS, StageConfig, flatten
from birdclef_core.teacher_config import TeacherConfig


@dataclass(frozen=True, kw_only=True)
class Dependence:
    """Settings that count only together with another one."""

    settings: tuple[str, ...]
    """Their dotted names; one that ends with a dot stands for all settings inside."""
    rule: str
    """When they count, as the end of a sentence: `counts only <rule>`."""
    counts: Callable[[StageConfig], bool]
    is_set_on_purpose: bool = False
    """Whether a value other than the default says that they are to count. Others are left as they were where the first one is switched off."""

    def has(self, name: str) -> bool:
        """Return whether a setting is one of them."""
        return any(name == setting or (setting.endswith(".") and name.startswith(setting)) for setting in self.settings)


def _by_loss(loss: str, *names: str, is_set_on_purpose: bool = True) -> Dependence:
    return Dependence(
        settings=names,
        rule=f"with loss={loss!r}",
        counts=lambda stage: stage.loss == loss,
        is_set_on_purpose=is_set_on_purpose,
    )


def _by_probability(within: str, probability: str, *names: str) -> Dependence:
    return Dependence(
        settings=tuple(f"{within}.{name}" for name in names),
        rule=f"with {within}.{probability} above 0",
        counts=lambda stage: getattr(getattr(stage, within), probability) > 0,
    )


_OF_TEACHER = tuple(f"teacher.{item.name}" for item in fields(TeacherConfig) if item.name != "predictions")
_OF_SOUND = (
    "mixing.",
    "augment.",
    "noise.",
    "clip_candidates",
    "micro_batch_size",
    "freeze_encoder",
    "frozen_blocks",
    "thaw_every",
)

DEPENDENCES: tuple[Dependence, ...] = (
    _by_loss("focal", "focal_gamma", "focal_alpha"),
    _by_loss("asymmetric", "positive_gamma", "negative_gamma", "negative_margin"),
    _by_loss("ce", "label_smoothing", is_set_on_purpose=False),
    Dependence(
        settings=_OF_TEACHER,
        rule="with teacher.predictions",
        counts=lambda stage: bool(stage.teacher.predictions),
        is_set_on_purpose=True,
    ),
    Dependence(
        settings=("teacher.threshold",),
        rule="with teacher.mode='pseudo_labels'",
        counts=lambda stage: stage.teacher.mode == "pseudo_labels",
    ),
    Dependence(
        settings=("teacher.label_share",),
        rule="with teacher.mode='distillation'",
        counts=lambda stage: stage.teacher.mode == "distillation",
    ),
    Dependence(
        settings=("head_hidden",),
        rule="in a head on embeddings",
        counts=lambda stage: bool(stage.embeddings),
        is_set_on_purpose=True,
    ),
    Dependence(
        settings=("encoder_rate_hz", "encoder_output"),
        rule=f"with predicts='{EMBEDS}FILE.onnx'",
        counts=lambda stage: stage.embeds and stage.predicts != f"{EMBEDS}timm",
        is_set_on_purpose=True,
    ),
    Dependence(
        settings=("predicts_on",),
        rule="with predicts",
        counts=lambda stage: bool(stage.predicts),
        is_set_on_purpose=True,
    ),
    Dependence(
        settings=_OF_SOUND,
        rule="in a stage that hears sound, not in a head on embeddings",
        counts=lambda stage: not stage.embeddings,
    ),
    Dependence(
        settings=("min_learning_rate",),
        rule="with a schedule other than 'constant', or with warmup_epochs",
        counts=lambda stage: stage.schedule != "constant" or bool(stage.warmup_epochs),
    ),
    Dependence(settings=("layer_decay",), rule="without freeze_encoder", counts=lambda stage: not stage.freeze_encoder),
    _by_probability("mixing", "wave_prob", "wave_double_prob"),
    _by_probability("mixing", "spectrogram_prob", "spectrogram_beta"),
    _by_probability("augment", "coloured_noise_prob", "coloured_noise"),
    _by_probability("augment", "gain_transition_prob", "gain_transition_s_min", "gain_transition_s_max"),
    _by_probability("augment", "pitch_shift_prob", "pitch_shift_semitones"),
    _by_probability("augment", "frequency_mask_prob", "frequency_masks", "frequency_mask_bins"),
    _by_probability("augment", "tilt_prob", "tilt_depth"),
)
"""All of them. A setting may be in several; then each must hold."""


def set_on_purpose(stage: StageConfig) -> Iterator[tuple[str, object, Dependence]]:
    """Yield the settings of a stage that somebody must have set on purpose: name, value, and what it depends on."""
    default = dict(flatten({item.name: item.default for item in fields(StageConfig) if item.default is not MISSING}))
    for name, value in flatten(stage):
        for item in DEPENDENCES:
            if item.is_set_on_purpose and item.has(name) and value != default.get(name):
                yield name, value, item
