"""How a call is timed on a GPU: by the device's clock, by the host's, and as a CUDA graph."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]

_HEAD_START_CYCLES = 2_000_000  # about a millisecond, in which the host issues the whole call
_SECONDS = 0.5  # of measuring a group of calls, in 9 to 25 rounds
_WARM_UP = 3


def device_seconds(calls: dict[str, Call]) -> dict[str, list[float]]:
    """Return the seconds of each call by the device's clock, round by round, in turn.

    The device waits before each call until the host has issued it, so that launches cost nothing
    unless the call itself waits for the device. The data of the calls have to be well above L2,
    which then holds little that the next call reads first.
    """
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    once = sum(_device_seconds(call) for call in calls.values())
    rounds = min(max(int(_SECONDS / once), 9), 25)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    for _ in range(rounds):
        for name, call in order:
            times[name].append(_device_seconds(call))
        order.reverse()  # no call always follows the same other
    return times


def _device_seconds(call: Call) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(_HEAD_START_CYCLES)
    start.record()
    result = call()
    end.record()
    end.synchronize()
    del result  # freed outside the time
    return start.elapsed_time(end) / 1e3


def host_seconds(calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each call by the host's clock, ``repeats`` of them to a round.

    The device is waited for at the end of a round only, as in a training step.
    """
    for call in calls.values():
        for _ in range(repeats):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    gc.collect()
    for _ in range(rounds):
        for name, call in order:
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            torch.cuda.synchronize()
            times[name].append((time.perf_counter() - start) / repeats)
        order.reverse()
    return times


def capture(call: Call) -> tuple[torch.cuda.CUDAGraph, Any]:
    """Return the call as a CUDA graph, and what the call returned while it was recorded.

    Whatever a first call does, such as compiling, is done before, on a stream of its own, as a
    capture asks for.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def peak_bytes(call: Call) -> int:
    """Return how much memory the call takes, at its worst, beyond what is allocated before."""
    call()  # workspaces that stay are not the call's
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    del result
    return peak - before


def summary(times: list[float]) -> dict[str, float | int]:
    """Return the median and the spread of the times, in seconds."""
    lower, median, upper = statistics.quantiles(times, n=4, method="inclusive")
    values = {"median": median, "q1": lower, "q3": upper, "min": min(times), "max": max(times)}
    return {**{name: round(value, 9) for name, value in values.items()}, "rounds": len(times)}
