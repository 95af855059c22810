"""What the gradients of an attack were, step by step."""

from __future__ import annotations

from ..attacks import Result
from .evidence import Gradients

_COUNTS = ("active", "zero", "vanishing", "non_finite")


def by_step(result: Result, key: str) -> list[Gradients]:
    """Sum up the traces of an attack over its epsilons; steps without a gradient are left out."""
    traces = [cell.trace for cell in result.cells if cell.attack == key]
    found = []
    for step in range(max((len(trace.active) for trace in traces), default=0)):
        here = [t for t in traces if step < len(t.active) and t.zero_pixels[step] is not None]
        counts = [sum(getattr(trace, name)[step] for trace in here) for name in _COUNTS]
        if counts[0]:
            found.append(Gradients(key, step + 1, *counts))
    return found
