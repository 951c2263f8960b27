"""Compares a bundle with what it was made of, on real sound: `parity.json`.

Shapes: R windows, T samples, C species.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birdclef_core.evaluation.metrics import summarise
from birdclef_core.inference.bundle.examples import FEWEST, Examples
from birdclef_core.inference.bundle.record import BundlePrecision
from birdclef_core.inference.deployed import DeployedDetector, shares
from birdclef_core.inference.results.calibration import sigmoid
from birdclef_core.inference.runtime import BATCH_SIZE

PARITY_FILE = "parity.json"
VERSION: Literal[1] = 1

FLOAT32_DIFFERENCE = 1e-4
"""Largest difference of a probability in float32."""
SAME_CMAP = 5e-4
"""A cmAP is the same if it differs by less than this: it is so to three digits."""
CMAP_LOSS = 0.005
"""Largest difference of the cmAP in bfloat16, to both sides, and in int8, below."""


@dataclass(frozen=True, kw_only=True)
class NetworkParity:
    """How far one network of a bundle is from what it was made of."""

    network: str
    """Its file in the bundle."""
    largest_logit_difference: float
    largest_probability_difference: float


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a bundle is from what it was made of."""

    version: Literal[1] = VERSION
    num_windows: int
    """0 where there was nothing to compare on: then nothing was compared."""
    num_species: int
    """Species that some window has: the cmAP is their mean."""
    source: str
    """Where the windows are from, or why there are none."""
    networks: tuple[NetworkParity, ...]
    largest_probability_difference: float | None
    """Of the whole detector; None where nothing was compared."""
    cmap: float | None
    """cmAP of the bundle, unpadded; None where no window has a species."""
    original_cmap: float | None
    """cmAP of what it was made of, in torch and float32."""
    cpu: str
    """The processor on which it was compared."""
    broken_rules: tuple[str, ...]
    """What it breaks of the rules of its precision; such a bundle is written with --force only."""

    @property
    def cmap_difference(self) -> float:
        """By how much the cmAP of the bundle is above that of what it was made of; 0 where there is none."""
        return 0.0 if self.cmap is None or self.original_cmap is None else self.cmap - self.original_cmap


def compare(
    original: DeployedDetector,
    bundled: DeployedDetector,
    networks: Sequence[str],
    examples: Examples,
    precision: BundlePrecision,
    cpu: str,
) -> Parity:
    """Return how far the detector of a bundle is from the one that it was made of; without any windows, that nothing was compared and why."""
    if not len(examples.wave_RT):
        return _not_compared(examples.source, cpu)
    first, second = (list(_member_logits(detector, examples.wave_RT)) for detector in (original, bundled))
    parts = tuple(
        NetworkParity(
            network=name,
            largest_logit_difference=float(np.abs(a_RC - b_RC).max()),
            largest_probability_difference=float(np.abs(sigmoid(a_RC) - sigmoid(b_RC)).max()),
        )
        for name, a_RC, b_RC in zip(networks, first, second, strict=True)
    )
    share_M = shares([member.weight for member in original.members])
    score_RC, bundled_RC = (
        sigmoid(np.sum([share * logits_RC for share, logits_RC in zip(share_M, item, strict=True)], axis=0))
        for item in (first, second)
    )
    support = int(examples.truth_RC.any(axis=0).sum())
    parity = Parity(
        num_windows=len(examples.wave_RT),
        num_species=support,
        source=examples.source,
        networks=parts,
        largest_probability_difference=float(np.abs(score_RC - bundled_RC).max()),
        cmap=summarise(examples.truth_RC, bundled_RC)["cmap"] if support else None,
        original_cmap=summarise(examples.truth_RC, score_RC)["cmap"] if support else None,
        cpu=cpu,
        broken_rules=(),
    )
    return replace(parity, broken_rules=tuple(_broken_rules(parity, precision)))


def _not_compared(reason: str, cpu: str) -> Parity:
    return Parity(
        num_windows=0,
        num_species=0,
        source=reason,
        networks=(),
        largest_probability_difference=None,
        cmap=None,
        original_cmap=None,
        cpu=cpu,
        broken_rules=(f"there must be {FEWEST} windows of labelled sound, but there are none ({reason.rstrip('.')})",),
    )


def _broken_rules(parity: Parity, precision: BundlePrecision) -> Iterator[str]:
    """Yield each rule that is broken, with its value."""
    if parity.num_windows < FEWEST:
        yield f"there must be {FEWEST} windows of labelled sound, but there are {parity.num_windows}"
    if not parity.num_species:
        yield "some window must have a species of the model in its labels, but none has"
    difference = parity.cmap_difference
    if precision == "float32":
        worst = max(part.largest_probability_difference for part in parity.networks)
        worst = max(worst, parity.largest_probability_difference or 0.0)
        if not worst <= FLOAT32_DIFFERENCE:
            yield f"in float32 no probability may differ by more than {FLOAT32_DIFFERENCE:g}, but one does by {worst:.2g}"
        if not abs(difference) < SAME_CMAP:
            yield f"in float32 the cmAP must be the same, but it differs by {difference:+.4f}"
    elif precision == "bfloat16" and not abs(difference) <= CMAP_LOSS:
        yield f"in bfloat16 the cmAP may differ by {CMAP_LOSS}, but it differs by {difference:+.4f}"
    elif precision == "int8" and not difference >= -CMAP_LOSS:
        yield f"in int8 the cmAP may be lower by {CMAP_LOSS}, but it differs by {difference:+.4f}"


def _member_logits(detector: DeployedDetector, wave_RT: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Yield the logits of each member alone."""
    for member in detector.members:
        alone = replace(detector, members=(member,), weights_of_first=(), calibration=None)
        batches = (wave_RT[first : first + BATCH_SIZE] for first in range(0, len(wave_RT), BATCH_SIZE))
        yield np.concatenate([heard.logits_BC for heard in alone.hear_each(batches)]).astype(np.float64)
