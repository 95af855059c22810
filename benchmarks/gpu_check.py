"""Every backend against the oracle and the table of edges, then what a GPU asks for beyond that."""

from __future__ import annotations

from functools import partial

import torch

from . import gpu_sanitizer
from .gpu_device import DEVICE_CHECKS
from .gpu_edges import EDGES, Check
from .gpu_oracle import CLASSES, check_width, sweep_plan
from .gpu_record import FAIL, Record
from .gpu_subjects import usable_backends

_FIRST = 2  # combinations of dtype and mode that every width gets before any gets the others
_SANITIZER_SECONDS = 100.0


def run(record: Record, device: torch.device) -> None:
    """Check every backend that runs on the device, what is most telling first.

    Compiling takes most of the time. A run that it cuts short gets further when it is repeated:
    Triton keeps what it has compiled.
    """
    names, reasons = usable_backends(device)
    for name, reason in reasons.items():
        record.not_run(f"backend {name}", reason)
    if not names:
        record.fail("backends", "none runs on this GPU")
    for name in names:
        run_checks(record, name, device, EDGES)
        run_checks(record, name, device, DEVICE_CHECKS)
        record.write()
    for name in names:
        sweep(record, name, device, slice(_FIRST))
    for name in names:
        gpu_sanitizer.check(record, name, _SANITIZER_SECONDS)
        record.write()
    for name in names:
        sweep(record, name, device, slice(_FIRST, None))


def run_checks(
    record: Record, backend: str, device: torch.device, checks: dict[str, Check]
) -> None:
    for what, check in checks.items():
        line = f"{backend}: {what}"
        if record.attempt(line, partial(check, backend, device), FAIL):
            record.passed(line)


def sweep(
    record: Record,
    backend: str,
    device: torch.device,
    part: slice,
    widths: tuple[int, ...] = CLASSES,
) -> None:
    """Compare with the float64 oracle at every width, for this part of its dtypes and modes."""
    for classes in widths:
        plan = sweep_plan(classes)[part]
        kinds = ", ".join(f"{str(dtype).removeprefix('torch.')} {mode}" for dtype, mode in plan)
        what = f"{backend}: {classes} classes against the oracle"
        if record.attempt(what, partial(check_width, classes, plan, backend, device), FAIL):
            record.passed(what, kinds)
    record.write()
