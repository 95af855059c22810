"""What happens at each step of an attack, summed over images, restarts and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Looked
from .result import Trace

_VANISHING = 1e-8
_Seen = tuple[int, Tensor]  # at a step, of each lane: [..., L]
_ROWS = (
    "active",
    "fooled",
    "nan",  # answers
    "loss",
    "losses",
    "log",
    "logs",
    "pixels",
    "zero",
    "tiny",
    "broken",
)


class Tally:
    """Sums for each step; those of two batches of one attack add up.

    What was seen is put aside and summed in the end. At each step that would cost as much as a
    small batch does, and reading it would wait for a GPU.
    """

    def __init__(self, steps: int) -> None:
        self._count = steps + 1
        self._fooled: list[_Seen] = []
        self._nan: list[_Seen] = []
        self._values: list[_Seen] = []
        self._gradients: list[_Seen] = []

    def look(self, step: int, fooled: Tensor, nan: Tensor, looked: Looked | None) -> None:
        """Take in the lanes [L] that are active at ``step``, and which were answered with NaN."""
        self._fooled.append((step, fooled))
        self._nan.append((step, nan))
        if looked is None:
            return
        self._values.append((step, looked.value))
        if looked.gradient is not None and len(fooled):
            size = looked.gradient.flatten(1).abs()
            largest = size.amax(dim=1)  # NaN travels
            zeros = 1 - size.ne_(0).sum(dim=1) / size.shape[1]
            self._gradients.append((step, torch.stack([largest, zeros])))

    @property
    def sums(self) -> Tensor:
        """What there is so far: [rows, steps + 1], float64, on the CPU."""
        sums = torch.zeros(len(_ROWS), self._count, dtype=torch.float64)
        for first, seen, rows_of in (
            (0, self._fooled, lambda fooled: [torch.ones_like(fooled), fooled]),
            (2, self._nan, lambda nan: [nan]),
            (3, self._values, _of_values),
            (5, self._gradients, _of_gradients),
        ):
            if seen:
                steps = torch.tensor([step for step, _ in seen])
                lanes = torch.tensor([found.shape[-1] for _, found in seen])
                found = torch.cat([found for _, found in seen], dim=-1).double().cpu()
                rows = torch.stack(rows_of(found))
                sums[first : first + len(rows)].index_add_(1, steps.repeat_interleave(lanes), rows)
        return sums


def _of_values(value: Tensor) -> list[Tensor]:
    has_value = value.isfinite()
    return [value.where(has_value, 0.0), has_value.double()]


def _of_gradients(seen: Tensor) -> list[Tensor]:
    largest, zeros = seen
    is_broken = ~largest.isfinite()
    is_used = (largest > 0) & ~is_broken
    return [
        largest.where(is_used, 1.0).log(),
        is_used.double(),
        zeros,
        (largest == 0).double(),
        (is_used & (largest < _VANISHING)).double(),
        is_broken.double(),
    ]


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


def answered_with_nan(sums: Tensor) -> int:
    """How many looks at attacked images gave a NaN."""
    return int(sums[_ROWS.index("nan")].sum())


def _whole(values: Tensor) -> list[int]:
    return [round(v) for v in values.tolist()]


def _ratio(sums: Tensor, counts: Tensor) -> list[float | None]:
    pairs = zip(sums.tolist(), counts.tolist(), strict=True)
    return [float(f"{s / n:.6g}") if n else None for s, n in pairs]
