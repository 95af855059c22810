"""The autograd function of the loss and the two operators under it.

The operators know no autograd: ``pclc_fast::forward`` gives the loss and, where that is safe, the
gradient for a grad_output of 1 from the same pass; ``pclc_fast::backward`` writes the gradient for
any other grad_output from the logits and what forward saved of each row. Both gradients are the
same to the last bit.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from .backends import ARITHMETIC
from .dispatch import REFERENCE, kernel
from .options import Options
from .reference import LossStats, reference_loss
from .tensors import check_targets, values_may_be_read

_PLAIN_TYPES = (Tensor, Parameter)
# How the loss is evaluated: by its formula in plain PyTorch, by a kernel through its operator,
# where something may look on, or by a kernel without the dispatcher.
_Way = Literal["formula", "operator", "direct"]
# Set where grad_output is a batch: is_grads_batched, jacobian(vectorize=True).
_BATCHED_BACKWARD: Any = torch._C._parse_dispatch_key("VmapMode")
_library: Any = torch.library.Library("pclc_fast", "DEF")  # type: ignore[no-untyped-call]
_INPUT = (
    "Tensor logits, Tensor target, Tensor? weight, "
    "Tensor coefficients, int ignore_index, str reduction, str lc_mode, bool pc_mean"
)
_library.define(
    f"forward({_INPUT}, bool save, bool with_grad, bool with_stats, str backend) -> Tensor[]"
)
_library.define(
    f"backward(Tensor(a!) grad, Tensor grad_output, Tensor row_stats, {_INPUT}, "
    "bool has_unit_grad, str backend) -> ()"
)


def _forward(logits: Tensor, target: Tensor, weight: Tensor | None, *rest: Any) -> list[Tensor]:
    *options, save, with_grad, with_stats, backend = rest
    return kernel(backend).forward(
        *_in_memory(logits, target, weight),
        Options(*options),
        save=save,
        with_grad=with_grad,
        with_stats=with_stats,
    )


def _run_forward(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    *,
    direct: bool,
    save: bool,
    with_grad: bool,
    with_stats: bool,
    backend: str,
) -> list[Tensor]:
    """Call the kernel, through the operator where something may look on."""
    if direct:
        return kernel(backend).forward(
            logits,
            target,
            weight,
            options,
            save=save,
            with_grad=with_grad,
            with_stats=with_stats,
        )
    outputs: list[Tensor] = _forward_op(
        logits, target, weight, *options.operands(), save, with_grad, with_stats, backend
    )
    return outputs


def _forward_fake(logits: Tensor, target: Tensor, _: Tensor | None, *rest: Any) -> list[Tensor]:
    *options, save, with_grad, with_stats, _backend = rest
    dtype, row_stats_width = ARITHMETIC[logits.dtype]
    shape = target.shape
    loss_shape = shape if Options(*options).reduction == "none" else ()
    outputs = [logits.new_empty(loss_shape, dtype=dtype)]
    if save:
        outputs.append(logits.new_empty((logits.shape[0], row_stats_width), dtype=dtype))
    if with_grad:
        outputs.append(logits.new_empty(logits.shape))
    if with_stats:
        dtypes = (dtype, dtype, torch.int64, torch.bool)
        outputs += [logits.new_empty(shape, dtype=statistic) for statistic in dtypes]
    return outputs


def _backward(
    grad: Tensor,
    grad_output: Tensor,
    row_stats: Tensor,
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *rest: Any,
) -> None:
    *options, has_unit_grad, backend = rest
    kernel(backend).backward(
        grad,
        grad_output,
        row_stats,
        *_in_memory(logits, target, weight),
        Options(*options),
        has_unit_grad=has_unit_grad,
    )


def _in_memory(
    logits: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring to the strides that kernels rely on what did not come by ``_as_rows``.

    A direct call of the operator may have any; so has a zero tensor once it is materialised.
    """
    if logits.stride(1) != 1:
        logits = logits.contiguous()
    return logits, target.contiguous(), None if weight is None else weight.contiguous()


def _backward_fake(*_: object) -> None:
    """Return nothing: the gradient is written in place."""


for _device in ("CPU", "CUDA"):
    _library.impl("forward", _forward, _device)
    _library.impl("backward", _backward, _device)
torch.library.register_fake("pclc_fast::forward", _forward_fake, lib=_library)
torch.library.register_fake("pclc_fast::backward", _backward_fake, lib=_library)
_forward_op = torch.ops.pclc_fast.forward.default
_backward_op = torch.ops.pclc_fast.backward.default


