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
    if candidates:
        every_install_has = _KERNELS[candidates[-1]]
        _warn_once(every_install_has.unavailable() or every_install_has.unsupported(input))
    return REFERENCE


def _candidates(input: Tensor) -> tuple[str, ...]:
    """The backends for the device of ``input``, the fastest first.

    The CUDA C++ kernels come first on the GPUs that they have been measured on.
    """
    if input.is_cpu:
        return ("native",)
    if input.device.type != "cuda":
        return ()
    return ("cuda", "triton") if cuda.is_measured_on(input.device.index) else ("triton",)


def kernel(backend: str) -> Kernel:
    """The module of a backend that ``choose`` returned."""
    return _KERNELS[backend]


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"pclc_fast runs its slower PyTorch reference: {reason}", RuntimeWarning, stacklevel=5
    )
