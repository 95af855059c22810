"""How a function is timed, and what is kept of its times."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .data import CASES
from .forms import FORMS

Call = Callable[[], None]
Shape = tuple[int, int]

# 10 classes: call overhead. 100 and 200: CIFAR-100, Tiny ImageNet. 32: many short rows, as pixels
# are. 1000: ImageNet, in cache and out of it. 32000, 128256, 262144: vocabularies; fewer rows keep
# the logits at about 8 million.
SHAPES: tuple[Shape, ...] = (
    (256, 10),
    (256, 100),
    (256, 200),
    (16384, 32),
    (1024, 1000),
    (4096, 1000),
    (256, 32000),
    (64, 128256),
    (16, 262144),
)
BOTH, FORWARD = "forward + backward", "forward"
THREADS = 2
RUNS = (1, 2)
INTERLEAVED_ROUNDS = 50
_SECONDS = 0.4  # of measuring, in rounds of a millisecond or one call, 10 to 50 of them


class Step(NamedTuple):
    """What is timed for a shape."""

    direction: str
    function: str  # "ours", "F.cross_entropy", "copy", "compile" or the name of a plain form
    case: str = "all"
    dtype: str = "float32"


Times = dict[int, list[float]]  # the seconds of a call, round by round, of the identical runs


COPY = Step(BOTH, "copy")


def _steps() -> tuple[Step, ...]:
    """Return the steps in order: the forms come before "compile", which takes the fastest."""
    steps = [COPY]
    for direction in (BOTH, FORWARD):
        steps += [Step(direction, name) for name in (*FORMS, "compile", "F.cross_entropy")]
        steps += [Step(direction, "ours", case) for case in CASES]
        steps += [Step(direction, name, dtype="bfloat16") for name in ("ours", "F.cross_entropy")]
    return tuple(steps)


STEPS = _steps()


class Ratio(NamedTuple):
    """A ratio of medians over both runs, and by how much the runs differ, relative to it."""

    value: float
    spread: float


class Results:
    """All that was measured."""

    def __init__(self) -> None:
        self.times: dict[tuple[Shape, Step], Times] = {}
        self.compiled_form: dict[tuple[Shape, str], str] = {}
        self.interleaved: dict[str, Times] = {}
        self.memory: dict[Shape, dict[str, int]] = {}  # peak bytes beyond the logits

    def complete_shapes(self) -> list[Shape]:
        """Return the shapes that were timed in full."""
        return [
            shape
            for shape in SHAPES
            if all(len(self.times.get((shape, step), ())) == len(RUNS) for step in STEPS)
        ]

    def is_complete(self) -> bool:
        shapes = list(SHAPES)
        return (
            self.complete_shapes() == shapes
            and list(self.memory) == shapes
            and bool(self.interleaved)
        )

    def median(self, shape: Shape, step: Step) -> float:
        return _pooled_median(self.times[shape, step])

    def ratio(self, shape: Shape, numerator: Step, denominator: Step) -> Ratio:
        return ratio(self.times[shape, numerator], self.times[shape, denominator])

    def fastest_form(self, shape: Shape, direction: str) -> str:
        """Return which of the plain forms has the smallest median."""
        return min(FORMS, key=lambda form: self.median(shape, Step(direction, form)))

    def disturbed(self, shape: Shape) -> bool:
        """Whether something else was running: if not, a copy takes equally long each time."""
        runs = self.times[shape, COPY].values()
        return any(statistics.median(times) > 1.3 * min(times) for times in runs)


def ratio(numerator: Times, denominator: Times) -> Ratio:
    value = _pooled_median(numerator) / _pooled_median(denominator)
    first, second = (
        statistics.median(numerator[run]) / statistics.median(denominator[run]) for run in RUNS
    )
    return Ratio(value, abs(first - second) / value)


def _pooled_median(runs: Times) -> float:
    return statistics.median(t for times in runs.values() for t in times)


def warm_up(call: Call) -> float:
    """Call until the allocator and the caches are steady; return the seconds of a late call.

    Fresh pages cost more than the arithmetic, so it takes 20 calls or half a second.
    """
    times: list[float] = []
    while len(times) < 20 and (len(times) < 3 or sum(times) < 0.5):
        times.append(_seconds(call))
    return statistics.median(times[len(times) // 2 :])


def measure(benchmark: Any, step: Call, clear: Call) -> list[float]:
    """Time ``step`` by pytest-benchmark, ``clear`` before each and outside the time.

    Short steps are timed many at a time, with ``clear``, which costs them nothing, inside.
    """

    def cleared_step() -> None:
        clear()
        step()

    seconds = warm_up(cleared_step)
    calls = math.ceil(1e-3 / seconds)
    rounds = min(max(int(_SECONDS / (calls * seconds)), 10), 50)
    if calls == 1:
        benchmark.pedantic(step, setup=clear, rounds=rounds)
    else:
        benchmark.pedantic(cleared_step, rounds=rounds, iterations=calls)
    return list(benchmark.stats.stats.data)


def interleave(calls: dict[str, Call], repeats: int = 100) -> dict[str, list[float]]:
    """Time the calls in turn, ``repeats`` of one at a time, so that both meet the same machine."""
    for call in calls.values():
        warm_up(call)
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls.items())
    for _ in range(INTERLEAVED_ROUNDS):
        for name, call in order:
            times[name].append(_seconds(call, repeats) / repeats)
        order.reverse()  # neither always follows the other
    return times


def _seconds(call: Call, repeats: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start