class _PCLC(torch.autograd.Function):
    """The loss of rows of logits, and with it the statistics that were asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
        with_stats: bool,
        backend: str,
        direct: bool,
    ) -> tuple[Tensor, ...]:
        with_grad = direct and _gradient_is_safe_in_forward(logits, options)
        loss, row_stats, *rest = _run_forward(
            logits,
            target,
            weight,
            options,
            direct=direct,
            save=True,
            with_grad=with_grad,
            with_stats=with_stats,
            backend=backend,
        )
        # Not a saved tensor: autograd would refuse to unpack those once the caller, whose gradient
        # this becomes, has written into it.
        ctx.grad = rest.pop(0) if with_grad else None
        ctx.save_for_backward(logits, target, weight, row_stats)
        ctx.options, ctx.backend = options, backend
        ctx.set_materialize_grads(False)
        if rest:
            ctx.mark_non_differentiable(*rest)
        return (loss, *rest)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_output is None:
            return (None,) * 7
        if not torch.compiler.is_compiling():
            if torch.is_grad_enabled() or _transforms_are_active() or _is_batched_backward():
                return (_differentiable_gradient(ctx, grad_output), *(None,) * 6)
            # The buffer is given away once: from then on it is the caller's to write into.
            grad, ctx.grad = ctx.grad, None
            # On a GPU the kernel looks at grad_output: to look here would wait for the device.
            if grad is not None and grad.is_cpu and grad_output.item() == 1:
                return (grad, *(None,) * 6)
        else:
            grad = None
        logits, target, weight, row_stats = ctx.saved_tensors
        has_unit_grad = grad is not None
        if grad is None:
            grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        tensors = (grad, grad_output, row_stats, logits, target, weight)
        options, backend = ctx.options, ctx.backend
        if _is_plain_memory(grad_output, logits, target, weight):
            kernel(backend).backward(*tensors, options, has_unit_grad=has_unit_grad)
        else:
            _backward_op(*tensors, *options.operands(), has_unit_grad, backend)
        return (grad, *(None,) * 6)


def _is_plain_memory(*tensors: Tensor | None) -> bool:
    """Whether a kernel can be called without the dispatcher.

    That takes 4 us of a small call's forward, and 19 of its backward.

    Not in a graph that is being traced, and not for views that mean something else than the numbers
    in their memory.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return False
    for tensor in tensors:
        if tensor is not None and (tensor.is_neg() or tensor._is_zerotensor()):
            return False
    return True


def _gradient_is_safe_in_forward(logits: Tensor, options: Options) -> bool:
    """Whether the gradient for a grad_output of 1 is worth computing in forward.

    Not for float16, where it must be scaled before it is rounded, and not where rows have
    grad_outputs of their own.
    """
    return options.reduction != "none" and logits.dtype is not torch.float16


def _transforms_are_active() -> bool:
    """Whether derivatives are asked for that only the formula in plain PyTorch can give."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _is_batched_backward() -> bool:
    """Whether PyTorch's older vmap is at work, which is no transform of torch.func."""
    return torch._C._dispatch_tls_is_dispatch_key_included(_BATCHED_BACKWARD)


def _differentiable_gradient(ctx: Any, grad_output: Tensor) -> Tensor:
    """The gradient as an expression that can be differentiated again."""
    logits, target, weight, _ = ctx.saved_tensors
    with torch.enable_grad():
        loss, _ = reference_loss(logits, target.reshape(-1), weight, **ctx.options.keywords())
        upstream = grad_output.reshape(loss.shape)
        (grad,) = torch.autograd.grad(loss, logits, upstream, create_graph=True)
    return grad  # type: ignore[no-any-return, unused-ignore]


def loss_and_stats(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    options: Options,
    *,
    with_stats: bool,
    backend: str,
) -> tuple[Tensor, LossStats | None]:
    """Evaluate checked arguments on a backend that ``choose`` returned."""
    way = "formula" if backend == REFERENCE else _way_to_evaluate(input, target, weight)
    if way == "formula":
        if values_may_be_read(target):
            check_targets(target, input.shape[input.dim() > 1], options.ignore_index)
        return reference_loss(input, target, weight, **options.keywords())
    if torch.compiler.is_compiling():
        options = Options(*options.operands())  # without the numbers, which Dynamo would guard
    logits, target, weight = _as_rows(input, target, weight)
    direct = way == "direct"
    if input.requires_grad and torch.is_grad_enabled():
        loss, *stats = _PCLC.apply(logits, target, weight, options, with_stats, backend, direct)
    else:
        loss, *stats = _run_forward(
            logits,
            target,
            weight,
            options,
            direct=direct,
            save=False,
            with_grad=False,
            with_stats=with_stats,
            backend=backend,
        )
    return loss, LossStats(*stats) if with_stats else None


def _way_to_evaluate(input: Tensor, target: Tensor, weight: Tensor | None) -> _Way:
    """The most direct way that these tensors, and what is at work around them, allow.

    The formula where kernels cannot see the values, would not be seen or would lose derivatives:
    with functorch and forward-mode transforms, under torch.jit.trace, and for subclasses such as
    DTensor and FakeTensor, which may have no memory.
    """
    if torch.compiler.is_compiling():
        return "formula" if torch._C._are_functorch_transforms_active() else "operator"
    if type(input) not in _PLAIN_TYPES or type(target) not in _PLAIN_TYPES:
        return "formula"
    if weight is not None and type(weight) not in _PLAIN_TYPES:
        return "formula"
    if torch._C._get_tracing_state() is not None or _transforms_are_active():
        return "formula"
    return "direct" if _is_plain_memory(input, target, weight) else "operator"


def _as_rows(
    input: Tensor, target: Tensor, weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Bring input to [N, K] with unit stride in K, without a copy where its strides allow it."""
    if input.dim() == 2:
        logits = input
    elif input.dim() == 1:
        logits = input.unsqueeze(0)
    else:
        logits = input.movedim(1, -1).reshape(target.numel(), input.shape[1])
    if logits.stride()[1] != 1:  # takes half the time of stride(1)
        logits = logits.contiguous()
    if weight is not None:
        weight = weight.detach().to(ARITHMETIC[input.dtype][0]).contiguous()
    if target.dtype is not torch.int64:
        target = target.to(torch.int64)
    return logits, target.contiguous(), weight
