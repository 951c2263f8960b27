"""The seven recipes of the 2023 solution as data, and the small budget in which to try them. docs/deviations.md says where they differ."""

from collections.abc import Sequence
from dataclasses import replace

from birdclef_core.augment_config import AugmentConfig, MixingConfig, NoiseGroup
from birdclef_core.config import (
    STAGE_NAMES,
    LabelSpaceName,
    LossName,
    ModelConfig,
    Precision,
    PredictedAudio,
    Recipe,
    SpectrogramConfig,
    StageConfig,
)
from birdclef_core.errors import InputError

STAGE_KINDS: dict[str, tuple[LabelSpaceName, LossName, float]] = {
    "pretrain_ce": ("all", "ce", 3e-4),
    "pretrain_bce": ("all", "bce", 1e-3),
    "train_ce": ("target", "ce", 3e-4),
    "train_bce": ("target", "bce", 1e-3),
    "finetune": ("target", "bce", 6e-4),
}
"""Label space, loss and learning rate of each stage, the same in all recipes."""

DEFAULT_EPOCHS: dict[str, int] = {
    "pretrain_ce": 70,
    "pretrain_bce": 40,
    "train_ce": 60,
    "train_bce": 30,
    "finetune": 10,
}
"""Epochs of a stage that a recipe skips, for `with_all_stages`: those of sed_v2s."""

FINETUNE_CLIP_S = 30.0

_QUIET_NOISE = (NoiseGroup(source="*", prob=0.5, snr_db_min=3.0, snr_db_max=30.0),)

_CNN_AUGMENT = AugmentConfig(coloured_noise_prob=0.5, coloured_noise="cnn")
_LOUD_AUGMENT = AugmentConfig(gain_prob=0.4, gain_transition_prob=0.4, gain_db=15.0)
"""Of the recipes with loud background noise. That of the third SED is the default."""


def _loud_noise(nocall_prob: float, field_prob: float, ambient_prob: float) -> tuple[NoiseGroup, ...]:
    """BirdCLEF no-call recordings; freefield1010, warblrb and BirdVox; rainforest and environment: all at 0 to 3 dB."""
    probs = {"nocall": nocall_prob, "field": field_prob, "ambient": ambient_prob}
    return tuple(NoiseGroup(source=source, prob=prob, snr_db_min=0.0, snr_db_max=3.0) for source, prob in probs.items())


def _stages(
    epochs: Sequence[int | None],
    seeds: Sequence[int],
    *,
    clip_s: float,
    batch_size: int,
    mixing: MixingConfig,
    noise: tuple[NoiseGroup, ...] = _QUIET_NOISE,
    augment: AugmentConfig,
) -> tuple[StageConfig, ...]:
    """Configs of the stages that have epochs, in order; `seeds` has one random seed for each of these."""
    run = [(name, count) for name, count in zip(STAGE_NAMES, epochs, strict=True) if count is not None]
    return tuple(
        _stage(name, count, seed, clip_s=clip_s, batch_size=batch_size, mixing=mixing, noise=noise, augment=augment)
        for (name, count), seed in zip(run, seeds, strict=True)
    )


def _stage(
    name: str,
    epochs: int,
    seed: int,
    *,
    clip_s: float,
    batch_size: int,
    mixing: MixingConfig,
    noise: tuple[NoiseGroup, ...],
    augment: AugmentConfig,
) -> StageConfig:
    label_space, loss, learning_rate = STAGE_KINDS[name]
    finetune = name == "finetune"
    return StageConfig(
        name=name,
        label_space=label_space,
        loss=loss,
        epochs=epochs,
        learning_rate=learning_rate,
        clip_s=FINETUNE_CLIP_S if finetune else clip_s,
        batch_size=batch_size,
        seed=seed,
        freeze_encoder=finetune,
        mixing=mixing,
        noise=noise,
        augment=augment,
    )


def sed_v2s() -> Recipe:
    return Recipe(
        name="sed_v2s",
        model=ModelConfig(
            head="sed",
            encoder="tf_efficientnetv2_s.in21k",
            spectrogram=SpectrogramConfig(num_mels=128, n_fft=2048, hop_length=417, f_min_hz=0.0, f_max_hz=16_000.0),
        ),
        stages=_stages(
            (70, 40, 60, 30, 10),
            (20231121, 20230503, 20231019, 20231911, 20230523),
            clip_s=10.0,
            batch_size=96,
            mixing=MixingConfig(wave_prob=0.7, wave_double_prob=0.5, spectrogram_prob=0.15),
            noise=_loud_noise(0.6, 0.3, 0.4),
            augment=_LOUD_AUGMENT,
        ),
        ensemble_weight=0.25,
    )


