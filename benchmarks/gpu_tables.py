"""The tables of the GPU benchmark, made from the cells of a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .gpu_record import Table
from .gpu_sizes import BOTH, BYTES_FORMULA, DIRECTIONS, traffic_bytes
from .gpu_subjects import CROSS_ENTROPY, DTYPES

Cell = dict[str, Any]

LARGE_NOTES = f"""\
Logits of at least 512 MiB and 4 times L2; medians of 9 to 25 rounds in which the calls take turns,
by the device's clock, with launches hidden. Bytes:
{BYTES_FORMULA}.
copy: out.copy_(logits) in the same run, in GB/s. A backend's name: its bandwidth by these bytes
over the copy's (+-: the quartiles, relative to the median). fastest: the backend of the columns to
its right, which give the time of another function over its time: eager, the fastest plain PyTorch
form (named beside it); comp, torch.compile of whichever form gains most from it; CE,
F.cross_entropy; comp CE, torch.compile of that. x3: time where grad_output is 3 over where it is
1; mixed: time where three false classes are active in every row, over where all are. peak: memory
beyond the logits over their size. Plain PyTorch computes in the dtype of the logits."""
SMALL_NOTES = """\
256 rows; microseconds of a call, medians of interleaved rounds. eager: by the host's clock over
many calls, the device waited for at the end of a round; graph: one replay of it as a CUDA graph.
CE/ours: the time of F.cross_entropy over that of the fastest of our backends, named before it."""
PEER_NOTES = f"""\
Cross-entropy kernels of other libraries, forward + backward, bfloat16, mean reduction; ours is
PC-LC with the paper's defaults, "ours CE" its cross-entropy term alone. Bytes, for every function,
whatever it moves: {BYTES_FORMULA}.
The numbers are times over ours; of copy: our bandwidth over a copy's in the same run. In-place: the
library writes its gradient into the logits."""


def large_tables(cells: list[Cell]) -> list[Table]:
    """Return a table for every dtype and direction that was measured, and one of the compiled."""
    tables = []
    for dtype in DTYPES:
        for direction in reversed(DIRECTIONS):
            found = [c for c in cells if (c["dtype"], c["direction"]) == (dtype, direction)]
            if found:
                tables.append((f"{dtype}, {direction}", _large_table(found)))
    return tables


def _large_table(cells: list[Cell]) -> list[list[str]]:
    names = backends_of(cells)
    header = ["N x K", "copy", *names, "fastest", "eager", "form", "comp", "CE", "comp CE"]
    rows = [[*header, "x3", "mixed", "peak"]]
    for (n, k), shape in _by_shape(cells).items():
        plain = {c["function"]: c for c in shape if not c.get("compiled")}
        compiled = {c["function"]: c for c in shape if c.get("compiled")}
        row = [f"{n} x {k}", _copy_rate(plain)]
        row += [_of_copy(plain, name) for name in names]
        best = _fastest(plain, names)
        form = _fastest(plain, [name for name in plain if name.startswith("eager ")])
        comp_names = [name for name in compiled if name.startswith("compiled ")]
        comp = _fastest(compiled, [name for name in comp_names if "cross_entropy" not in name])
        row += [best or "-", _ratio(plain, form, best), form.removeprefix("eager ") or "-"]
        row += [_ratio(compiled, comp, best), _ratio(plain, CROSS_ENTROPY, best)]
        row += [_ratio(compiled, f"compiled {CROSS_ENTROPY}", best)]
        row += [_ratio(plain, f"{best}{variant}", best) for variant in (" x3", " mixed")]
        rows.append([*row, _peak(plain, best)])
    return rows


def small_tables(cells: list[Cell]) -> list[Table]:
    """Return a table for every dtype and direction: eager beside the CUDA graph."""
    tables = []
    for dtype in DTYPES:
        for direction in DIRECTIONS:
            found = [c for c in cells if (c["dtype"], c["direction"]) == (dtype, direction)]
            names = backends_of(found)
            if not found:
                continue
            kinds = ("", " graph")
            header = ["N x K"]
            for kind in kinds:
                columns = [*names, "fastest", "CE", "CE/ours"]
                header += [f"{column} {kind.strip() or 'eager'}" for column in columns]
            rows = [header]
            for (n, k), shape in _by_shape(found).items():
                of = {c["function"]: c for c in shape}
                row = [f"{n} x {k}"]
                for kind in kinds:
                    mine = [f"{name}{kind}" for name in names]
                    best = _fastest(of, mine)
                    row += [_microseconds(of, name) for name in mine]
                    row += [best.removesuffix(kind) or "-"]
                    row += [_microseconds(of, f"{CROSS_ENTROPY}{kind}")]
                    row += [_ratio(of, f"{CROSS_ENTROPY}{kind}", best)]
                rows.append(row)
            tables.append((f"{dtype}, {direction}", rows))
    return tables


def peer_tables(cells: list[Cell]) -> list[Table]:
    """Return one table: times over that of the fastest backend, a column for each peer."""
    if not cells:
        return []
    names = backends_of(cells)
    peers = _functions(cells, "peer")
    rows = [["N x K", "fastest", "of copy", "ours CE", *peers]]
    for (n, k), shape in _by_shape(cells).items():
        of = {c["function"]: c for c in shape}
        best = _fastest(of, names)
        row = [f"{n} x {k}", best or "-", _of_copy(of, best), _ratio(of, f"{best} CE", best)]
        rows.append(row + [_ratio(of, peer, best) for peer in peers])
    return [("bfloat16, forward + backward, times over ours", rows)]


def backends_of(cells: Iterable[Cell]) -> list[str]:
    """Return the backends among the functions that were measured."""
    return _functions(cells, "backend")


def _functions(cells: Iterable[Cell], kind: str) -> list[str]:
    return list(dict.fromkeys(c["function"] for c in cells if c["kind"] == kind))


def _by_shape(cells: list[Cell]) -> dict[tuple[int, int], list[Cell]]:
    shapes: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        shapes.setdefault((cell["rows"], cell["classes"]), []).append(cell)
    return dict(sorted(shapes.items(), key=lambda item: item[0][1]))


def _median(of: dict[str, Cell], name: str) -> float:
    return float(of[name]["seconds"]["median"])


def _fastest(of: dict[str, Cell], names: Iterable[str]) -> str:
    """Return the name with the smallest median; empty where none was measured."""
    found = [name for name in names if name in of]
    return min(found, key=lambda name: _median(of, name)) if found else ""


def _ratio(of: dict[str, Cell], numerator: str, denominator: str) -> str:
    if numerator not in of or denominator not in of:
        return "-"
    return f"{_median(of, numerator) / _median(of, denominator):.2f}"


def _microseconds(of: dict[str, Cell], name: str) -> str:
    return f"{1e6 * _median(of, name):.1f}" if name in of else "-"


def rate(cell: Cell) -> float:
    """Return the bytes a second that the bytes formula gives a cell; a copy's are those of both."""
    direction = BOTH if cell["function"] == "copy" else cell["direction"]
    itemsize = DTYPES[cell["dtype"]].itemsize
    moved = traffic_bytes(cell["rows"], cell["classes"], itemsize, direction)
    return moved / float(cell["seconds"]["median"])


def _copy_rate(of: dict[str, Cell]) -> str:
    return f"{rate(of['copy']) / 1e9:.0f}" if "copy" in of else "-"


def _of_copy(of: dict[str, Cell], name: str) -> str:
    if name not in of or "copy" not in of:
        return "-"
    seconds = of[name]["seconds"]
    spread = (seconds["q3"] - seconds["q1"]) / 2 / seconds["median"]
    return f"{rate(of[name]) / rate(of['copy']):.1%} +-{spread:.1%}"


def _peak(of: dict[str, Cell], name: str) -> str:
    if name not in of:
        return "-"
    cell = of[name]
    size = cell["rows"] * cell["classes"] * DTYPES[cell["dtype"]].itemsize
    return f"{cell['peak_bytes'] / size:.2f}"
