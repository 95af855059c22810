"""The CUDA C++ kernels for NVIDIA GPUs. The only file that touches their compiled module.

The module is there where nvcc was when pclc_fast was built. It needs no GPU to be imported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..options import Options
from ..tensors import check_targets, values_may_be_read
from . import ARITHMETIC, problem_arguments

try:
    import pclc_fast._cuda as _cuda

    _import_error = ""
except ImportError as error:  # built without nvcc
    _cuda = None
    _import_error = str(error).removesuffix(f" ({error.path})")  # results name no folders


# Compute capabilities of the GPUs in benchmarks/results.
_MEASURED = ((9, 0),)

F = TypeVar("F", bound=Callable[..., object])


def _constant(question: F) -> F:
    """Let Dynamo, which cannot look into compiled code, ask while it traces and keep the answer.

    As torch.compiler.assume_constant_result does, for which all of Dynamo is imported.
    """
    question._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return question


@_constant
def unavailable() -> str:
    """Why this backend cannot be used on this machine; empty where it can."""
    if _cuda is None:
        return (
            f"its compiled module did not import ({_import_error}); "
            "it is built where CMake finds nvcc 12.8 or newer (pip install . with PCLC_CUDA=ON)"
        )
    return _why_no_device()


def unsupported(input: Tensor) -> str:
    """Why this backend cannot take ``input``; empty where it can."""
    if input.device.type != "cuda":
        return f"it runs on CUDA tensors; got a tensor on {input.device}"
    if input.dim() and input.shape[1 if input.dim() > 1 else 0] > _cuda.MOST_CLASSES:
        return f"it takes rows of at most {_cuda.MOST_CLASSES} classes"
    return _why_not_on(input.device.index)


@_constant
def is_measured_on(device: int) -> bool:
    """Whether these kernels have been measured on such a GPU as the device of this index."""
    return _capability(device) in _MEASURED


@_constant
def _why_not_on(device: int) -> str:
    return _ask_about(device)


@functools.cache
def _why_no_device() -> str:
    if torch.version.hip is not None:
        return "it runs on NVIDIA GPUs; this PyTorch is built for AMD's"
    if not torch.cuda.is_available():
        return "it runs on NVIDIA GPUs, and PyTorch finds none"
    return str(_cuda.unavailable())


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _ask_about(device: int) -> str:
    return str(_cuda.unsupported(device))


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
    dtype, row_stats_width = ARITHMETIC[logits.dtype]
    device = logits.device
    shape = target.shape
    is_reduced = options.reduction != "none"
    loss = torch.empty(() if is_reduced else shape, dtype=dtype, device=device)
    outputs, addresses = [loss], [loss.data_ptr(), 0, 0, 0, 0, 0, 0]
    if save:
        row_stats = torch.empty((logits.shape[0], row_stats_width), dtype=dtype, device=device)
        addresses[1] = row_stats.data_ptr()
        outputs.append(row_stats)
    if with_grad:
        grad = torch.empty(logits.shape, dtype=logits.dtype, device=device)
        addresses[2] = grad.data_ptr()
        outputs.append(grad)
    if with_stats:
        dtypes = (dtype, dtype, torch.int64, torch.bool)
        stats = [torch.empty(shape, dtype=d, device=device) for d in dtypes]
        addresses[3:] = [statistic.data_ptr() for statistic in stats]
        outputs += stats
    workspace = None
    if is_reduced:
        workspace = torch.empty(_cuda.WORKSPACE_BYTES, dtype=torch.uint8, device=device)
    _cuda.forward_cuda(
        *problem_arguments(logits, target, weight, options),
        *addresses,
        0 if workspace is None else workspace.data_ptr(),
        *_place(device.index),
    )
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
    has_unit_grad: bool,
) -> None:
    """Write the gradient for ``grad_output`` from what ``forward`` saved.

    ``has_unit_grad``: ``grad`` holds the gradient for a grad_output of 1, and the device leaves it
    as it is where grad_output is 1.
    """
    if logits.numel() == 0:
        return
    upstream = grad_output.to(row_stats.dtype)
    stride = 0
    if options.reduction == "none":
        upstream, has_unit_grad = upstream.reshape(-1), False
        stride = upstream.stride(0)
    row_stats = row_stats.contiguous()
    _cuda.backward_cuda(
        *problem_arguments(logits, target, weight, options),
        row_stats.data_ptr(),
        upstream.data_ptr(),
        stride,
        has_unit_grad,
        grad.data_ptr(),
        *_place(logits.device.index),
    )


def _place(device: int) -> tuple[int, int]:
    """The device and its current stream."""
    return device, torch._C._cuda_getCurrentRawStream(device)
