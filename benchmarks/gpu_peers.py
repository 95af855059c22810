"""Other libraries' cross-entropy kernels beside ours, where they are installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .gpu_cells import Place, announce, measure
from .gpu_record import Record
from .gpu_sizes import BOTH, COMPILED_CLASSES
from .gpu_subjects import (
    CROSS_ENTROPY,
    bind,
    copy_call,
    make_large,
    ours,
    usable_backends,
)
from .gpu_tables import PEER_NOTES, peer_tables
from .gpu_timing import Call

CLASSES = (1024, 4096, 8192, 16384, 32768, 65536, 131072, 262144)
CE_ALONE = {"pc_weight": 0.0, "lc_weight": 0.0, "ce_weight": 1.0}
_CHECKED_ROWS = 64

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # the mean loss and its gradient


class Peer(NamedTuple):
    """A kernel of another library."""

    module: str
    make: Callable[[Any], Step]  # from the imported module
    compiles: bool  # a kernel for every K, many seconds each: at four sizes only
    in_place: bool = False  # its gradient overwrites the logits
    per_row: bool = False  # its gradient is that of the sum, not of the mean


def _with_autograd(loss: Callable[[Tensor, Tensor], Tensor]) -> Step:
    def step(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        value = loss(logits, target)
        return value.detach(), torch.autograd.grad(value, logits)[0]

    return step


def _liger(module: Any) -> Step:
    return _with_autograd(module.liger_cross_entropy)


def _quack(module: Any) -> Step:
    return _with_autograd(lambda x, y: module.cross_entropy(x, y, reduction="mean"))


def _quack_fused(module: Any) -> Step:
    """Its forward with gradient: for a grad_output of 1 in every row, without autograd."""

    @torch.no_grad()
    def step(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss, grad = module.cross_entropy_fwd(logits.detach(), target, return_dx=True)
        return loss.mean(), grad

    return step


def _flash_attention(module: Any) -> Step:
    return _with_autograd(lambda x, y: module.cross_entropy_loss(x, y)[0].mean())


def _apex(module: Any) -> Step:
    """Its label that costs nothing is a class, 0 unless it is given another."""
    function = module.SoftmaxCrossEntropyLoss
    return _with_autograd(lambda x, y: function.apply(x, y, 0.0, -100, True).mean())


PEERS = {
    "Liger, in-place": Peer("liger_kernel.transformers.functional", _liger, False, in_place=True),
    "quack": Peer("quack.cross_entropy", _quack, True),
    "quack fused": Peer("quack.cross_entropy", _quack_fused, True, per_row=True),
    "flash-attn": Peer("flash_attn.ops.triton.cross_entropy", _flash_attention, False),
    "apex": Peer("apex.contrib.xentropy", _apex, False),
}


def run(record: Record, device: torch.device) -> None:
    record.notes, record.tables = PEER_NOTES, peer_tables
    names, reasons = usable_backends(device)
    for name, reason in reasons.items():
        record.not_run(f"backend {name}", reason)
    steps = importable(record)
    record.environment["peers"] = ", ".join(steps) or "none"
    for classes in (*COMPILED_CLASSES, *(k for k in CLASSES if k not in COMPILED_CLASSES)):
        record.attempt(
            f"{classes} classes",
            partial(_measure_size, record, device, names, steps, classes),
        )
        record.write()


def importable(record: Record) -> dict[str, Step]:
    """Return the peers that import; say of the others why they do not."""
    steps: dict[str, Step] = {}
    for name, peer in PEERS.items():
        try:
            steps[name] = peer.make(importlib.import_module(peer.module))
        except Exception as error:  # a broken installation raises anything
            record.not_run(f"peer {name}", f"{type(error).__name__}: {error}")
    return steps


def check_cross_entropy(step: Step, per_row: bool, logits: Tensor, target: Tensor) -> None:
    """Raise where a peer's loss or gradient on these rows is not that of the cross-entropy.

    To 2 %, which tells a wrong formula from bfloat16: the time of a wrong one would mean nothing.
    """
    exact = logits.detach().double().requires_grad_()
    expected = F.cross_entropy(exact, target)
    (expected_grad,) = torch.autograd.grad(expected, exact)
    loss, grad = step(logits.detach().clone().requires_grad_(), target)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=0.02, atol=0.0)
    if per_row:
        expected_grad = expected_grad * len(logits)
    scale = expected_grad.abs().max()
    torch.testing.assert_close(grad.double() / scale, expected_grad / scale, rtol=0.0, atol=0.02)


def _measure_size(
    record: Record,
    device: torch.device,
    names: list[str],
    steps: dict[str, Step],
    classes: int,
) -> None:
    logits, target = make_large(classes, torch.bfloat16, device)
    place = Place(len(logits), classes, "bfloat16", BOTH)
    kinds = {**dict.fromkeys(names, "backend"), **dict.fromkeys([CROSS_ENTROPY, *steps], "peer")}

    def peer_call(name: str) -> Call:
        some = slice(_CHECKED_ROWS)
        check_cross_entropy(steps[name], PEERS[name].per_row, logits.detach()[some], target[some])
        own = logits.detach().clone().requires_grad_() if PEERS[name].in_place else logits
        return partial(steps[name], own, target)

    functions = {name: ours(name) for name in names}
    functions |= {f"{name} CE": ours(name, **CE_ALONE) for name in names}
    functions[CROSS_ENTROPY] = F.cross_entropy
    makers: dict[str, Callable[[], Call]] = {
        name: partial(bind, loss, logits, target, BOTH) for name, loss in functions.items()
    }
    makers["copy"] = partial(copy_call, logits)
    for name in steps:
        if classes in COMPILED_CLASSES or not PEERS[name].compiles:
            makers[name] = partial(peer_call, name)
    measure(record, place, makers, kinds)
    announce(record, place)