def sed_b3ns() -> Recipe:
    return Recipe(
        name="sed_b3ns",
        model=ModelConfig(
            head="sed",
            encoder="tf_efficientnet_b3.ns_jft_in1k",
            spectrogram=SpectrogramConfig(
                num_mels=128, n_fft=1024, hop_length=535, f_min_hz=50.0, f_max_hz=14_000.0, db_scale="over_255"
            ),
        ),
        stages=_stages(
            (75, 45, 60, 30, 10),
            (20201121, 20200503, 20201019, 2020101911, 2020101921),
            clip_s=10.0,
            batch_size=96,
            mixing=MixingConfig(wave_prob=0.6, wave_double_prob=0.5, spectrogram_prob=0.3),
            noise=_loud_noise(0.5, 0.25, 0.35),
            augment=_LOUD_AUGMENT,
        ),
        ensemble_weight=0.21,
    )


def sed_seresnext26t() -> Recipe:
    return Recipe(
        name="sed_seresnext26t",
        model=ModelConfig(
            head="sed",
            encoder="seresnext26t_32x4d.bt_in1k",
            spectrogram=SpectrogramConfig(num_mels=128, n_fft=2048, hop_length=627, db_scale="over_255", deltas=False),
        ),
        stages=_stages(
            (80, 40, 60, None, None),
            (19940215, 19000215, 19951019),
            clip_s=10.0,
            batch_size=128,
            mixing=MixingConfig(wave_prob=0.0, spectrogram_prob=0.7),
            augment=AugmentConfig(),
        ),
        ensemble_weight=0.10,
    )


def cnn_v2s() -> Recipe:
    return Recipe(
        name="cnn_v2s",
        model=ModelConfig(
            head="cnn",
            encoder="tf_efficientnetv2_s.in21k",
            encoder_axes="time_frequency",
            spectrogram=SpectrogramConfig(num_mels=64, n_fft=1024, hop_length=320, f_min_hz=50.0, f_max_hz=14_000.0),
        ),
        stages=_stages(
            (56, 54, 60, 30, 10),
            (20191121, 20190503, 20191019, 2019101911, 2019101921),
            clip_s=15.0,
            batch_size=96,
            mixing=MixingConfig(wave_prob=0.6, wave_double_prob=0.95, spectrogram_prob=1.0, spectrogram_beta=1.0),
            augment=_CNN_AUGMENT,
        ),
        ensemble_weight=0.15,
    )


def cnn_b3ns() -> Recipe:
    return Recipe(
        name="cnn_b3ns",
        model=ModelConfig(
            head="cnn",
            encoder="tf_efficientnet_b3.ns_jft_in1k",
            encoder_axes="time_frequency",
            spectrogram=SpectrogramConfig(num_mels=128, n_fft=1024, hop_length=535, f_min_hz=50.0, f_max_hz=14_000.0),
        ),
        stages=_stages(
            (50, 52, 60, 30, None),
            (20171121, 20170503, 20171019, 2017101911),
            clip_s=15.0,
            batch_size=96,
            mixing=MixingConfig(wave_prob=0.7, wave_double_prob=0.9, spectrogram_prob=0.5, spectrogram_beta=1.0),
            noise=(replace(_QUIET_NOISE[0], prob=0.6),),
            augment=replace(_CNN_AUGMENT, gain_prob=0.4),
        ),
        ensemble_weight=0.15,
    )


def cnn_resnet34d() -> Recipe:
    return Recipe(
        name="cnn_resnet34d",
        model=ModelConfig(
            head="cnn",
            encoder="resnet34d.ra2_in1k",
            encoder_axes="time_frequency",
            spectrogram=SpectrogramConfig(num_mels=128, n_fft=2048, hop_length=627, db_scale="over_255"),
        ),
        stages=_stages(
            (60, 50, 60, 30, None),
            (19941121, 19940503, 1994081011, 19940810),
            clip_s=15.0,
            batch_size=128,
            mixing=MixingConfig(wave_prob=0.7, wave_double_prob=1.0, spectrogram_prob=1.0, spectrogram_beta=1.0),
            augment=_CNN_AUGMENT,
        ),
        ensemble_weight=0.10,
    )


def cnn_b0ns() -> Recipe:
    return Recipe(
        name="cnn_b0ns",
        model=ModelConfig(
            head="cnn",
            encoder="tf_efficientnet_b0.ns_jft_in1k",
            encoder_axes="time_frequency",
            spectrogram=SpectrogramConfig(num_mels=128, n_fft=2048, hop_length=627, db_scale="over_255", deltas=False),
        ),
        stages=_stages(
            (None, None, 50, None, None),
            (202111210524,),
            clip_s=20.0,
            batch_size=156,
            mixing=MixingConfig(wave_prob=0.0, spectrogram_prob=1.0, spectrogram_beta=1.0),
            augment=_CNN_AUGMENT,
        ),
        ensemble_weight=0.04,
    )


