"""Where an attack may go: within epsilon of the clean image, and within [0, 1]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from .noise import Noise
from .result import Norm


class Ball(Protocol):
    """The allowed images around each clean one, and what a step of length 1 is among them."""

    @property
    def clean(self) -> Tensor:
        """[B, ...], in [0, 1]."""

    @property
    def epsilon(self) -> Tensor:
        """[B], float64."""

    def select(self, lines: Tensor) -> Self:
        """Those at some indices."""

    def project(self, images: Tensor) -> Tensor:
        """The nearest allowed images, never farther than epsilon, not even by rounding."""

    def ascent(self, gradient: Tensor) -> Tensor:
        """The step of length 1 that climbs most; 0 where the gradient is 0."""

    def random(self, noise: Noise, positions: Tensor, draw: Tensor) -> Tensor:
        """Allowed images, uniform in the ball before it is cut to [0, 1]."""


@dataclass(frozen=True)
class LinfBall:
    """Every pixel within epsilon."""

    clean: Tensor
    epsilon: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def around(cls, clean: Tensor, epsilon: Tensor) -> LinfBall:
        """The ball of each image of a batch."""
        return cls(clean, epsilon, *budget(clean, column(epsilon, clean)))

    def select(self, lines: Tensor) -> LinfBall:
        return LinfBall(*(each.index_select(0, lines) for each in vars(self).values()))

    def project(self, images: Tensor) -> Tensor:
        return torch.clamp(images, self.low, self.high)

    def ascent(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def random(self, noise: Noise, positions: Tensor, draw: Tensor) -> Tensor:
        unit = noise.uniform(positions, draw, self.clean.shape[1:]).mul_(2).sub_(1)
        epsilon = column(self.epsilon, self.clean).to(self.clean.dtype)
        return self.project(self.clean + epsilon * unit.to(self.clean.dtype))


@dataclass(frozen=True)
class L2Ball:
    """The Euclidean distance over all pixels within epsilon."""

    clean: Tensor
    epsilon: Tensor

    @classmethod
    def around(cls, clean: Tensor, epsilon: Tensor) -> L2Ball:
        """The ball of each image of a batch."""
        return cls(clean, epsilon)

    def select(self, lines: Tensor) -> L2Ball:
        return L2Ball(*(each.index_select(0, lines) for each in vars(self).values()))

    def project(self, images: Tensor) -> Tensor:
        change = images - self.clean
        size = norms(change)
        # What clean + change can be rounded by, all pixels together.
        slack = math.sqrt(change[0].numel()) * 2**-24 if len(change) else 0.0
        reach = (self.epsilon * (1 - 2**-21) - slack).clamp(min=0)
        factor = torch.where(size > reach, reach / size.clamp(min=1e-300), 1.0)
        return (self.clean + change * column(factor, change).to(change.dtype)).clamp(0, 1)

    def ascent(self, gradient: Tensor) -> Tensor:
        size = norms(gradient)
        factor = torch.where(size > 0, 1 / size.clamp(min=1e-300), 0.0)
        return (gradient * column(factor, gradient)).to(gradient.dtype)

    def random(self, noise: Noise, positions: Tensor, draw: Tensor) -> Tensor:
        shape = self.clean.shape[1:]
        direction = self.ascent(noise.normal(positions, 2 * draw, shape).to(self.clean.dtype))
        share = noise.uniform(positions, 2 * draw + 1, (1,)).squeeze(1).double()
        radius = self.epsilon * share ** (1 / max(1, shape.numel()))
        size = column(radius, self.clean).to(self.clean.dtype)
        return self.project(self.clean + size * direction)


BALLS: dict[Norm, type[LinfBall] | type[L2Ball]] = {"Linf": LinfBall, "L2": L2Ball}


def budget(images: Tensor, epsilon: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value allowed to every pixel.

    No number of their dtype between them is farther than ``epsilon`` from its pixel, not even by
    the rounding of ``pixel + epsilon``: where that went outside, the bound is the next one inside.
    """
    exact = images.double()
    low = (exact - epsilon).clamp_(min=0).to(images.dtype)
    high = (exact + epsilon).clamp_(max=1).to(images.dtype)
    low = torch.where(exact - low.double() > epsilon, torch.nextafter(low, images), low)
    high = torch.where(high.double() - exact > epsilon, torch.nextafter(high, images), high)
    return low, high


def distances(norm: Norm, images: Tensor, clean: Tensor) -> Tensor:
    """How far images [B, ...] are from the clean ones: [B], float64."""
    change = images.double() - clean.double()
    return norms(change) if norm == "L2" else change.abs().flatten(1).amax(dim=1)


def norms(change: Tensor) -> Tensor:
    """The Euclidean norm of each line of [B, ...]: [B], float64."""
    return change.double().flatten(1).square().sum(dim=1).sqrt()


def column(values: Tensor, images: Tensor) -> Tensor:
    """[B] as [B, 1, ...], to go with [B, ...]."""
    return values.reshape(-1, *[1] * (images.ndim - 1))
