"""From where on a number counts against a model, and why from there.

Croce and Hein, "Reliable Evaluation of Adversarial Robustness ...", ICML 2020.
"""

from __future__ import annotations

from ..summary import wilson_interval
from .evidence import Evidence

# By how much a better gradient attack has to lower the accuracy before the plain one counts as
# misled. Every stronger attack finds a little more, on honest models too: Croce and Hein's lowered
# all published accuracies but one, often by more than this, and broke several defences by it.
MASKED = 0.1
# The same for more of the same attack: steps, restarts or digits, which cost an honest model less.
CONVERGED = 0.05
# What chance alone moves: an attack from another random start fools other images. So may one image.
SLACK = 0.02
# Softmax saturates on images that a usual model is sure of, and a step along the sign of a tiny
# gradient is as long as any other: rescaling shows whether it leads astray. Where most are tiny,
# rounding leads.
MOST = 0.5


def at_most(value: float, bound: float) -> bool:
    """Shares are sums of floats."""
    return value <= bound + 1e-9


def by_chance(share: float, e: Evidence) -> bool:
    """Whether so small a share of the images may be chance."""
    return at_most(share, max(SLACK, 1 / e.images))


def surely(share: float, e: Evidence) -> float:
    """The lower end of the 95 % interval of a share of the images."""
    return wilson_interval(share, e.images)[0]
