"""What happens at each step of an attack, summed over images, restarts and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Looked
from .result import Trace

_VANISHING = 1e-8
_ROWS = ("active", "fooled", "loss", "losses", "log", "logs", "pixels", "zero", "tiny", "broken")


class Tally:
    """Sums for each step; those of two batches of one attack add up.

    Kept where the images are: reading them would wait for a GPU at each step.
    """

    def __init__(self, steps: int, device: torch.device) -> None:
        self.sums = torch.zeros(len(_ROWS), steps + 1, dtype=torch.float64, device=device)

    def look(self, step: int, fooled: Tensor, looked: Looked | None) -> None:
        """Take in the lanes [L] that are active at ``step``."""
        self.sums[0, step] += len(fooled)
        self.sums[1, step] += fooled.sum()
        if looked is None or not len(fooled):
            return
        has_value = looked.value.isfinite()
        self.sums[2, step] += looked.value.where(has_value, 0.0).double().sum()
        self.sums[3, step] += has_value.double().sum()
        if looked.gradient is None:
            return
        largest = looked.gradient.detach().abs().flatten(1).amax(dim=1).double()  # NaN travels
        is_broken = ~largest.isfinite()
        is_used = (largest > 0) & ~is_broken
        self.sums[4:, step] += torch.stack(
            [
                largest.where(is_used, 1.0).log().sum(),
                is_used.double().sum(),
                (looked.gradient == 0).flatten(1).double().mean(dim=1).sum(),
                (largest == 0).double().sum(),
                (is_used & (largest < _VANISHING)).double().sum(),
                is_broken.double().sum(),
            ]
        )


def trace(sums: Tensor | None) -> Trace:
    """Turn sums [rows, steps + 1] into what is reported; None: nothing was tried."""
    if sums is None:
        return Trace([], [], [], [], [], [], [], [])
    row = dict(zip(_ROWS, sums.cpu(), strict=True))
    measured = row["logs"] + row["zero"] + row["broken"]
    return Trace(
        active=_whole(row["active"]),
        fooled=_whole(row["fooled"]),
        loss=_ratio(row["loss"], row["losses"]),
        gradient=_ratio((row["log"] / row["logs"]).exp() * row["logs"], row["logs"]),
        zero_pixels=_ratio(row["pixels"], measured),
        zero=_whole(row["zero"]),
        vanishing=_whole(row["tiny"]),
        non_finite=_whole(row["broken"]),
    )


def _whole(values: Tensor) -> list[int]:
    return [round(v) for v in values.tolist()]


def _ratio(sums: Tensor, counts: Tensor) -> list[float | None]:
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return [float(f"{s / n:.6g}") if n else None for s, n in pairs]
