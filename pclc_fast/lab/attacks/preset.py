"""What a preset is: a list of attacks, each with every number that decides what it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .result import Assumption, Norm

Kind = Literal["grey", "colour", "large"]  # of images, as the paper parts them


@dataclass(frozen=True)
class Spec:
    """One attack of a preset."""

    key: str  # unique in a preset
    title: str
    attack: str  # its name in ``registry.ATTACKS``
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""  # where the settings come from
    epsilons: tuple[float, ...] = ()  # its own, where none are asked for; in norm, else in Linf
    norm: Norm | None = None  # its own, whatever is asked for
    has_budget: bool = True  # False: it looks for the nearest image that fools, however far


@dataclass(frozen=True)
class Preset:
    """Attacks in the order in which they run.

    ``cumulative``: each is tried only on what those before it left standing, at any epsilon so far.
    ``carry``: each is tried only on what it left standing itself at smaller epsilons.
    """

    name: str
    specs: tuple[Spec, ...]
    cumulative: bool = False
    carry: bool = False
    assumptions: tuple[Assumption, ...] = ()


def kind_of(shape: tuple[int, ...], classes: int) -> Kind:
    """Which of the paper's budgets go with images of a shape: [C, H, W], or any other."""
    if classes >= 100:  # CIFAR-100, Tiny ImageNet
        return "large"
    return "colour" if len(shape) == 3 and shape[0] == 3 else "grey"
