"""Auto-PGD: a step size that needs no tuning."""

from __future__ import annotations

import torch
from torch import Tensor

from .balls import column
from .engine import Found, Lanes, Rule, Task, ascend, at_random, gradient_of
from .gradient import finite, stepped
from .network import Looked
from .objectives import objective

_MOMENTUM, _RISING = 0.75, 0.75


def apgd(
    task: Task,
    *,
    steps: int,
    loss: str = "ce",
    rescaled: bool = False,
    restarts: int = 1,
    targets: int = 0,
) -> Found:
    """PGD with momentum that halves its step where progress stalls and returns to the best iterate.

    Croce and Hein, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks", ICML 2020. ``targets`` 0: untargeted, else towards each of the
    likeliest false classes.
    """
    look = gradient_of(objective(loss, rescaled=rescaled))
    return ascend(
        task,
        look,
        lambda lanes: AutoSteps(steps, lanes),
        at_random,
        steps=steps,
        restarts=restarts,
        targets=min(targets, task.logits.shape[1] - 1),
    )


def checkpoints(steps: int) -> list[int]:
    """The steps at which progress is looked at: at first 22 % apart, then less and less."""
    period, least, fewer = (max(1, int(share * steps)) for share in (0.22, 0.06, 0.03))
    found = [period]
    while found[-1] + period <= steps:
        found.append(found[-1] + (period := max(period - fewer, least)))
    return found


class AutoSteps(Rule):
    """The schedule of Auto-PGD; every lane has its own."""

    def __init__(self, steps: int, lanes: Lanes) -> None:
        super().__init__()
        clean, epsilon = lanes.ball.clean, lanes.ball.epsilon
        self._checkpoints = checkpoints(steps)
        zeros = torch.zeros_like(epsilon, dtype=clean.dtype)
        self.memory = {
            "size": 2 * epsilon,
            "before": clean,
            "best": clean,
            "best_gradient": torch.zeros_like(clean),
            "best_value": torch.full_like(zeros, -torch.inf),
            "value": zeros,  # at the step before
            "rises": torch.zeros_like(lanes.run),  # since the last checkpoint
            "checked_value": torch.full_like(zeros, -torch.inf),
            "halved": torch.ones_like(lanes.run, dtype=torch.bool),  # at the last checkpoint
        }

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:
        memory = self.memory
        gradient = self._remember(step, images, looked)
        if step in self._checkpoints:
            images, gradient = self._check(step, images, gradient)
        ahead = lanes.ball.project(stepped(images, gradient, memory["size"], lanes.ball))
        if step:
            ahead = (
                images
                + _MOMENTUM * (ahead - images)
                + (1 - _MOMENTUM) * (images - memory["before"])
            )
        memory["before"] = images
        return ahead

    def _remember(self, step: int, images: Tensor, looked: Looked) -> Tensor:
        """Take in the value of this iterate; return its gradient."""
        memory, gradient = self.memory, finite(looked)
        value = looked.value.nan_to_num(-torch.inf).to(memory["value"].dtype)
        if step:
            memory["rises"] = memory["rises"] + (value > memory["value"])
        is_best = value > memory["best_value"]
        memory["value"] = value
        memory["best_value"] = torch.where(is_best, value, memory["best_value"])
        memory["best"] = torch.where(column(is_best, images), images, memory["best"])
        memory["best_gradient"] = torch.where(
            column(is_best, images), gradient, memory["best_gradient"]
        )
        return gradient

    def _check(self, step: int, images: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the step of the lanes that stall and have them go on from their best iterate."""
        memory = self.memory
        position = self._checkpoints.index(step)
        period = step - (self._checkpoints[position - 1] if position else 0)
        wavers = memory["rises"] <= _RISING * period
        stands = ~memory["halved"] & (memory["best_value"] <= memory["checked_value"])
        halve = wavers | stands
        memory["size"] = torch.where(halve, memory["size"] / 2, memory["size"])
        memory["halved"], memory["checked_value"] = halve, memory["best_value"]
        memory["rises"] = torch.zeros_like(memory["rises"])
        back = column(halve, images)
        return (
            torch.where(back, memory["best"], images),
            torch.where(back, memory["best_gradient"], gradient),
        )