def predictions(
    name: str,
    *,
    of: str,
    on: PredictedAudio = "unlabelled",
    window_s: float = 5.0,
    label_space: LabelSpaceName = "target",
    precision: Precision = "float32",
) -> StageConfig:
    """Return a stage that trains nothing: a teacher hears windows of sound side by side, and its logits are kept for students.

    `of`: an earlier stage of the chain, or the reference of a stored stage, or the path of an ensemble.json. `on`: soundscapes
    without labels, or the training recordings. `window_s`: length of a window in seconds. `label_space`: that of the teacher.
    """
    return StageConfig(
        name=name,
        label_space=label_space,
        loss="bce",
        epochs=1,
        learning_rate=1.0,
        clip_s=window_s,
        batch_size=2,
        seed=0,
        precision=precision,
        predicts=of,
        predicts_on=on,
    )


RECIPES = {
    recipe.__name__: recipe for recipe in (sed_v2s, sed_b3ns, sed_seresnext26t, cnn_v2s, cnn_b3ns, cnn_resnet34d, cnn_b0ns)
}


def get_recipe(name: str) -> Recipe:
    """Return the recipe of that name. Raises InputError, with the known names, when there is none."""
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}; those that exist: {', '.join(RECIPES)}.")
    return RECIPES[name]()


def with_all_stages(recipe: Recipe) -> Recipe:
    """Return the recipe with all five stages: those that it skips get DEFAULT_EPOCHS, and the settings of its last other stage.

    The description of the 2023 solution says that every model ran all five; its recipes show that some skip stages.
    """
    own = {stage.name: stage for stage in recipe.stages}
    # A finetune stage has longer clips than the others.
    like = next((stage for stage in reversed(recipe.stages) if stage.name != "finetune"), recipe.stages[-1])
    stages = tuple(
        own.get(name)
        or _stage(
            name,
            DEFAULT_EPOCHS[name],
            like.seed + STAGE_NAMES.index(name),
            clip_s=like.clip_s,
            batch_size=like.batch_size,
            mixing=like.mixing,
            noise=like.noise,
            augment=like.augment,
        )
        for name in STAGE_NAMES
    )
    return replace(recipe, stages=stages)


SMALL_EPOCHS: dict[str, int] = {"pretrain_ce": 3, "pretrain_bce": 1, "train_ce": 3, "train_bce": 3, "finetune": 1}
SMALL_SHARE = 1 / 20
"""Share of its epochs that another stage has under the small budget."""
SMALL_CLIP_S = 5.0


def small_budget(recipe: Recipe) -> Recipe:
    """Return the recipe at a size for two CPU cores: 48 x 129 spectrograms of 5 s clips, and a few short epochs.

    Augmentation and mixing are milder and the learning rate is lower, or a model would learn nothing in a hundred steps. It
    shows that everything works and which models learn at all; it does not measure what the full recipe reaches.
    """
    spectrogram = replace(recipe.model.spectrogram, num_mels=48, n_fft=2048, hop_length=1250)
    return replace(
        recipe,
        model=replace(recipe.model, spectrogram=spectrogram, drop_rate=0.1, drop_path_rate=0.0, head_dropout=0.1),
        stages=tuple(_small_stage(stage) for stage in recipe.stages),
    )


def _small_stage(stage: StageConfig) -> StageConfig:
    mixing, augment = stage.mixing, stage.augment
    if stage.embeds:  # the encoder may take windows of one length alone
        return replace(stage, evaluation_batch_size=16)
    if stage.predicts:
        return replace(stage, clip_s=SMALL_CLIP_S, evaluation_batch_size=16)
    if stage.embeddings:  # a head on embeddings is small already
        return stage
    epochs = SMALL_EPOCHS.get(stage.name, max(1, round(SMALL_SHARE * stage.epochs)))
    return replace(
        stage,
        epochs=epochs,
        warmup_epochs=min(stage.warmup_epochs, epochs / 2),
        average_epochs=min(stage.average_epochs, epochs),
        thaw_every=min(stage.thaw_every, epochs - 1),
        clips_per_epoch=256,
        batch_size=16,
        evaluation_batch_size=16,
        clip_s=SMALL_CLIP_S,
        learning_rate=5e-4,
        mixing=replace(mixing, wave_prob=mixing.wave_prob / 4, spectrogram_prob=mixing.spectrogram_prob / 4),
        noise=(NoiseGroup(prob=0.25, snr_db_min=5.0, snr_db_max=30.0),),
        augment=replace(
            augment,
            coloured_noise_prob=0.1,
            gain_prob=0.1,
            gain_transition_prob=0.1,
            pitch_shift_prob=0.2,
            pitch_shift_semitones=1.0,
            time_mask_frames=12,
            frequency_mask_bins=4,
            tilt_prob=0.2,
        ),
    )
