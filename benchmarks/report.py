"""The tables of ratios that the benchmarks print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .forms import FORMS
from .harness import (
    BOTH,
    COPY,
    FORWARD,
    INTERLEAVED_ROUNDS,
    SHAPES,
    Ratio,
    Results,
    Shape,
    Step,
    ratio,
)
from .memory import formula_bytes

Value = Ratio | float | str


class Column(NamedTuple):
    name: str
    reach: str  # the target
    value: Callable[[Results, Shape, str], Value]


def _over_ours(function: str, dtype: str = "float32") -> Callable[[Results, Shape, str], Value]:
    """The time of ``function`` divided by ours."""

    def value(results: Results, shape: Shape, direction: str) -> Value:
        step = Step(direction, function, dtype=dtype)
        return results.ratio(shape, step, step._replace(function="ours"))

    return value


def _over_all_active(
    case: str = "all", dtype: str = "float32"
) -> Callable[[Results, Shape, str], Value]:
    """Our time on a case or in a dtype divided by that on all-active float32 rows."""

    def value(results: Results, shape: Shape, direction: str) -> Value:
        return results.ratio(shape, Step(direction, "ours", case, dtype), Step(direction, "ours"))

    return value


def _eager_over_ours(results: Results, shape: Shape, direction: str) -> Value:
    fastest = Step(direction, results.fastest_form(shape, direction))
    return results.ratio(shape, fastest, Step(direction, "ours"))


def _ours_over_copy(results: Results, shape: Shape, direction: str) -> Value:
    return results.ratio(shape, Step(direction, "ours"), COPY)


def _microseconds(results: Results, shape: Shape, direction: str) -> Value:
    return 1e6 * results.median(shape, Step(direction, "ours"))


def _gigabytes(results: Results, shape: Shape, direction: str) -> Value:
    """The bytes formula: the logits are read once; forward + backward writes as many."""
    traffic = 4 * shape[0] * shape[1] * (2 if direction == BOTH else 1)
    return traffic / results.median(shape, Step(direction, "ours")) / 1e9


def _copy_gigabytes(results: Results, shape: Shape, _: str) -> Value:
    return 8 * shape[0] * shape[1] / results.median(shape, COPY) / 1e9


def _fastest_form(results: Results, shape: Shape, direction: str) -> Value:
    return results.fastest_form(shape, direction)


COLUMNS = (
    Column("ours us", "", _microseconds),
    Column("eager/ours", ">= 8", _eager_over_ours),
    Column("form", "", _fastest_form),
    Column("comp/ours", ">= 5", _over_ours("compile")),
    Column("CE/ours", ">= 2", _over_ours("F.cross_entropy")),
    Column("ours/copy", "<= 2.2", _ours_over_copy),
    Column("few/all", "<= 1.3", _over_all_active("few")),
    Column("many/all", "<= 1.3", _over_all_active("many")),
    Column("sat/all", "<= 1.3", _over_all_active("saturated")),
    Column("bf16/f32", "<=1, 1.6", _over_all_active(dtype="bfloat16")),
    Column("CE/ours 16", "", _over_ours("F.cross_entropy", "bfloat16")),
    Column("GB/s", "", _gigabytes),
    Column("copy's", "", _copy_gigabytes),
)
NOTES = f"""\
2 threads, mean reduction, float32 unless it says bf16. A ratio is of medians over two identical
runs; +- is how far the two differ. eager: the fastest plain PyTorch form of {", ".join(FORMS)}
(named beside it); comp: torch.compile of that form; CE: F.cross_entropy; CE/ours 16: both in bf16;
copy: out.copy_(logits) into a warm buffer. few, many, sat / all: three, about half, none of the
false classes active against all of them. GB/s: N * K * 4 bytes, read once and, for forward +
backward, written once, over our time; to its right the copy's. The second line is what to reach:
eager, comp and CE where N * K >= 50000; copy where K >= 32000; bf16 1 where K >= 32000, else 1.6.
* after a shape: a copy's median was above 1.3 times its minimum, so something else was running
and the row does not count. Memory is of a fresh process, in pages of 4 KiB; the formula: one
gradient, 32 bytes a row, and a float32 row a thread."""


def times_table(results: Results, direction: str) -> list[list[str]]:
    """Return the header, what to reach, and a row for every shape, as text."""
    rows = [["N x K", *(column.name for column in COLUMNS)]]
    if direction == BOTH:
        rows.append(["reach", *(column.reach for column in COLUMNS)])
    for shape in results.complete_shapes():
        values = (column.value(results, shape, direction) for column in COLUMNS)
        mark = "*" if results.disturbed(shape) else ""
        rows.append([_name(shape) + mark, *map(_text, values)])
    return rows


def memory_table(results: Results) -> list[list[str]]:
    """Return the peak bytes beyond the logits of forward + backward, beside the formula."""
    rows = [["N x K", "ours", "formula", "ours bf16", "formula", "CE", "eager"]]
    for shape in results.complete_shapes():
        peaks = results.memory.get(shape)
        if not peaks:  # not measured, or the system does not say
            continue
        sizes = (
            peaks["ours"],
            formula_bytes(shape, 4),
            peaks["ours bfloat16"],
            formula_bytes(shape, 2),
            peaks["F.cross_entropy"],
            peaks[results.fastest_form(shape, BOTH)],
        )
        rows.append([_name(shape), *(f"{size / 1024:.0f}" for size in sizes)])
    return rows


def interleaved_line(results: Results) -> str:
    """Return the comparison whose difference is smaller than what a machine drifts by."""
    value = ratio(results.interleaved["ours"], results.interleaved["F.cross_entropy"])
    return (
        f"{_name(SHAPES[0])}, forward + backward, median of {INTERLEAVED_ROUNDS} interleaved "
        f"rounds: ours / F.cross_entropy {_text(value)}; reach <= 1.03"
    )


def sections(results: Results) -> list[tuple[str, list[list[str]]]]:
    """Return the titles and the tables of a complete run."""
    return [
        (BOTH, times_table(results, BOTH)),
        (f"{FORWARD} without gradients", times_table(results, FORWARD)),
        (f"peak memory beyond the logits, {BOTH}, KiB", memory_table(results)),
    ]


def plain(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the columns to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---:|" * len(rows[0]), *lines[1:]]


def _name(shape: Shape) -> str:
    return f"{shape[0]} x {shape[1]}"


def _text(value: Value) -> str:
    if isinstance(value, Ratio):
        spread = f"+-{100 * value.spread:.0f}%" if value.spread < 1 else ">100%"
        return f"{value.value:.2f} {spread}"
    return value if isinstance(value, str) else f"{value:.1f}"
