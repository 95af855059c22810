"""Adversarial training: each batch is joined by as many attacked copies of its images."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from pclc_fast import pc_lc_loss

AdversaryName = Literal["none", "fgsm", "pgd"]


class Adversary(NamedTuple):
    """How training images are attacked; epsilon is drawn for every image from [low, high]."""

    low: float
    high: float
    steps: int
    random_start: bool

    @property
    def step_size(self) -> float:
        """In units of epsilon: 2.5 / steps from a random start, the whole budget at once else."""
        return 2.5 / self.steps if self.random_start else 1.0 / self.steps


# Li et al., AAAI 2021, "Combining with adversarial training": FGSM for grey images, PGD for
# colour.
ADVERSARIES: dict[AdversaryName, Adversary | None] = {
    "none": None,
    "fgsm": Adversary(0.1, 0.3, steps=1, random_start=False),
    "pgd": Adversary(0.0, 0.1, steps=5, random_start=True),
}


def make_adversary(
    name: AdversaryName, epsilon: tuple[float, float] | None, steps: int | None
) -> Adversary | None:
    """The adversary of that name, with ``epsilon`` and ``steps`` in place of its own where given.

    Raises:
        ValueError: they make no sense, or none with this adversary.
    """
    adversary = ADVERSARIES[name]
    if epsilon is not None:
        if adversary is None:
            raise ValueError(f"--adversarial-eps has no meaning with --adversarial {name}")
        if not 0 <= epsilon[0] <= epsilon[1] <= 1:
            raise ValueError(
                "--adversarial-eps must be two numbers from 0 to 1, the lower one first; "
                f"got {epsilon[0]:g} {epsilon[1]:g}"
            )
        adversary = adversary._replace(low=epsilon[0], high=epsilon[1])
    if steps is not None:
        if adversary is None or not adversary.random_start:
            raise ValueError(f"--adversarial-steps has no meaning with --adversarial {name}")
        if steps < 1:
            raise ValueError(f"--adversarial-steps must be at least 1; got {steps}")
        adversary = adversary._replace(steps=steps)
    return adversary


def attack(
    network: nn.Module,
    images: Tensor,  # [N, C, H, W], in [0, 1]
    labels: Tensor,  # [N], int64
    adversary: Adversary,
    generator: torch.Generator,  # on the device of the images
) -> Tensor:
    """Return the images after steps along the sign of the cross-entropy's gradient.

    Pixels stay in [0, 1] and, up to rounding, within epsilon. ``network`` should be in evaluation
    mode, so that it does not take the attempts into its running statistics.
    """
    epsilon = images.new_empty(len(images), 1, 1, 1).uniform_(generator=generator)
    epsilon = epsilon.mul_(adversary.high - adversary.low).add_(adversary.low)
    low, high = (images - epsilon).clamp_(min=0), (images + epsilon).clamp_(max=1)
    attacked = images
    if adversary.random_start:
        noise = torch.empty_like(images).uniform_(-1, 1, generator=generator)
        attacked = torch.clamp(images + epsilon * noise, low, high)
    for _ in range(adversary.steps):
        gradient = _gradient(network, attacked, labels)
        attacked = attacked + adversary.step_size * epsilon * gradient.sign()
        attacked = torch.clamp(attacked, low, high)
    return attacked


def _gradient(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy with respect to the images."""
    images = images.detach().requires_grad_()
    loss = pc_lc_loss(
        network(images), labels, pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient
