"""PGD towards one class after the other."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .engine import Found, Lanes, Task, ascend, at_random, gradient_of, likeliest_false
from .gradient import Steps, StepSize, falling
from .network import Looked
from .objectives import objective


def multi_targeted(
    task: Task,
    *,
    steps: int,
    targets: int,
    first_step: float = 1.0,
    loss: str = "margin",
    rescaled: bool = True,
    restarts: int = 1,
) -> Found:
    """PGD towards each of the likeliest false classes; the step falls from ``first_step`` epsilon.

    Gowal et al., "An Alternative Surrogate Loss for PGD-based Adversarial Testing", 2019: it finds
    what no gradient of an untargeted loss points to. The step follows half a cosine to 0.
    """
    count = min(targets, task.logits.shape[1] - 1)
    return ascend(
        task,
        gradient_of(objective(loss, rescaled=rescaled)),
        lambda lanes: Steps(falling(first_step, steps), lanes),
        at_random,
        steps=steps,
        targets=count,
        restarts=restarts,
    )


def focused(
    task: Task,
    *,
    scouting: int,
    scouts: int,
    steps: int,
    targets: int,
    restarts: int,
    loss: str = "margin",
    rescaled: bool = True,
) -> Found:
    """A short multi-targeted PGD, then a long one with restarts on the targets that came nearest.

    After Gowal et al. 2019, as ``multi_targeted``. Most targets of an image are out of reach, and
    time is better spent on new starts for the others.
    """
    count = min(scouts, task.logits.shape[1] - 1)
    few = min(targets, count)
    found = []
    for part in task.split(max(1, task.network.together // max(count, few * restarts))):
        found.append(_focused(part, scouting, count, steps, few, restarts, loss, rescaled))
    return Found.joined(found)


class Scouting(Steps):
    """Steps that note how near each target came: [images, targets]."""

    def __init__(self, size: StepSize, lanes: Lanes, reached: Tensor) -> None:
        super().__init__(size, lanes)
        self._reached = reached

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:
        before = self._reached[lanes.image, lanes.run]
        value = looked.value.nan_to_num(-torch.inf).to(before.dtype)
        self._reached[lanes.image, lanes.run] = torch.maximum(before, value)
        return super().move(step, images, looked, lanes)


def _focused(
    task: Task,
    scouting: int,
    scouts: int,
    steps: int,
    targets: int,
    restarts: int,
    loss: str,
    rescaled: bool,
) -> Found:
    nothing = torch.full((len(task.labels), scouts), -torch.inf, device=task.labels.device)
    reached = nothing.to(task.logits.dtype)
    look = gradient_of(objective(loss, rescaled=rescaled))
    first = ascend(
        task,
        look,
        lambda lanes: Scouting(falling(1.0, scouting), lanes, reached),
        at_random,
        steps=scouting,
        targets=scouts,
    )
    (left,) = (~first.fooled).nonzero(as_tuple=True)
    classes = likeliest_false(task.logits, task.labels, scouts)
    nearest = torch.full_like(task.logits, -torch.inf).scatter(1, classes, reached)
    rest = replace(task, logits=nearest, noise=task.noise.child("focused")).select(left)
    second = ascend(
        rest,
        look,
        lambda lanes: Steps(falling(1.0, steps), lanes),
        at_random,
        steps=steps,
        targets=targets,
        restarts=restarts,
    )
    return _then(first, second, left, scouting)


def _then(first: Found, second: Found, left: Tensor, steps: int) -> Found:
    """What two attacks found, the second on the lines that the first left."""
    fooled, images, step = first.fooled.clone(), first.images.clone(), first.step.clone()
    fooled[left], images[left] = second.fooled, second.images
    step[left] = torch.where(second.fooled, second.step + steps + 1, -1)
    return Found(
        fooled,
        images,
        step,
        torch.cat([first.sums, second.sums], dim=1),
        first.naive_forwards + second.naive_forwards,
        first.naive_backwards + second.naive_backwards,
    )
