"""What was measured, and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

BASELINE, OURS = MODELS = ("CE", "PC-LC")
CLEAN = "none"  # the name of no attack
WORST = "worst"  # the name of everything that was tried, together
_NORMAL_95 = 1.96


class Condition(NamedTuple):
    """What the test images went through."""

    attack: str
    epsilon: float


@dataclass(frozen=True)
class Measurement:
    """One model of one seed on the test images under one condition."""

    seed: int
    model: str
    condition: Condition
    correct: Tensor  # [N], bool
    prob_gap: float = math.nan  # mean over the images
    logit_gap: float = math.nan  # mean over the images

    @property
    def accuracy(self) -> float:
        return self.correct.double().mean().item()


class Difference(NamedTuple):
    """How much higher an accuracy is than another, as a fraction of the images."""

    mean: float
    error: float  # standard error

    @property
    def sign(self) -> int:
        """1 or -1 where the difference exceeds two standard errors, 0 where it does not."""
        if abs(self.mean) <= 2 * self.error:
            return 0
        return 1 if self.mean > 0 else -1


@dataclass(frozen=True)
class Results:
    """Every measurement of an experiment; for each model and condition, one a seed."""

    measurements: list[Measurement]

    @property
    def seeds(self) -> int:
        return len({m.seed for m in self.measurements})

    @property
    def images(self) -> int:
        return len(self.measurements[0].correct)

    @property
    def conditions(self) -> list[Condition]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(m.condition for m in self.measurements))

    def of(self, model: str, condition: Condition) -> list[Measurement]:
        """The measurements of a model under a condition, in the order of the seeds."""
        return [m for m in self.measurements if (m.model, m.condition) == (model, condition)]

    def accuracy(self, model: str, condition: Condition) -> tuple[float, float]:
        """Mean and standard deviation over the seeds; the latter is NaN for one seed."""
        return mean_and_spread([m.accuracy for m in self.of(model, condition)])

    def prob_gap(self, model: str, condition: Condition) -> tuple[float, float]:
        """Mean and standard deviation over the seeds."""
        return mean_and_spread([m.prob_gap for m in self.of(model, condition)])

    def logit_gap(self, model: str, condition: Condition) -> tuple[float, float]:
        """Mean and standard deviation over the seeds."""
        return mean_and_spread([m.logit_gap for m in self.of(model, condition)])

    def difference(self, condition: Condition) -> Difference:
        """How much higher the accuracy of PC-LC is than that of CE."""
        return paired_difference(self.of(BASELINE, condition), self.of(OURS, condition))


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Return the mean and the sample standard deviation, NaN for a single value."""
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), spread


def paired_difference(first: list[Measurement], second: list[Measurement]) -> Difference:
    """How much higher the accuracy of ``second`` is, seed by seed and image by image.

    Two variances add up in its standard error: which images were drawn for the test (of the mean
    difference over the images), and which seeds for the training (of the mean over the seeds).
    They overlap, so the error is rather too large than too small. One seed has only the first.
    """
    pairs = zip(first, second, strict=True)
    differences = torch.stack([b.correct.double() - a.correct.double() for a, b in pairs])
    seeds, images = differences.shape
    by_image, by_seed = differences.mean(dim=0), differences.mean(dim=1)
    variance = by_image.var() / images
    if seeds > 1:
        variance = variance + by_seed.var() / seeds
    return Difference(differences.mean().item(), variance.sqrt().item())


def wilson_interval(accuracy: float, images: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share ``accuracy`` of ``images``.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 1927.
    """
    z2 = _NORMAL_95**2 / images
    center = accuracy + z2 / 2
    half = _NORMAL_95 * math.sqrt(accuracy * (1 - accuracy) / images + z2 / (4 * images))
    return max(0.0, (center - half) / (1 + z2)), min(1.0, (center + half) / (1 + z2))
