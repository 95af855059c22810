"""The Triton kernels for NVIDIA GPUs: what a launch needs from the host.

Triton itself is imported by the first call that runs a kernel. With TRITON_INTERPRET=1 in the
environment Triton's interpreter runs the same kernels on CPU tensors, for tests.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

from ..options import Options
from ..tensors import check_targets, values_may_be_read
from . import ARITHMETIC

_MOST_CLASSES = 2**31 - 2**16  # a class has 32 bits, and so has the end of its block
_WARPS_OF_A_MULTIPROCESSOR = 64
_COUNTED_CLASSES = 8192  # of rows that are counted by every program
_ACCESS_BYTES = 16  # the most that a thread reads or writes at once
_INTERPRETED_PROGRAMS = 3  # of a backward launch, so that one takes several turns

_has_triton = importlib.util.find_spec("triton") is not None


def unavailable() -> str:
    """Why this backend cannot be used on this machine; empty where it can."""
    if not _has_triton:
        return "Triton is not installed; pip install triton, or a PyTorch that brings it"
    if _interprets():
        return ""
    if torch.version.hip is not None:
        return "it runs on NVIDIA GPUs; this PyTorch is built for AMD's"
    if not torch.cuda.is_available():
        return "it runs on NVIDIA GPUs, and PyTorch finds none (TRITON_INTERPRET=1 needs none)"
    return ""


def unsupported(input: Tensor) -> str:
    """Why this backend cannot take ``input``; empty where it can."""
    if not (input.device.type == "cuda" or (_interprets() and input.device.type == "cpu")):
        return f"it runs on CUDA tensors; got a tensor on {input.device}"
    if input.dim() and input.shape[1 if input.dim() > 1 else 0] > _MOST_CLASSES:
        return f"it takes rows of at most {_MOST_CLASSES} classes"
    if input.is_cuda and torch.cuda.get_device_capability(input.device) < (8, 0):
        major, minor = torch.cuda.get_device_capability(input.device)
        return (
            f"it needs a GPU of compute capability 8.0 or more; {input.device} has {major}.{minor}"
        )
    return ""


def forward(
    logits: Tensor,  # [N, K], unit stride in the last dimension
    target: Tensor,  # N elements of int64 in any shape, contiguous
    weight: Tensor | None,  # [K] of the arithmetic's type, contiguous
    options: Options,
    *,
    save: bool,
    with_grad: bool,
    with_stats: bool,
) -> list[Tensor]:
    """Return the loss, then what is asked for, in this order.

    ``save``: row_stats, which backward needs; ``with_grad``: the gradient for a grad_output of 1;
    ``with_stats``: prob_gap, logit_gap, runner_up, correct. A target that is no class makes its
    row NaN, or raises IndexError where the host may look at it.
    """
    if values_may_be_read(target):
        check_targets(target, logits.shape[1], options.ignore_index)
    with _current_device(logits):
        if _aligned(logits) < _common_factor(logits, logits.shape[1]):
            # A thread would hold other logits than of contiguous rows, and add them in another
            # order: the bits of the loss are those of contiguous rows.
            logits = logits.contiguous()
        return _launch_forward(logits, target, weight, options, save, with_grad, with_stats)


def backward(
    grad: Tensor,  # [N, K], contiguous: written
    grad_output: Tensor,  # [], or the shape of target
    row_stats: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    *,
    has_unit_grad: bool,
) -> None:
    """Write the gradient for ``grad_output`` from what ``forward`` saved.

    ``has_unit_grad``: ``grad`` holds the gradient for a grad_output of 1, and the device leaves it
    as it is where grad_output is 1.
    """
    if logits.numel() == 0:
        return
    with _current_device(logits):
        upstream = grad_output.to(row_stats.dtype)
        if options.reduction == "none":
            upstream, has_unit_grad = upstream.reshape(-1), False
        _launch_backward(grad, upstream, row_stats, logits, target, weight, options, has_unit_grad)


def _launch_forward(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    save: bool,
    with_grad: bool,
    with_stats: bool,
) -> list[Tensor]:
    from . import triton_kernels as kernels
    from . import triton_tiling as tilings

    dtype, row_stats_width = ARITHMETIC[logits.dtype]
    rows, classes = logits.shape
    arithmetic = tilings.ARITHMETIC[dtype]
    lc_mode, coefficients = _coefficients(options, classes)
    aligned = _aligned(logits)
    tiling = tilings.tiling(classes, arithmetic, lc_mode, aligned)
    programs = -(-rows // tiling.rows)
    reduced = options.reduction != "none"

    grad = logits.new_empty((rows, classes)) if with_grad else None
    loss = logits.new_empty(() if reduced else target.shape, dtype=dtype)
    losses = logits.new_empty(programs, dtype=dtype) if reduced else loss
    row_stats = logits.new_empty((rows, row_stats_width), dtype=dtype) if save else None
    statistics = [
        logits.new_empty(target.shape, dtype=d) if with_stats else None
        for d in (dtype, dtype, torch.int64, torch.bool)
    ]
    parts = _prepare(target, weight, None, classes, options, dtype)
    if programs:
        kernels.forward_kernel[(programs,)](
            logits, target, weight, parts, losses, row_stats, grad, *statistics,
            rows, _length(parts), classes, logits.stride(0), options.ignore_index, *coefficients,
            arithmetic, options.reduction, lc_mode,
            tiling.rows, tiling.block, tiling.width, tiling.in_registers, aligned,
            **tiling.options(),
        )  # fmt: skip
    if reduced:
        kernels.finish_kernel[(1,)](
            losses, target, weight, parts, loss,
            programs, rows, _length(parts), classes, options.ignore_index,
            arithmetic, options.reduction, **tilings.FINISHING,
        )  # fmt: skip
    return [x for x in (loss, row_stats, grad, *statistics) if x is not None]


def _launch_backward(
    grad: Tensor,
    upstream: Tensor,  # [], or [N] with any stride
    row_stats: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    has_unit_grad: bool,
) -> None:
    from . import triton_kernels as kernels
    from . import triton_tiling as tilings

    rows, classes = logits.shape
    arithmetic = tilings.ARITHMETIC[row_stats.dtype]
    lc_mode, coefficients = _coefficients(options, classes)
    aligned = _aligned(logits)
    tiling = tilings.backward_tiling(classes, arithmetic, lc_mode, aligned)
    programs = min(-(-rows // tiling.rows), _resident_programs(logits, tiling.num_warps))
    known = upstream if has_unit_grad else None
    parts = _prepare(target, weight, known, classes, options, row_stats.dtype)
    kernels.backward_kernel[(programs,)](
        logits, target, weight, parts, row_stats, upstream, grad,
        rows, _length(parts), classes, logits.stride(0), options.ignore_index,
        upstream.stride(0) if upstream.dim() else 0, *coefficients,
        arithmetic, options.reduction, lc_mode, has_unit_grad,
        tiling.rows, tiling.block, tiling.width, aligned, **tiling.options(),
    )  # fmt: skip


def _prepare(
    target: Tensor,
    weight: Tensor | None,
    grad_output: Tensor | None,
    classes: int,
    options: Options,
    dtype: torch.dtype,
) -> Tensor | None:
    """Sum the weights for the mean by a launch of its own; None where every program can do it.

    That is, where rows are few and counted: a program's sum of weights depends on its warps. And
    short: a launch is little beside long ones, whose programs have no registers to spare.
    """
    from . import triton_kernels as kernels
    from . import triton_tiling as tilings

    rows = target.numel()
    few = rows <= kernels.TARGETS.value and classes <= _COUNTED_CLASSES
    if options.reduction != "mean" or (weight is None and few):
        return None
    share = max(-(-rows // kernels.PARTS.value), kernels.SHARE.value)
    programs = max(-(-rows // share), 1)
    parts = target.new_empty(programs, dtype=dtype)
    kernels.prepare_kernel[(programs,)](
        target, weight, grad_output, parts,
        rows, share, classes, options.ignore_index, tilings.ARITHMETIC[dtype], **tilings.SUMMING,
    )  # fmt: skip
    return parts


def _coefficients(options: Options, classes: int) -> tuple[str, tuple[float, ...]]:
    """The LC mode, the cheapest where it has no weight, and Terms as far as they are options."""
    margin, pc_weight, lc_weight, lc_cap, ce_weight = options.coefficients.tolist()
    if options.pc_mean:
        pc_weight /= max(classes - 1, 1)
    lc_mode = options.lc_mode if lc_weight else "hard"
    return lc_mode, (1.0 - margin, pc_weight, lc_weight, lc_cap, ce_weight)


def _length(parts: Tensor | None) -> int:
    return 0 if parts is None else parts.numel()


def _aligned(logits: Tensor) -> int:
    """Of how many logits both the addresses of rows and their length are multiples: 16 bytes' most.

    For gradients, which are contiguous, the same holds.
    """
    address = logits.data_ptr() // logits.element_size()
    return _common_factor(logits, address | logits.stride(0) | logits.shape[1])


def _common_factor(logits: Tensor, number: int) -> int:
    """The highest power of two in ``number``, at most the logits of one access."""
    number |= _ACCESS_BYTES // logits.element_size()
    return number & -number


def _resident_programs(tensor: Tensor, num_warps: int) -> int:
    """How many programs the device of a tensor has room for at once."""
    if not tensor.is_cuda:
        return _INTERPRETED_PROGRAMS
    multiprocessors = torch.cuda.get_device_properties(tensor.device).multi_processor_count
    return multiprocessors * (_WARPS_OF_A_MULTIPROCESSOR // num_warps)


def _current_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Launches go to the current device, on its current stream."""
    if not tensor.is_cuda or tensor.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(tensor.device)


def _interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
