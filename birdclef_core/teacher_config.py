"""What a stage learns from the predictions of a teacher: another stage, or an ensemble of several."""

from dataclasses import dataclass
from typing import Literal, get_args

from birdclef_core.config_rules import require, require_choice, require_types

TeacherMode = Literal["pseudo_labels", "distillation"]
Resampling = Literal["even", "confidence"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """How predictions become targets of a stage, its student.

    Source: Xie et al., Self-training with Noisy Student, CVPR 2020 (pseudo-labels); Hinton et al., Distilling the Knowledge in a Neural
    Network, 2015 (distillation).
    """

    predictions: str = ""
    """Name of the earlier stage of the chain that made the predictions; empty: the stage learns from labels alone."""
    mode: TeacherMode = "pseudo_labels"
    """`pseudo_labels`: targets are the predictions; windows without one of at least `threshold` are not drawn. `distillation`: every
    window is drawn, and of recordings the target is partly the label, see `label_share`."""
    share: float = 0.5
    """Share of the clips of a batch that are drawn from windows with predictions."""
    threshold: float = 0.1
    """For pseudo-labels: a smaller probability is a target of 0."""
    power: float = 1.0
    """A target is the predicted probability to this power: above 1, small probabilities become smaller."""
    label_share: float = 0.5
    """For distillation on recordings: share of the label in the target; the rest is the prediction."""
    resampling: Resampling = "even"
    """How often a window is drawn: `even`: all equally often, or on recordings as often as their species are rare; `confidence`: that
    times its largest predicted probability."""
    weight: float = 1.0
    """Factor of the loss of windows with predictions."""

    def __post_init__(self) -> None:
        require_types(self)
        require_choice("teacher.mode", self.mode, get_args(TeacherMode))
        require_choice("teacher.resampling", self.resampling, get_args(Resampling))
        require(0 < self.share <= 1, "0 < teacher.share <= 1", share=self.share)
        require(0 <= self.threshold < 1, "0 <= teacher.threshold < 1", threshold=self.threshold)
        require(0 < self.power <= 10, "0 < teacher.power <= 10", power=self.power)
        require(0 <= self.label_share <= 1, "0 <= teacher.label_share <= 1", label_share=self.label_share)
        require(0 < self.weight <= 100, "0 < teacher.weight <= 100", weight=self.weight)
