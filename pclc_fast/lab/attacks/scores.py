"""Attacks that see logits only, no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from .balls import column
from .engine import Found, Lanes, Look, Rule, Task, ascend, at_clean, at_random
from .gradient import finite
from .network import Looked
from .objectives import Objective, objective


def values_of(climbed: Objective) -> Look:
    """Look at the model and at an objective, without a gradient."""

    def look(task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked:  # noqa: ARG001
        logits = task.network.logits(images)
        return Looked(logits, climbed(logits, lanes.labels, lanes.targets), None)

    return look


class Adam(Rule):
    """Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; upwards."""

    def __init__(self, lr: float, lanes: Lanes) -> None:
        super().__init__()
        self._lr = lr
        zeros = torch.zeros_like(lanes.ball.clean)
        self.memory = {"first": zeros, "second": zeros}

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:  # noqa: ARG002
        gradient = finite(looked)
        first = 0.9 * self.memory["first"] + 0.1 * gradient
        second = 0.999 * self.memory["second"] + 0.001 * gradient.square()
        self.memory = {"first": first, "second": second}
        unbiased = (second / (1 - 0.999 ** (step + 1))).sqrt()
        return images + self._lr * (first / (1 - 0.9 ** (step + 1))) / (unbiased + 1e-8)


def spsa(
    task: Task,
    *,
    steps: int,
    samples: int,
    lr: float = 0.01,
    delta: float = 0.01,
    loss: str = "margin",
) -> Found:
    """Adam along a gradient estimated from pairs of looks on either side of an image.

    Uesato et al., "Adversarial Risk and the Dangers of Evaluating Against Weak Attacks", ICML 2018.
    A sample is a direction of signs, looked at ``delta`` ahead and behind. A pixel moves at most
    ``lr`` a step, so only steps * lr >= 2 epsilon reaches the whole ball.
    """
    climbed = objective(loss)

    def look(task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked:
        logits = task.network.logits(images)
        slope = torch.zeros_like(images)
        group = max(1, 2 * task.network.batch_size // max(1, len(images)))
        for first in range(0, samples, group):
            count = min(group, samples - first)
            draw = step * samples + first
            signs = task.noise.signs(lanes.positions, draw, (count, *images.shape[1:]))
            signs = signs.to(images.dtype)
            slope += _slopes(task, lanes, images, signs, delta, climbed)
        return Looked(logits, climbed(logits, lanes.labels, None), slope / samples)

    return ascend(task, look, lambda lanes: Adam(lr, lanes), at_clean, steps=steps)


def _slopes(
    task: Task,
    lanes: Lanes,
    images: Tensor,
    signs: Tensor,  # [L, samples, ...]
    delta: float,
    climbed: Objective,
) -> Tensor:
    """The sum over samples of (f(x + delta v) - f(x - delta v)) / (2 delta) v."""
    count = signs.shape[1]
    labels = lanes.labels.repeat_interleave(count)
    ahead, behind = (
        climbed(task.network.logits((images.unsqueeze(1) + d * signs).flatten(0, 1)), labels, None)
        for d in (delta, -delta)
    )
    slopes = ((ahead - behind) / (2 * delta)).nan_to_num(0.0, 0.0, 0.0).reshape(-1, count)
    return (slopes.reshape(*slopes.shape, *[1] * (images.ndim - 1)) * signs).sum(dim=1)


class Squares(Rule):
    """Put a square of +-epsilon at a random place; keep what climbs."""

    def __init__(self, queries: int, share: float, lanes: Lanes) -> None:
        super().__init__()
        self._queries, self._share = queries, share
        clean = lanes.ball.clean
        lowest = torch.full(clean.shape[:1], -torch.inf, dtype=clean.dtype, device=clean.device)
        self.memory = {"best": clean, "value": lowest}

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:
        value = looked.value.nan_to_num(-torch.inf).to(self.memory["value"].dtype)
        is_better = value >= self.memory["value"]
        best = torch.where(column(is_better, images), images, self.memory["best"])
        self.memory = {"best": best, "value": torch.maximum(value, self.memory["value"])}
        clean, planes = _planes(lanes.ball.clean), _planes(best)
        channels, height, width = planes.shape[1:]
        side = round((_share(step, self._queries, self._share) * height * width) ** 0.5)
        tall, wide = (max(1, min(side, size)) for size in (height, width))
        draw = lanes.run * (self._queries + 1) + step + 1
        uniform = lanes.noise.uniform(lanes.positions, draw, (2 + channels,))
        inside = _band(uniform[:, 0], height, tall).unsqueeze(2) & _band(
            uniform[:, 1], width, wide
        ).unsqueeze(1)
        signs = torch.where(uniform[:, 2:] < 0.5, -1.0, 1.0).to(images.dtype)
        epsilon = column(lanes.ball.epsilon, planes).to(images.dtype)
        square = clean + epsilon * signs.reshape(-1, channels, 1, 1)
        return torch.where(inside.unsqueeze(1), square, planes).reshape(images.shape)


def square(
    task: Task, *, queries: int, share: float = 0.8, loss: str = "margin", restarts: int = 1
) -> Found:
    """Random search over squares of changed pixels, smaller and smaller.

    Andriushchenko et al., "Square Attack: a Query-efficient Black-box Adversarial Attack via Random
    Search", ECCV 2020. ``share`` of the pixels are in the first square.
    """

    def stripes(lanes: Lanes) -> Tensor:
        planes = _planes(lanes.ball.clean)
        draw = lanes.run * (queries + 1)
        shape = (planes.shape[1], 1, planes.shape[3])
        signs = lanes.noise.signs(lanes.positions, draw, shape).to(planes.dtype)
        epsilon = column(lanes.ball.epsilon, planes).to(planes.dtype)
        return (planes + epsilon * signs).reshape(lanes.ball.clean.shape)

    return ascend(
        task,
        values_of(objective(loss)),
        lambda lanes: Squares(queries, share, lanes),
        stripes,
        steps=queries - 1,
        restarts=restarts,
    )


class Redraw(Rule):
    """Somewhere else in the ball."""

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:  # noqa: ARG002
        return lanes.ball.random(lanes.noise, lanes.positions, lanes.run + step + 1)


def random_noise(task: Task, *, tries: int) -> Found:
    """Uniform in the ball, so many times: what no attack should do worse than."""
    look = values_of(objective("margin"))
    return ascend(task, look, lambda lanes: Redraw(), at_random, steps=tries - 1)  # noqa: ARG005


def _share(step: int, queries: int, share: float) -> float:
    """How many of the pixels a square has: halved ever later, in the paper's ten thousandths."""
    passed = step / queries * 10000
    turns = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
    return share * 0.5 ** sum(passed > turn for turn in turns)


def _band(uniform: Tensor, size: int, length: int) -> Tensor:
    """Which of ``size`` places are in a random stretch of ``length``: [L, size], bool."""
    first = (uniform * (size - length + 1)).long().unsqueeze(1)
    places = torch.arange(size, device=uniform.device)
    return (places >= first) & (places < first + length)


def _planes(images: Tensor) -> Tensor:
    """[L, ...] as [L, C, H, W]."""
    if images.ndim == 4:
        return images
    return images.reshape(len(images), 1, -1, images.shape[-1])
