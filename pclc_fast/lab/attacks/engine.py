"""The loop that every iterative attack runs in.

An attempt at one image, with its restart and its target, is a lane. An image that is misclassified
leaves the batch with all its lanes: what is then left to do is the same, and less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from .balls import Ball
from .network import Looked, Network, equal_parts, is_nan
from .noise import Noise
from .objectives import Objective
from .tracing import Tally

Iterate = Literal["any", "last"]  # which one counts: the first that fools, or the last


@dataclass(frozen=True)
class Task:
    """Images to fool a model with; all of them correct so far."""

    network: Network
    labels: Tensor  # [B], int64
    logits: Tensor  # [B, K], of the clean images
    ball: Ball  # around the clean images
    positions: Tensor  # [B], int64: decide what an image draws at random
    noise: Noise
    substitute: Network | None = None  # for transfer

    @property
    def images(self) -> Tensor:
        return self.ball.clean

    def select(self, lines: Tensor) -> Task:
        """A part of the task."""
        return replace(
            self,
            labels=self.labels[lines],
            logits=self.logits[lines],
            ball=self.ball.select(lines),
            positions=self.positions[lines],
        )

    def split(self, size: int) -> list[Task]:
        """The task in equal parts of at most ``size`` images, itself where it has no more."""
        if len(self.labels) <= size:
            return [self]
        lines = torch.arange(len(self.labels), device=self.labels.device)
        return [self.select(part) for part in equal_parts(lines, size)]


class Found(NamedTuple):
    """What an attack found."""

    fooled: Tensor  # [B], bool
    images: Tensor  # [B, ...]: the fooling ones; elsewhere the last ones tried
    step: Tensor  # [B], int64: when; -1 elsewhere
    sums: Tensor  # of a Tally
    naive_forwards: int  # images that a loop without early leaving would send through
    naive_backwards: int

    @staticmethod
    def nothing(task: Task, steps: int) -> Found:
        """Before an attack of some steps has begun."""
        return Found(
            torch.zeros_like(task.labels, dtype=torch.bool),
            task.images.clone(),
            torch.full_like(task.labels, -1),
            Tally(steps).sums,
            0,
            0,
        )

    @staticmethod
    def joined(parts: list[Found]) -> Found:
        """The parts of a task as one."""
        fooled, images, step, sums, forwards, backwards = zip(*parts, strict=True)
        return Found(
            torch.cat(fooled),
            torch.cat(images),
            torch.cat(step),
            torch.stack(sums).sum(dim=0),
            sum(forwards),
            sum(backwards),
        )


@dataclass(frozen=True)
class Lanes:
    """The attempts that are under way, those of an image side by side."""

    image: Tensor  # [L], int64: which of the task, ascending
    run: Tensor  # [L], int64: which of its attempts, ascending within an image
    labels: Tensor  # [L]
    targets: Tensor | None  # [L]
    positions: Tensor  # [L]
    ball: Ball
    noise: Noise

    @classmethod
    def of(cls, task: Task, restarts: int, targets: int) -> Lanes:
        """Restarts times targets for each image; the targets are its likeliest false classes."""
        runs = restarts * max(1, targets)
        count = len(task.labels)
        image = torch.arange(count, device=task.labels.device).repeat_interleave(runs)
        run = torch.arange(runs, device=task.labels.device).repeat(count)
        goal = (
            likeliest_false(task.logits, task.labels, targets)[image, run % targets]
            if (targets)
            else None
        )
        whole = task if runs == 1 else task.select(image)
        return cls(image, run, whole.labels, goal, whole.positions, whole.ball, task.noise)

    def select(self, lines: Tensor) -> Lanes:
        """A part of them."""
        return Lanes(
            self.image[lines],
            self.run[lines],
            self.labels[lines],
            None if self.targets is None else self.targets[lines],
            self.positions[lines],
            self.ball.select(lines),
            self.noise,
        )


@dataclass
class Rule:
    """How an attack moves from one iterate to the next."""

    memory: dict[str, Tensor] = field(default_factory=dict)  # [L, ...] each

    def move(self, step: int, images: Tensor, looked: Looked, lanes: Lanes) -> Tensor:
        """Return the next images; the engine projects them."""
        raise NotImplementedError

    def select(self, lines: Tensor) -> None:
        """Keep these lanes."""
        self.memory = {name: kept.index_select(0, lines) for name, kept in self.memory.items()}


class Look(Protocol):
    """What an attack sees at each iterate."""

    def __call__(self, task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked: ...


def gradient_of(objective: Objective) -> Look:
    """Look at the model and at the gradient of an objective."""

    def look(task: Task, lanes: Lanes, images: Tensor, step: int) -> Looked:  # noqa: ARG001
        return task.network.look(
            images, lambda logits: objective(logits, lanes.labels, lanes.targets)
        )

    return look


def ascend(
    task: Task,
    look: Look,
    rule: Callable[[Lanes], Rule],
    start: Callable[[Lanes], Tensor],
    *,
    steps: int,
    restarts: int = 1,
    targets: int = 0,
    iterate: Iterate = "any",
) -> Found:
    """Move from ``start`` by ``rule``; return the first iterate of each image that fools.

    Where several lanes fool at the same step, the first of them. ``targets`` 0: untargeted.
    """
    if not len(task.labels):
        return Found.nothing(task, steps)
    lanes = restarts * max(1, targets)
    parts = task.split(max(1, task.network.together // lanes))
    return Found.joined(
        [_ascend(part, look, rule, start, steps, restarts, targets, iterate) for part in parts]
    )


def _ascend(
    task: Task,
    look: Look,
    make_rule: Callable[[Lanes], Rule],
    start: Callable[[Lanes], Tensor],
    steps: int,
    restarts: int,
    targets: int,
    iterate: Iterate,
) -> Found:
    lanes = Lanes.of(task, restarts, targets)
    rule = make_rule(lanes)
    found, tally = Found.nothing(task, steps), Tally(steps)
    whole = len(lanes.image)
    images = lanes.ball.project(start(lanes))
    for step in range(steps + 1):
        is_last = step == steps
        looked = None if is_last else _look(task, look, lanes, images, step)
        counts = is_last or iterate == "any"
        logits = task.network.logits(images) if looked is None else looked.logits
        nan = is_nan(logits)
        fooled = (logits.argmax(dim=1) != lanes.labels) & ~nan & counts
        tally.look(step, fooled, nan, looked)
        left = _take(found, step, lanes, images, fooled)
        if looked is None:
            (rest,) = ((lanes.run == 0) & ~found.fooled[lanes.image]).nonzero(as_tuple=True)
            found.images[lanes.image[rest]] = images[rest]
        if looked is None or not len(left):
            break
        images = rule.move(step, images, looked, lanes)
        if len(left) < len(images):
            lanes, images = lanes.select(left), images.index_select(0, left)
            rule.select(left)
        images = lanes.ball.project(images)
    return found._replace(
        sums=tally.sums, naive_forwards=whole * (steps + 1), naive_backwards=whole * steps
    )


def _look(task: Task, look: Look, lanes: Lanes, images: Tensor, step: int) -> Looked:
    """Look at all lanes, no more than a batch at a time."""
    size = task.network.batch_size
    if len(images) <= size:
        return look(task, lanes, images, step)
    lines = torch.arange(len(images), device=images.device)
    parts = zip(equal_parts(lines, size), equal_parts(images, size), strict=True)
    return Looked.joined([look(task, lanes.select(at), part, step) for at, part in parts])


def _take(found: Found, step: int, lanes: Lanes, images: Tensor, fooled: Tensor) -> Tensor:
    """Note the images fooled at this step; return the indices of the lanes of all others."""
    (hits,) = fooled.nonzero(as_tuple=True)
    if not len(hits):
        return torch.arange(len(images), device=images.device)
    owners = lanes.image[hits]
    is_first = torch.ones_like(owners, dtype=torch.bool)
    is_first[1:] = owners[1:] != owners[:-1]
    owners, hits = owners[is_first], hits[is_first]
    found.fooled[owners] = True
    found.images[owners] = images[hits]
    found.step[owners] = step
    (left,) = (~found.fooled[lanes.image]).nonzero(as_tuple=True)
    return left


def likeliest_false(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The false classes with the ``count`` largest logits, largest first: [B, count]."""
    false = logits.scatter(1, labels.unsqueeze(1), -torch.inf)
    return false.sort(dim=1, descending=True, stable=True).indices[:, :count]


def rank_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Which place a class has among the logits of its row; 1 is the largest: [B], int64."""
    order = logits.sort(dim=1, descending=True, stable=True).indices
    return (order == classes.unsqueeze(1)).int().argmax(dim=1) + 1


def at_clean(lanes: Lanes) -> Tensor:
    """Start from the clean images."""
    return lanes.ball.clean


def at_random(lanes: Lanes) -> Tensor:
    """Start anywhere in the ball, for each lane elsewhere."""
    return lanes.ball.random(lanes.noise, lanes.positions, lanes.run)
