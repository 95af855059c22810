"""Gradient attacks within an L_inf budget, on images in [0, 1].

They ascend the cross-entropy as ``pc_lc_loss`` computes it: its gradient keeps 1 - f_y where f_y
rounds to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pclc_fast import pc_lc_loss


def fgsm(
    model: nn.Module,
    images: Tensor,  # [N, ...], in [0, 1]
    labels: Tensor,  # [N], int64
    *,
    epsilon: float,
) -> Tensor:
    """One step of the whole budget along the sign of the gradient.

    Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """
    low, high = budget(images, epsilon)
    return (images + epsilon * _gradient(model, images, labels).sign()).clamp(low, high)


def pgd(
    model: nn.Module,
    images: Tensor,  # [N, ...], in [0, 1]
    labels: Tensor,  # [N], int64
    *,
    epsilon: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Steps of 2.5 epsilon / steps from a random start; the last iterate counts.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """
    low, high = budget(images, epsilon)
    step = 2.5 * epsilon / steps
    noise = torch.rand(images.shape, dtype=images.dtype, generator=generator).mul_(2).sub_(1)
    attacked = (images + epsilon * noise).clamp(low, high)
    for _ in range(steps):
        gradient = _gradient(model, attacked, labels)
        attacked = (attacked + step * gradient.sign()).clamp(low, high)
    return attacked


def budget(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value allowed to every pixel.

    No float32 between them is farther than ``epsilon`` from its pixel, not even by the rounding of
    ``pixel + epsilon``: where that went outside, the bound is the next float inside.
    """
    exact = images.double()
    low = (exact - epsilon).clamp(min=0).to(images.dtype)
    high = (exact + epsilon).clamp(max=1).to(images.dtype)
    low = torch.where(exact - low.double() > epsilon, torch.nextafter(low, images), low)
    high = torch.where(high.double() - exact > epsilon, torch.nextafter(high, images), high)
    return low, high


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the summed cross-entropy with respect to the images."""
    images = images.detach().requires_grad_()
    loss = pc_lc_loss(
        model(images), labels, pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, reduction="sum"
    )
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient
