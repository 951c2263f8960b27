"""Search the three SED recipes, each with all five stages."""

from birdclef_core.recipes import sed_b3ns, sed_seresnext26t, sed_v2s, with_all_stages
from sweeps.search import Choice, Range, Search

SEARCH = Search(
    name="sed",
    recipes=(with_all_stages(sed_seresnext26t()), sed_v2s(), sed_b3ns()),
    space={
        "pretrain.clip_s": Choice((5.0, 10.0)),
        "pretrain_ce.learning_rate": Range(1e-4, 1e-3, log=True),
        "pretrain_bce.learning_rate": Range(3e-4, 3e-3, log=True),
        "train.clip_s": Choice((5.0, 10.0, 15.0)),
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
        "train.clip_s": Choice((3.0, 4.0, 5.0)),
        "train_ce.learning_rate": Range(2e-4, 2e-3, log=True),
        "train_bce.learning_rate": Range(2e-4, 2e-3, log=True),
        "train.mixing.wave_prob": Range(0.0, 0.4),
        "train.mixing.spectrogram_prob": Range(0.0, 0.4),
        "finetune.learning_rate": Range(1e-4, 1e-3, log=True),
    },
)
