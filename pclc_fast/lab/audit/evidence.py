"""What the audit judges: which images withstood what, and how the model behaved meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Status = Literal["PASS", "FAIL", "NOT RUN"]
# What follows the gradient; "white-box": all of that in the evaluation.
GRADIENT = (
    "fgsm",
    "pgd",
    "pgd-twice",
    "pgd-restarts",
    "pgd-rescaled",
    "pgd-targets",
    "pgd-float64",
    "white-box",
)


class Finding(NamedTuple):
    """The result of one check: its numbers, and a text with a field for each that it shows."""

    key: str
    title: str
    status: Status
    text: str  # with fields like {one:percent}
    meaning: str
    numbers: dict[str, Any]


class Gradients(NamedTuple):
    """What the gradients of one attack were at one step, over all epsilons."""

    attack: str
    step: int  # from 1
    taken: int
    zero: int  # 0 in every pixel
    vanishing: int  # not 0, but below 1e-8 in every pixel
    non_finite: int


class Repeats(NamedTuple):
    """How two forwards of the same images differ."""

    changed: int  # predictions
    largest: float  # difference of a logit, over the largest logit


@dataclass(frozen=True)
class Evidence:
    """Everything that the checks look at; what was not measured is empty or None.

    ``standing`` has, for an attack and an epsilon, which of the probed images are still right. An
    attack that sees no gradient is only tried on some of what the others left, ``searched`` many;
    it counts the rest as standing.
    """

    classes: int
    clean: Tensor  # [N], bool: right without an attack
    epsilons: list[float] = field(default_factory=list)  # of the evaluation, those probed
    standing: dict[tuple[str, float], Tensor] = field(default_factory=dict)  # [N], bool
    searched: dict[tuple[str, float], int] = field(default_factory=dict)  # images it was tried on
    worst: dict[float, Tensor] = field(default_factory=dict)  # [N], bool: what the evaluation left
    large: float = 0.5  # turns every image into the same grey
    everything: float = 1.0  # turns every image into any other
    gradients: list[Gradients] = field(default_factory=list)
    repeats: Repeats | None = None
    sums_to_one: bool | None = None  # the outputs of every image, none of them negative

    @property
    def images(self) -> int:
        """How many were probed."""
        return len(self.clean)

    @property
    def guessing(self) -> float:
        """The accuracy of a guess."""
        return 1 / self.classes

    def accuracy(self, attack: str, epsilon: float) -> float:
        """The share of the probed images that withstand an attack."""
        return share(self.standing[attack, epsilon])

    def at(self, *attacks: str) -> list[float]:
        """The epsilons at which all of these attacks ran."""
        return [e for e in self.epsilons if all((a, e) in self.standing for a in attacks)]

    def together(self, attacks: tuple[str, ...], epsilon: float) -> Tensor:
        """Which images withstand those of these attacks that ran."""
        left = self.clean.clone()
        for attack in attacks:
            if (attack, epsilon) in self.standing:
                left &= self.standing[attack, epsilon]
        return left

    def of_use(self) -> Evidence:
        """Attacks say nothing where no image is right without one."""
        if self.clean.any():
            return self
        return replace(self, standing={}, worst={}, gradients=[])

    def left(self, epsilon: float) -> Tensor:
        """Which images nothing fooled within an epsilon, neither here nor in the evaluation."""
        within = [found for (_, at), found in self.standing.items() if at <= epsilon]
        within += [found for at, found in self.worst.items() if at <= epsilon]
        return torch.stack([self.clean, *within]).all(dim=0)


def share(flags: Tensor) -> float:
    """The share of those that are set; 0 where there are none."""
    return flags.double().mean().item() if len(flags) else 0.0
