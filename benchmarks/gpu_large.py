"""Bandwidth: logits well above L2, against a copy, plain PyTorch and F.cross_entropy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from .forms import FORMS, Loss
from .gpu_cells import Place, announce, measure
from .gpu_record import Record
from .gpu_sizes import BOTH, CLASSES, COMPILED_CLASSES, DIRECTIONS
from .gpu_subjects import (
    CROSS_ENTROPY,
    DTYPES,
    bind,
    copy_call,
    eager_functions,
    make_large,
    make_mixed_,
    ours,
    tripled,
    usable_backends,
)
from .gpu_tables import LARGE_NOTES, large_tables
from .gpu_timing import Call

Makers = dict[str, Callable[[], Call]]


def run(record: Record, device: torch.device) -> None:
    record.notes, record.tables = LARGE_NOTES, large_tables
    names, reasons = usable_backends(device)
    for name, reason in reasons.items():
        record.not_run(f"backend {name}", reason)
    # In the order of what is lost when the time is up.
    for dtype in DTYPES:
        for classes in CLASSES:
            record.attempt(
                f"{classes} classes, {dtype}",
                partial(_measure_size, record, device, names, classes, dtype),
            )
            record.write()
    for classes in COMPILED_CLASSES:
        record.attempt(
            f"{classes} classes, bfloat16, compiled",
            partial(_measure_compiled, record, device, names, classes),
        )
        record.write()


def _measure_size(
    record: Record, device: torch.device, names: list[str], classes: int, dtype: str
) -> None:
    """Measure everything but what has to be compiled; float16 with forward + backward alone."""
    logits, target = make_large(classes, DTYPES[dtype], device)
    kinds = dict.fromkeys(names, "backend")
    for direction in (BOTH,) if dtype == "float16" else DIRECTIONS:
        place = Place(len(logits), classes, dtype, direction)
        functions: dict[str, Loss] = {name: ours(name) for name in names}
        if direction == BOTH:
            functions |= {f"{name} x3": tripled(ours(name)) for name in names}
        if dtype == "float16":
            functions[CROSS_ENTROPY] = F.cross_entropy
        else:
            functions |= eager_functions()
        makers = _bound(functions, logits, target, direction)
        makers["copy"] = partial(copy_call, logits)
        measure(record, place, makers, kinds)
        announce(record, place)
    with torch.no_grad():
        make_mixed_(logits, target)
    place = Place(len(logits), classes, dtype, BOTH)
    mixed = _bound({f"{name} mixed": ours(name) for name in names}, logits, target, BOTH)
    measure(record, place, mixed, {})


def _bound(functions: dict[str, Loss], logits: Tensor, target: Tensor, direction: str) -> Makers:
    return {
        name: partial(bind, loss, logits, target, direction) for name, loss in functions.items()
    }


def _measure_compiled(record: Record, device: torch.device, names: list[str], classes: int) -> None:
    """Measure torch.compile of every plain form, for the fastest in eager mode need not be it."""
    logits, target = make_large(classes, torch.bfloat16, device)
    torch._dynamo.reset()  # the graphs of other sizes count towards its recompile limit
    place = Place(len(logits), classes, "bfloat16", BOTH)
    plain = {**FORMS, CROSS_ENTROPY: F.cross_entropy}

    def compiled(loss: Loss) -> Call:
        function = torch.compile(loss, dynamic=False)
        with torch.no_grad():
            expected = loss(logits.detach(), target)
        # The time of a wrong value would mean nothing. Eager mode rounds every step to bfloat16.
        torch.testing.assert_close(
            function(logits, target).detach(), expected, rtol=0.02, atol=0.0, check_dtype=False
        )
        return bind(function, logits, target, BOTH)

    makers: Makers = {f"compiled {name}": partial(compiled, loss) for name, loss in plain.items()}
    makers |= _bound({name: ours(name) for name in names}, logits, target, BOTH)
    makers["copy"] = partial(copy_call, logits)
    measure(record, place, makers, dict.fromkeys(names, "backend"), compiled=True)
    announce(record, place)
