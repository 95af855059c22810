"""Measuring the calls of one shape together, and keeping what comes out as cells of the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from .gpu_record import Record
from .gpu_timing import Call, device_seconds, peak_bytes, summary

Times = dict[str, list[float]]
Clock = Callable[[dict[str, Call]], Times]


class Place(NamedTuple):
    """Where a measurement belongs."""

    rows: int
    classes: int
    dtype: str
    direction: str

    def __str__(self) -> str:
        return f"{self.rows} x {self.classes} {self.dtype} {self.direction}"


def measure(
    record: Record,
    place: Place,
    makers: dict[str, Callable[[], Call]],
    kinds: dict[str, str],
    clock: Clock = device_seconds,
    **about: Any,
) -> None:
    """Time the calls in turn, in one run, and add a cell for each.

    A call that cannot be made, or fails when it is tried, is a line of the record, and the others
    go on without it. ``kinds`` says which functions are a "backend" of ours or a "peer"; ``about``
    goes into every cell.
    """
    calls: dict[str, Call] = {}
    peaks: dict[str, int] = {}

    def try_one(name: str) -> None:
        call = makers[name]()
        peaks[name] = peak_bytes(call)
        calls[name] = call

    for name in makers:
        record.attempt(f"{name}, {place}", partial(try_one, name))
    times: Times = {}
    if not calls or not record.attempt(f"timing {place}", lambda: times.update(clock(calls))):
        return
    for name, seconds in times.items():
        cell = {**place._asdict(), "function": name, "kind": kinds.get(name, ""), **about}
        record.cells.append({**cell, "seconds": summary(seconds), "peak_bytes": peaks[name]})


def announce(record: Record, place: Place) -> None:
    """Say how far a run is."""
    free, total = torch.cuda.mem_get_info()
    print(
        f"{record.budget.spent():5.0f} s  measured {place}, {free / total:.0%} of memory free",
        flush=True,
    )
