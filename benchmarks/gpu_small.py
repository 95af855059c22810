"""Call overhead: 256 rows against F.cross_entropy, call by call and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

from .forms import Loss
from .gpu_cells import Place, Times, announce, measure
from .gpu_record import Record
from .gpu_sizes import DIRECTIONS
from .gpu_subjects import (
    CROSS_ENTROPY,
    DTYPES,
    bind,
    make_logits,
    make_target,
    ours,
    usable_backends,
)
from .gpu_tables import SMALL_NOTES, small_tables
from .gpu_timing import Call, capture, host_seconds

ROWS = 256
CLASSES = (10, 100, 200, 1000)
_ROUNDS, _REPEATS = 50, 100


def run(record: Record, device: torch.device) -> None:
    record.notes, record.tables = SMALL_NOTES, small_tables
    names, reasons = usable_backends(device)
    for name, reason in reasons.items():
        record.not_run(f"backend {name}", reason)
    for dtype in ("float32", "bfloat16"):
        for classes in CLASSES:
            record.attempt(
                f"{ROWS} x {classes} {dtype}",
                partial(_measure_size, record, device, names, classes, dtype),
            )
            record.write()


def _measure_size(
    record: Record, device: torch.device, names: list[str], classes: int, dtype: str
) -> None:
    logits = make_logits(ROWS, classes, DTYPES[dtype], device).requires_grad_()
    target = make_target(ROWS, classes, device)
    functions: dict[str, Loss] = {name: ours(name) for name in names}
    functions[CROSS_ENTROPY] = F.cross_entropy
    for direction in DIRECTIONS:
        place = Place(ROWS, classes, dtype, direction)
        makers: dict[str, Callable[[], Call]] = {}
        for name, loss in functions.items():
            call = bind(loss, logits, target, direction)
            makers[name] = partial(_as_it_is, call)
            makers[f"{name} graph"] = partial(_Replay, call)
        measure(record, place, makers, dict.fromkeys(names, "backend"), clock=_clock)
        announce(record, place)


def _as_it_is(call: Call) -> Call:
    return call


class _Replay:
    """A call as a CUDA graph; it keeps alive what the graph writes."""

    def __init__(self, call: Call) -> None:
        self._graph, self._result = capture(call)

    def __call__(self) -> None:
        self._graph.replay()


def _clock(calls: dict[str, Call]) -> Times:
    return host_seconds(calls, _ROUNDS, _REPEATS)
