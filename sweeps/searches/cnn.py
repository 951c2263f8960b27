"""Search the four CNN recipes; the smallest, which had one stage in the 2023 solution, with all five. A clip of a CNN is a multiple of five seconds."""

from birdclef_core.recipes import cnn_b0ns, cnn_b3ns, cnn_resnet34d, cnn_v2s, with_all_stages
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="cnn",
    recipes=(cnn_resnet34d(), cnn_v2s(), cnn_b3ns(), with_all_stages(cnn_b0ns())),
    space={
        "pretrain.clip_s": Choice((10.0, 15.0)),
        "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "pretrain_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "train.clip_s": Choice((10.0, 15.0, 20.0)),
        "train_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "train_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "train.mixing.wave_prob": Range(0.0, 1.0),
        "train.mixing.spectrogram_prob": Range(0.0, 1.0),
        "finetune.learning_rate": Range(1e-4, 2e-3, log=True),
    },
    small_space={
        "pretrain.clip_s": Choice((5.0,)),
        "pretrain_ce.learning_rate": Range(3e-4, 1e-3, log=True),
        "pretrain_bce.learning_rate": Range(3e-4, 1e-3, log=True),
        "train.clip_s": Choice((5.0, 10.0)),
        "train_ce.learning_rate": Range(2e-4, 2e-3, log=True),
        "train_bce.learning_rate": Range(2e-4, 2e-3, log=True),
        "train.mixing.wave_prob": Range(0.0, 0.4),
        "train.mixing.spectrogram_prob": Range(0.0, 0.4),
        "finetune.learning_rate": Range(1e-4, 1e-3, log=True),
    },
)
