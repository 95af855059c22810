"""Which backend runs where: one predicate for the automatic and for the explicit choice."""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple, Protocol

from torch import Tensor

from .backends import cuda, native, triton
from .options import Options

REFERENCE = "reference"


class Kernel(Protocol):
    """What a module under ``backends`` offers; ``backends/native.py`` documents the arguments."""

    def unavailable(self) -> str: ...
    def unsupported(self, input: Tensor) -> str: ...
    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
        *,
        save: bool,
        with_grad: bool,
        with_stats: bool,
    ) -> list[Tensor]: ...
    def backward(
        self,
        grad: Tensor,
        grad_output: Tensor,
        row_stats: Tensor,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None,
        options: Options,
        *,
        has_unit_grad: bool,
    ) -> None: ...


_KERNELS: dict[str, Kernel] = {"native": native, "triton": triton, "cuda": cuda}
_IN_EVERY_INSTALL = {"native", "triton"}
_BOUND_BY_LAUNCHES = 2**24  # logits: fewer take a GPU less time than the host


class BackendStatus(NamedTuple):
    """Whether a backend can be used on this machine, and why not where it cannot."""

    usable: bool
    reason: str


def backends() -> dict[str, BackendStatus]:
    """Return every backend by the name that ``pc_lc_loss(..., backend=name)`` takes.

    >>> from pclc_fast import backends
    >>> backends()["reference"]
    BackendStatus(usable=True, reason='')
    """
    status = {name: kernel.unavailable() for name, kernel in _KERNELS.items()}
    status[REFERENCE] = ""
    return {name: BackendStatus(not reason, reason) for name, reason in status.items()}


def check_name(backend: object) -> None:
    """Raise unless ``backend`` is the name of one, usable here or not, or None."""
    names = (*_KERNELS, REFERENCE)
    if backend is not None and backend not in names:
        raise ValueError(f"backend must be one of {names} or None; got {backend!r}")


def can_run(backend: str, input: Tensor, *, raise_error: bool = False) -> bool:
    """Whether a backend, by its name, takes ``input``; with ``raise_error``, say why it cannot."""
    if backend == REFERENCE:
        return True
    kernel = _KERNELS[backend]
    reason = kernel.unavailable() or kernel.unsupported(input)
    if reason and raise_error:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}")
    return not reason


def choose(input: Tensor, backend: str | None) -> str:
    """Return the backend that was asked for, or the fastest one for ``input``."""
    if backend is not None:
        check_name(backend)
        can_run(backend, input, raise_error=True)
        return backend
    candidates = _candidates(input)
    for name in candidates:
        if can_run(name, input):
            return name
    for name in set(candidates) & _IN_EVERY_INSTALL:
        _warn_once(_KERNELS[name].unavailable() or _KERNELS[name].unsupported(input))
    return REFERENCE


def _candidates(input: Tensor) -> tuple[str, ...]:
    """The backends for the device of ``input``, the fastest first."""
    if input.is_cpu:
        return ("native",)
    if input.device.type != "cuda":
        return ()
    if not cuda.is_measured_on(input.device.index):
        return ("triton",)
    return ("cuda", "triton") if _cuda_is_faster(input) else ("triton", "cuda")


def _cuda_is_faster(input: Tensor) -> bool:
    """Whether the CUDA C++ kernels are faster than Triton's, as benchmarks/results/gpu-* have it.

    They take less of the host's time, and of the device's where rows are long.
    """
    classes = input.shape[input.dim() > 1] if input.dim() else 0
    longest_of_triton = 2048 if input.element_size() == 2 else 16384
    return input.numel() < _BOUND_BY_LAUNCHES or classes > longest_of_triton


def kernel(backend: str) -> Kernel:
    """The module of a backend that ``choose`` returned."""
    return _KERNELS[backend]


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"pclc_fast runs its slower PyTorch reference: {reason}", RuntimeWarning, stacklevel=5
    )
