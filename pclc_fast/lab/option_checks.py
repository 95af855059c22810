"""Checks of options that several commands have; each raises ValueError and names the option."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_counts(**counts: int | None) -> None:
    """Each must be at least 1, or None."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {value}")


def check_lr(lr: float) -> None:
    """A learning rate."""
    if not 0 < lr < math.inf:
        raise ValueError(f"--lr must be positive and finite; got {lr:g}")


def check_seeds(seeds: Sequence[int]) -> None:
    """A run each."""
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must be one or more different numbers; got {as_typed(seeds)}")
    if not all(0 <= seed < 2**63 for seed in seeds):
        raise ValueError(f"--seeds must be from 0 to 2^63 - 1; got {as_typed(seeds)}")


def as_typed(values: Sequence[float]) -> str:
    """Numbers as they are given to an option."""
    texts = (f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return " ".join(texts) or "nothing"
