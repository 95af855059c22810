"""The compiled C++ kernels for the CPU. The only file that touches their module."""

from __future__ import annotations

import torch
from torch import Tensor

from ..options import Options
from ..tensors import target_error
from . import ARITHMETIC, problem_arguments

try:
    import pclc_fast._C as _C

    _import_error = ""
except ImportError as error:  # an installation without a compiler still has the reference
    _C = None
    _import_error = str(error)


def unavailable() -> str:
    """Why this backend cannot be used on this machine; empty where it can."""
    if _C is not None:
        return ""
    return (
        f"the compiled module did not import ({_import_error}); a checkout needs pip install -e ."
    )


def unsupported(input: Tensor) -> str:
    """Why this backend cannot take ``input``; empty where it can."""
    if not input.is_cpu:
        return f"it runs on CPU tensors; got a tensor on {input.device}"
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
    ``with_stats``: prob_gap, logit_gap, runner_up, correct.
    """
    dtype, row_stats_width = ARITHMETIC[logits.dtype]
    shape = target.shape
    # The large one first: it then takes the memory that the last step's gradient left, whole. A
    # small one before it would be cut from there, and this one would go to pages not yet mapped.
    grad = torch.empty_like(logits, memory_format=torch.contiguous_format) if with_grad else None
    # Not torch.empty, which a default device would send elsewhere. Given the strides too, PyTorch
    # takes 0.9 us instead of 1.4.
    loss = (
        logits.new_empty(shape, dtype=dtype)
        if options.reduction == "none"
        else logits.new_empty_strided((), (), dtype=dtype)
    )
    outputs = [loss]
    addresses = [loss.data_ptr(), 0, 0, 0, 0, 0, 0]
    if save:
        row_stats = logits.new_empty_strided(
            (logits.shape[0], row_stats_width), (row_stats_width, 1), dtype=dtype
        )
        addresses[1] = row_stats.data_ptr()
        outputs.append(row_stats)
    if grad is not None:
        addresses[2] = grad.data_ptr()
        outputs.append(grad)
    if with_stats:
        stats = [logits.new_empty(shape, dtype=d) for d in (dtype, dtype, torch.int64, torch.bool)]
        addresses[3:] = [statistic.data_ptr() for statistic in stats]
        outputs += stats
    bad_target = _C.forward_cpu(
        *problem_arguments(logits, target, weight, options), *addresses, torch.get_num_threads()
    )
    if bad_target >= 0:
        raise target_error(target, bad_target, logits.shape[1])
    return outputs


def backward(
    grad: Tensor,  # [N, K], contiguous: written
    grad_output: Tensor,  # [], or the shape of target
    row_stats: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    *,
    has_unit_grad: bool,  # noqa: ARG001
) -> None:
    """Write the gradient for ``grad_output`` from what ``forward`` saved.

    ``has_unit_grad``: ``grad`` holds the gradient for a grad_output of 1, so that nothing need be
    written where it is 1. On a CPU the host has looked already.
    """
    upstream = grad_output.to(row_stats.dtype)
    stride = 0
    if options.reduction == "none":
        upstream = upstream.reshape(-1)
        stride = upstream.stride(0)
    bad_target = _C.backward_cpu(
        *problem_arguments(logits, target, weight, options),
        row_stats.data_ptr(),
        upstream.data_ptr(),
        stride,
        grad.data_ptr(),
        torch.get_num_threads(),
    )
    if bad_target >= 0:
        raise target_error(target, bad_target, logits.shape[1])
