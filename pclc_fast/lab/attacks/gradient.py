"""Attacks that step along the gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .balls import Ball, column
from .engine import Found, Iterate, Lanes, Rule, Task, ascend, at_clean, at_random, gradient_of
from .network import Looked
from .objectives import objective

StepSize = Callable[[int, Lanes], Tensor]  # the step and the lanes [L] -> [L], float64


def constant(step_size: float, *, per_epsilon: bool) -> StepSize:
    """The same at every step, in pixels or in units of epsilon."""

    def size(step: int, lanes: Lanes) -> Tensor:  # noqa: ARG001
        epsilon = lanes.ball.epsilon
        return step_size * epsilon if per_epsilon else torch.full_like(epsilon, step_size)

    return size


def falling(first_step: float, steps: int) -> StepSize:
    """From ``first_step`` epsilon by half a cosine to 0."""

    def size(step: int, lanes: Lanes) -> Tensor:
        return first_step * (math.cos(math.pi * step / steps) + 1) / 2 * lanes.ball.epsilon

    return size


class Steps(Rule):
    """Steps along the gradient; along its accumulated direction where there is a decay.

    Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018: gradients are divided by
    their L1 norm before they add up. One that is 0 stays 0.
    """

    def __init__(self, size: StepSize, lanes: Lanes, decay: float | None = None) -> None:
        super().__init__()
        self._size, self._decay = size, decay
        if decay is not None:
            self.memory["velocity"] = torch.zeros_like(lanes.ball.clean)

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:
        direction = finite(looked)
        if self._decay is not None:
            size = direction.abs().flatten(1).sum(dim=1)
            unit = direction / column(size.where(size > 0, 1.0), direction)
            direction = self._decay * self.memory["velocity"] + unit
            self.memory["velocity"] = direction
        return stepped(images, direction, self._size(step, lanes), lanes.ball)


def fgsm(
    task: Task, *, loss: str = "ce", rescaled: bool = False, iterate: Iterate = "any"
) -> Found:
    """One step of the whole budget along the sign of the gradient.

    Goodfellow, Shlens and Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015.
    """
    size = constant(1.0, per_epsilon=True)
    return _steps(task, loss, rescaled, at_clean, size, steps=1, iterate=iterate)


def bim(
    task: Task,
    *,
    steps: int,
    step_size: float,
    per_epsilon: bool = False,
    loss: str = "ce",
    rescaled: bool = False,
    iterate: Iterate = "any",
) -> Found:
    """Steps along the sign of the gradient from the clean image.

    Kurakin, Goodfellow and Bengio, "Adversarial Examples in the Physical World", 2017.
    """
    size = constant(step_size, per_epsilon=per_epsilon)
    return _steps(task, loss, rescaled, at_clean, size, steps=steps, iterate=iterate)


def pgd(
    task: Task,
    *,
    steps: int,
    step_size: float,
    per_epsilon: bool = False,
    loss: str = "ce",
    rescaled: bool = False,
    random_start: bool = True,
    restarts: int = 1,
    iterate: Iterate = "any",
) -> Found:
    """Steps along the sign of the gradient from random starts.

    Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018.
    """
    start = at_random if random_start else at_clean
    size = constant(step_size, per_epsilon=per_epsilon)
    options: dict[str, Any] = {"steps": steps, "restarts": restarts, "iterate": iterate}
    return _steps(task, loss, rescaled, start, size, **options)


def mim(
    task: Task,
    *,
    steps: int,
    step_size: float,
    per_epsilon: bool = False,
    decay: float = 1.0,
    loss: str = "ce",
    rescaled: bool = False,
    iterate: Iterate = "any",
) -> Found:
    """Steps along accumulated gradients from the clean image.

    Dong et al., "Boosting Adversarial Attacks with Momentum", CVPR 2018.
    """
    size = constant(step_size, per_epsilon=per_epsilon)
    options: dict[str, Any] = {"decay": decay, "steps": steps, "iterate": iterate}
    return _steps(task, loss, rescaled, at_clean, size, **options)


def _steps(
    task: Task,
    loss: str,
    rescaled: bool,
    start: Callable[[Lanes], Tensor],
    size: StepSize,
    *,
    decay: float | None = None,
    **options: Any,
) -> Found:
    look = gradient_of(objective(loss, rescaled=rescaled))
    return ascend(task, look, lambda lanes: Steps(size, lanes, decay), start, **options)


def stepped(images: Tensor, direction: Tensor, size: Tensor, ball: Ball) -> Tensor:
    """Images a step of ``size`` [L] further along a direction."""
    return ball.ascent(direction).mul_(column(size, images).to(images.dtype)).add_(images)


def finite(looked: Looked) -> Tensor:
    """The gradient without what is not a number: no direction is better than a wrong one."""
    assert looked.gradient is not None
    return looked.gradient.nan_to_num(0.0, 0.0, 0.0)
