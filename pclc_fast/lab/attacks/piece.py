"""Some images under one attack at one epsilon: the smallest part that a killed evaluation keeps."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .balls import BALLS, distances
from .engine import Task
from .network import Network, misclassified
from .noise import Noise
from .preset import Spec
from .registry import run
from .result import Norm

_COST = ("forwards", "backwards", "naive_forwards", "naive_backwards", "rejected", "seconds")


class Piece(NamedTuple):
    """What came out, on the CPU."""

    attempted: Tensor  # [n], int64: positions
    fooled: Tensor  # [m], int64: positions; what follows is parallel to it
    images: Tensor  # [m, ...], float32
    predicted: Tensor  # [m], int64
    step: Tensor  # [m], int64
    distance: Tensor  # [m], float64
    sums: Tensor  # of a Tally
    cost: Tensor  # [6], float64: see _COST

    def costs(self) -> dict[str, float]:
        """The entries of ``cost`` by name."""
        return dict(zip(_COST, self.cost.tolist(), strict=True))


@dataclass(frozen=True)
class Subjects:
    """What is evaluated: the model, images with what is known of them, and a substitute model."""

    network: Network
    substitute: Network | None
    images: Tensor  # [N, ...], float32
    labels: Tensor  # [N], int64
    logits: Tensor  # [N, K]
    noise: Noise

    def task(self, lines: Tensor, spec: Spec, norm: Norm, epsilon: float | None) -> Task:
        """The images at ``lines`` [n], for one attack."""
        clean = self.images[lines]
        budget = torch.inf if epsilon is None else epsilon
        sizes = torch.full((len(lines),), budget, dtype=torch.float64, device=clean.device)
        return Task(
            network=self.network,
            labels=self.labels[lines],
            logits=self.logits[lines],
            ball=BALLS[norm].around(clean, sizes),
            positions=lines,
            noise=self.noise.child(spec.key, epsilon),
            substitute=self.substitute,
        )


def attack_piece(
    subjects: Subjects, lines: Tensor, spec: Spec, norm: Norm, epsilon: float | None
) -> Piece:
    """Run an attack on the images at ``lines`` [n] and check what it found.

    What counts is within the budget and [0, 1] exactly, and misclassified in a look of its own.
    """
    networks = [n for n in (subjects.network, subjects.substitute) if n is not None]
    start, task = time.perf_counter(), subjects.task(lines, spec, norm, epsilon)
    before = [(n.forwards, n.backwards) for n in networks]
    found = run(spec, task)
    (hits,) = found.fooled.nonzero(as_tuple=True)
    images = found.images[hits]
    logits = subjects.network.logits(images) if len(hits) else task.logits[:0]
    distance = distances(norm, images, task.images[hits])
    is_good = misclassified(logits, task.labels[hits]) & is_allowed(images, distance, epsilon)
    forwards, backwards = (
        sum(after - b[i] for after, b in zip(counts, before, strict=True))
        for i, counts in enumerate(zip(*[(n.forwards, n.backwards) for n in networks], strict=True))
    )
    cost = [
        forwards,
        backwards,
        found.naive_forwards,
        found.naive_backwards,
        int((~is_good).sum()),
        time.perf_counter() - start,
    ]
    return Piece(
        lines.cpu(),
        lines[hits][is_good].cpu(),
        images[is_good].cpu(),
        logits.argmax(dim=1)[is_good].cpu(),
        found.step[hits][is_good].cpu(),
        distance[is_good].cpu(),
        found.sums.cpu(),
        torch.tensor(cost, dtype=torch.float64),
    )


def is_allowed(images: Tensor, distance: Tensor, epsilon: float | None) -> Tensor:
    """Which images [m, ...] are in [0, 1] and not farther than epsilon: [m], bool."""
    flat = images.flatten(1)
    inside = (flat >= 0).all(dim=1) & (flat <= 1).all(dim=1)
    return inside if epsilon is None else inside & (distance <= epsilon)
