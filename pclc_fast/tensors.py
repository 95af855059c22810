"""The checks of the tensors given to the loss."""

from __future__ import annotations

import os

import torch
from torch import Tensor
from torch._C import _functorch as functorch

LOGIT_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
TARGET_DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_tensors(input: object, target: object, weight: object) -> None:
    """Raise TypeError or ValueError unless the three fit together as F.cross_entropy's do."""
    if not isinstance(input, Tensor):
        raise TypeError(f"input must be a torch.Tensor of logits; got {type(input).__name__}")
    if not isinstance(target, Tensor):
        raise TypeError(
            f"target must be a torch.Tensor of class indices; got {type(target).__name__}"
        )
    if input.dtype not in LOGIT_DTYPES:
        raise TypeError(
            f"input must hold float16, bfloat16, float32 or float64 logits; got {input.dtype}"
        )
    if target.dtype not in TARGET_DTYPES:
        hint = " (class probabilities are not supported)" if target.is_floating_point() else ""
        raise TypeError(
            f"target must hold integer class indices (uint8 or int8 to int64); "
            f"got {target.dtype}{hint}"
        )
    if input.layout is not torch.strided or target.layout is not torch.strided:
        raise _layout_error(input, target)
    try:  # costs nothing, where asking every tensor whether it is nested would
        _check_shapes(input, target)
    except RuntimeError:  # a nested tensor of strided layout has no shape
        if input.is_nested or target.is_nested:
            raise _layout_error(input, target) from None
        raise
    if target.device != input.device:
        raise ValueError(
            f"input and target must be on one device; got {input.device} and {target.device}"
        )
    if weight is not None:
        _check_weight(weight, input)


def _layout_error(input: Tensor, target: Tensor) -> TypeError:
    return TypeError(
        f"input and target must be dense tensors; got {_layout(input)} and {_layout(target)}"
    )


def _layout(tensor: Tensor) -> str:
    return f"{'nested ' if tensor.is_nested else ''}{tensor.layout}"


def _check_shapes(input: Tensor, target: Tensor) -> None:
    if input.dim() == 0:
        raise ValueError(
            "input must have shape (K,), (N, K) or (N, K, d1, ...); got a tensor of no dimensions"
        )
    shape = input.shape
    expected = shape[:1] + shape[2:] if len(shape) > 2 else shape[:-1]
    if target.shape != expected:
        raise ValueError(
            f"target must have shape {tuple(expected)} for input of shape {tuple(shape)}; "
            f"got {tuple(target.shape)}"
        )


def _check_weight(weight: object, input: Tensor) -> None:
    classes = input.shape[1 if input.dim() > 1 else 0]
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight must be a torch.Tensor or None; got {type(weight).__name__}")
    if weight.dtype not in LOGIT_DTYPES:
        raise TypeError(
            f"weight must hold float16, bfloat16, float32 or float64 numbers; got {weight.dtype}"
        )
    if weight.layout is not torch.strided or weight.is_nested:
        raise TypeError(f"weight must be a dense tensor; got {_layout(weight)}")
    if weight.shape != (classes,):
        raise ValueError(
            f"weight must have shape ({classes},), one number a class; got {tuple(weight.shape)}"
        )
    if weight.device != input.device:
        raise ValueError(
            f"input and weight must be on one device; got {input.device} and {weight.device}"
        )
    if values_may_be_read(weight):
        _check_weight_values(weight, input.dtype)


def _check_weight_values(weight: Tensor, dtype: torch.dtype) -> None:
    narrowed = weight.dtype is torch.float64 and dtype is not torch.float64
    used = weight.float() if narrowed else weight  # a finite float64 may be infinite as float32
    if not bool(((used >= 0) & (used < torch.inf)).all()):
        raise ValueError(
            f"weight must be finite{' in float32' if narrowed else ''} and not negative; "
            f"got values from {weight.min().item()} to {weight.max().item()}"
        )


def values_may_be_read(tensor: Tensor) -> bool:
    """Whether looking at values on the host is possible and does not synchronise a device.

    PCLC_FAST_DEBUG=1 in the environment allows the synchronisation. Unread, and so unchecked, stay
    tensors that are being traced or compiled, those that torch.func.vmap maps over or functionalize
    wraps, and subclasses with a __torch_dispatch__ of their own.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:  # jit.trace
        return False
    if not tensor.is_cpu and (tensor.is_meta or os.environ.get("PCLC_FAST_DEBUG") != "1"):
        return False
    if torch._C._are_functorch_transforms_active():
        while functorch.is_gradtrackingtensor(tensor):  # as what is made under torch.func.grad
            tensor = functorch.get_unwrapped(tensor)
        if functorch.is_functorch_wrapped_tensor(tensor):
            return False
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:  # may have no memory
        return False
    return not torch._C._len_torch_dispatch_stack()  # a tracer, or fake tensors


def check_targets(target: Tensor, classes: int, ignore_index: int) -> None:
    """Raise IndexError for the first target that is neither a class nor ignore_index."""
    wide = target.reshape(-1).to(torch.int64)
    wrong = (wide != ignore_index) & ((wide < 0) | (wide >= classes))
    if bool(wrong.any()):
        raise target_error(target, int(wrong.nonzero()[0].item()), classes)


def target_error(target: Tensor, flat_position: int, classes: int) -> IndexError:
    """The error for the target at ``flat_position`` in a tensor of any shape."""
    value = int(target.reshape(-1)[flat_position].item())
    position: tuple[int, ...] = ()
    for size in reversed(target.shape):
        flat_position, index = divmod(flat_position, size)
        position = (index, *position)
    where = f" at position {position[0] if len(position) == 1 else position}" if position else ""
    return IndexError(f"target {value}{where} is out of range: expected 0 <= target < {classes}")
