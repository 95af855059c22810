"""Implementations of the loss on rows: one module each, none of which knows another."""

from __future__ import annotations

import torch
from torch import Tensor

from ..options import LC_MODES, REDUCTIONS, Options

# The arithmetic's type, and how many of it hold what forward saves of a row for backward: six
# numbers and an int64, RowStats in csrc/pclc_row.h.
ARITHMETIC = {
    torch.float32: (torch.float32, 8),
    torch.bfloat16: (torch.float32, 8),
    torch.float16: (torch.float32, 8),
    torch.float64: (torch.float64, 7),
}

# The order of the enumerations in csrc/pclc.h.
_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
_REDUCTIONS = {name: number for number, name in enumerate(REDUCTIONS)}
_LC_MODES = {name: number for number, name in enumerate(LC_MODES)}


def problem_arguments(
    logits: Tensor, target: Tensor, weight: Tensor | None, options: Options
) -> tuple[int | bool, ...]:
    """The first arguments of a compiled module's calls; the tensors must outlive the call."""
    rows, classes = logits.shape
    return (
        logits.data_ptr(),
        target.data_ptr(),
        0 if weight is None else weight.data_ptr(),
        _DTYPES[logits.dtype],
        rows,
        classes,
        logits.stride()[0],
        options.ignore_index,
        _REDUCTIONS[options.reduction],
        _LC_MODES[options.lc_mode],
        options.pc_mean,
        options.coefficients.data_ptr(),
    )
