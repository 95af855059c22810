"""What an evaluation found: every attack, epsilon and image, and what follows from them.

Images are named by their position, 0 to N - 1, among those that were evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ..summary import wilson_interval

Norm = Literal["Linf", "L2"]
Threat = Literal["white-box", "transfer", "score", "noise"]
FORMAT = "pclc-attacks-1"


class Share(NamedTuple):
    """How many of the evaluated images a model gets right."""

    correct: int
    images: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def wilson_95(self) -> tuple[float, float]:
        """The 95 % interval over the choice of the images."""
        return wilson_interval(self.accuracy, self.images)


@dataclass(frozen=True)
class Subject:
    """What was evaluated: a model or a data set."""

    name: str
    sha256: str | None  # of the weights, or of images and labels; None for a bare callable
    facts: dict[str, Any]  # model: classes, parameters, source; data: images, shape, source


@dataclass(frozen=True)
class Attack:
    """One line of a preset."""

    key: str  # unique in a result: "pgd-40", "apgd-ce"
    title: str  # for people: "PGD-40"
    source: str  # where its settings come from: "Tables 1, 2 and 5", "released notebook", "strong"
    threat: Threat  # what the attacker sees of the model
    settings: dict[str, Any]  # every number that decides what it does: loss, steps, step_size, ...


@dataclass(frozen=True)
class Assumption:
    """Something that a source leaves open, and what was done."""

    topic: str
    source: str  # what it says
    chosen: str


@dataclass(frozen=True)
class Caution:
    """Something about model or data that changes what the result is worth."""

    code: str  # "softmax", "random-forward", "clean-accuracy", ...
    message: str


@dataclass(frozen=True)
class Trace:
    """What happened before the first step (entry 0) and after each; sums over restarts and targets.

    An entry of ``loss``, ``gradient`` or ``zero_pixels`` is None where nothing was measured.
    """

    active: list[int]  # images that were still in the batch, times restarts and targets
    fooled: list[int]  # of these, those now misclassified
    loss: list[float | None]  # what is climbed: mean over the active
    gradient: list[float | None]  # geometric mean of max |gradient|, zero ones left out
    zero_pixels: list[float | None]  # share of the gradient's entries that are exactly 0
    zero: list[int]  # gradients that are 0 in every pixel
    vanishing: list[int]  # gradients not 0, but below 1e-8 in every pixel
    non_finite: list[int]  # gradients with a NaN or an infinity


@dataclass(frozen=True)
class Counts:
    """Cost in images that went through the model."""

    forwards: int
    backwards: int
    naive_forwards: int  # what a loop that never drops an image would have taken
    naive_backwards: int


@dataclass(frozen=True)
class Cell:
    """One attack at one epsilon.

    ``predicted``, ``rank``, ``step`` and ``distance`` are parallel to ``fooled``.
    """

    attack: str  # Attack.key
    norm: Norm
    epsilon: float | None  # None: without a budget (C&W minimises the distance)
    attempted: list[int]  # the images it was tried on, ascending; all of them correct without it
    fooled: list[
        int
    ]  # those it fooled, ascending: inside the budget, in [0, 1], checked in float32
    predicted: list[int]  # the class of the adversarial image
    rank: list[int]  # of that class for the clean image; 2: the most probable false class
    step: list[int]  # steps it took, over restarts and targets; 0: its start was enough
    distance: list[float]  # from the clean image, in ``norm``
    rejected: int  # that fooled while they were crafted and not when checked in float32
    counts: Counts
    trace: Trace
    seconds: float

    def within(self, epsilon: float) -> bool:
        """Whether what it found is within ``epsilon``."""
        return self.epsilon is not None and self.epsilon <= epsilon


@dataclass(frozen=True)
class Images:
    """What the model makes of the clean images; lists of N."""

    label: list[int]
    predicted: list[int]
    prob_gap: list[float]  # f_y - max_{k != y} f_k
    logit_gap: list[float]  # a_y - max_{k != y} a_k

    @property
    def correct(self) -> set[int]:
        return {i for i, y in enumerate(self.label) if self.predicted[i] == y}


class Adversarial(NamedTuple):
    """How images were fooled within a budget: one line each, for its smallest epsilon."""

    images: Tensor  # [M, ...], float32, exactly what was checked
    position: Tensor  # [M], int64, ascending: which evaluated image it is
    epsilon: Tensor  # [M], float64
    predicted: Tensor  # [M], int64
    attack: Tensor  # [M], int64: position in Result.attacks


@dataclass(frozen=True)
class Result:
    """An evaluation of one model."""

    model: Subject
    data: Subject
    preset: str
    norm: Norm
    epsilons: list[float]  # ascending
    seed: int
    batch_size: int
    cumulative: bool  # an attack was tried only on what the attacks before it left standing
    carry: bool  # an attack was tried only on what it, at a smaller epsilon, left standing
    attacks: list[Attack]  # in the order they ran
    assumptions: list[Assumption]
    cautions: list[Caution]
    images: Images
    cells: list[Cell]  # in the order they ran
    environment: dict[str, Any]
    seconds: float
    peak_memory: int  # bytes; of the GPU where the model was on one, else of the process
    adversarial: Adversarial | None = field(default=None, compare=False, repr=False)

    @property
    def clean(self) -> Share:
        return Share(len(self.images.correct), len(self.images.label))

    def cell(self, attack: str, epsilon: float | None) -> Cell | None:
        """The cell of an attack, None where it did not run at that epsilon."""
        found = [c for c in self.cells if (c.attack, c.epsilon) == (attack, epsilon)]
        return found[0] if found else None

    def alone(self, cell: Cell) -> Share | None:
        """What is correct under this attack alone; None where it was not tried on every image.

        An image that it fooled within a smaller epsilon need not have been tried again.
        """
        smaller = {
            image
            for other in self.cells
            if other.attack == cell.attack and cell.epsilon is not None
            if other.epsilon is not None and other.epsilon < cell.epsilon
            for image in other.fooled
        }
        carried = smaller - set(cell.attempted)
        if len(cell.attempted) + len(carried) < self.clean.correct:
            return None
        return Share(self.clean.correct - len(cell.fooled) - len(carried), self.clean.images)

    def minimum_epsilon(self) -> list[float | None]:
        """For each image the smallest epsilon at which anything fooled it.

        0 where it is wrong without an attack; None where nothing did. A fooling image within a
        budget is within every larger one too.
        """
        pairs = zip(self.images.predicted, self.images.label, strict=True)
        found: list[float | None] = [None if guess == label else 0.0 for guess, label in pairs]
        for cell in self._bounded():
            for image in cell.fooled:
                before = found[image]
                found[image] = cell.epsilon if before is None else min(before, cell.epsilon or 0.0)
        return found

    def worst_case(self, epsilon: float) -> Share:
        """What no attack fooled within ``epsilon``: the headline."""
        standing = [e is None or e > epsilon for e in self.minimum_epsilon()]
        return Share(sum(standing), self.clean.images)

    def cumulative_shares(self, epsilon: float) -> list[tuple[str, Share]]:
        """What stood within ``epsilon`` after each attack that ran at it, in their order.

        What was found within smaller epsilons counts from the beginning.
        """
        fooled: set[int] = set()
        shares = []
        for cell in self._bounded():
            if cell.within(epsilon):
                fooled |= set(cell.fooled)
            if cell.epsilon == epsilon:
                left = Share(self.clean.correct - len(fooled), self.clean.images)
                shares.append((cell.attack, left))
        return shares

    def per_class(self, epsilon: float) -> dict[int, Share]:
        """The worst case for the images of each class; epsilon 0: without an attack."""
        standing = [e is None or e > epsilon for e in self.minimum_epsilon()]
        counts: dict[int, list[bool]] = {}
        for label, stands in zip(self.images.label, standing, strict=True):
            counts.setdefault(label, []).append(stands)
        return {k: Share(sum(s), len(s)) for k, s in sorted(counts.items())}

    def _bounded(self) -> Iterable[Cell]:
        """The cells that say something about the norm and a budget."""
        return (c for c in self.cells if c.norm == self.norm and c.epsilon is not None)
