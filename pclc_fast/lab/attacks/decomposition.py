"""The margin, one of its terms at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .engine import Found, Lanes, Task, ascend, at_random
from .gradient import Steps
from .network import Looked
from .objectives import margin, rescale


def margin_decomposition(
    task: Task, *, steps: int, targets: int = 0, restarts: int = 2, rescaled: bool = True
) -> Found:
    """First climb one term of the margin alone, then the margin.

    Jiang et al., "Imbalanced Gradients: A Subtle Cause of Overestimated Adversarial Robustness",
    2020: where the gradients of a_j and a_y cancel, neither is followed. Even lanes begin with
    -a_y, odd ones with a_j; in either half the step falls from 2 epsilon by half a cosine.
    """
    half = max(1, steps // 2)

    def look(task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked:
        def climbed(logits: Tensor) -> Tensor:
            logits = rescale(logits) if rescaled else logits
            whole = margin(logits, lanes.labels, lanes.targets)
            if step >= half:
                return whole
            minus_true = -logits.gather(1, lanes.labels.unsqueeze(1)).squeeze(1)
            return torch.where(lanes.run % 2 == 0, minus_true, whole - minus_true)

        return task.network.look(images, climbed)

    def size(step: int, lanes: Lanes) -> Tensor:
        return (1 + math.cos(math.pi * (step % half) / half)) * lanes.ball.epsilon

    return ascend(
        task,
        look,
        lambda lanes: Steps(size, lanes),
        at_random,
        steps=steps,
        restarts=restarts,
        targets=min(targets, task.logits.shape[1] - 1),
    )
