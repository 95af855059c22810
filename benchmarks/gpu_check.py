"""Every backend against the oracle and the table of edges, then what a GPU asks for beyond that."""

from __future__ import annotations

from functools import partial

import torch

from .gpu_device import DEVICE_CHECKS
from .gpu_edges import EDGES, Check
from .gpu_jobs import Job, Outcome, run_side_by_side
from .gpu_oracle import CLASSES, check_width, sweep_plan
from .gpu_record import FAIL, PASS, Record, attempted
from .gpu_sanitizer import sanitizer_jobs
from .gpu_subjects import usable_backends

_FIRST = 2  # combinations of dtype and mode that every width gets before any gets the others
_SANITIZER_SECONDS = 150.0


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
    jobs: list[Job] = []
    for name in names:
        jobs += check_jobs(name, device, {**EDGES, **DEVICE_CHECKS})
    for name in names:
        jobs += sanitizer_jobs(name, _SANITIZER_SECONDS)
    for part in (slice(_FIRST), slice(_FIRST, None)):
        for name in names:
            jobs += sweep_jobs(name, device, part)
    run_side_by_side(record, jobs)


def check_jobs(backend: str, device: torch.device, checks: dict[str, Check]) -> list[Job]:
    return [
        Job(f"{backend}: {what}", partial(attempted, partial(check, backend, device), FAIL))
        for what, check in checks.items()
    ]


def sweep_jobs(
    backend: str, device: torch.device, part: slice, widths: tuple[int, ...] = CLASSES
) -> list[Job]:
    """Comparisons with the float64 oracle at every width, for this part of its dtypes and modes."""
    return [
        Job(f"{backend}: {k} classes against the oracle", partial(_sweep, backend, device, part, k))
        for k in widths
    ]


def _sweep(backend: str, device: torch.device, part: slice, classes: int) -> Outcome:
    plan = sweep_plan(classes)[part]
    outcome, reason = attempted(partial(check_width, classes, plan, backend, device), FAIL)
    if outcome != PASS:
        return outcome, reason
    return PASS, ", ".join(f"{str(dtype).removeprefix('torch.')} {mode}" for dtype, mode in plan)
