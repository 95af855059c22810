"""The files that a complete run leaves under results/: JSON, and the tables as Markdown."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

from .environment import Environment
from .harness import BOTH, FORWARD, THREADS, Ratio, Results, Shape, Times
from .report import COLUMNS, NOTES, interleaved_line, markdown, sections

_FOLDER = Path(__file__).parent / "results"
Record = dict[str, Any]


def write(results: Results, environment: Environment) -> list[Path]:
    """Write both files, named after the processor; return their paths."""
    model = re.sub(r"[^a-z0-9]+", "-", str(environment["cpu"]).lower()).strip("-")
    stem = f"cpu-{model}-{THREADS}-threads"
    _FOLDER.mkdir(exist_ok=True)
    record, page = _FOLDER / f"{stem}.json", _FOLDER / f"{stem}.md"
    record.write_text(_json(_record(results, environment)))
    page.write_text("\n".join(_page(results, environment)) + "\n")
    return [record, page]


def _record(results: Results, environment: Environment) -> Record:
    return {
        "environment": environment,
        "ratios": [
            _ratios(results, shape, direction)
            for direction in (BOTH, FORWARD)
            for shape in results.complete_shapes()
        ],
        "interleaved": {name: _runs(times) for name, times in results.interleaved.items()},
        "peak_bytes": [{"shape": shape, **peaks} for shape, peaks in results.memory.items()],
        "seconds": [
            {"shape": shape, **step._asdict(), "runs": _runs(times)}
            for (shape, step), times in results.times.items()
        ],
    }


def _json(record: Record) -> str:
    """Format a record with every entry of its lists on a line, so that changes can be read."""
    fields = []
    for name, value in record.items():
        lines = ",\n".join(map(json.dumps, value)) if isinstance(value, list) else ""
        fields.append(f'"{name}": ' + (f"[\n{lines}\n]" if lines else json.dumps(value)))
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _ratios(results: Results, shape: Shape, direction: str) -> Record:
    record: Record = {
        "shape": shape,
        "direction": direction,
        "disturbed": results.disturbed(shape),
        "compiled_form": results.compiled_form[shape, direction],
    }
    for column in COLUMNS:
        value = column.value(results, shape, direction)
        record[column.name] = value._asdict() if isinstance(value, Ratio) else value
    return record


def _runs(times: Times) -> list[Record]:
    return [
        {
            "rounds": len(run),
            "median": round(statistics.median(run), 9),
            "min": round(min(run), 9),
            "max": round(max(run), 9),
        }
        for run in times.values()
    ]


def _page(results: Results, environment: Environment) -> list[str]:
    about = ", ".join(f"{name} {value}" for name, value in environment.items())
    lines = ["# CPU benchmarks", "", f"{about}.", "", NOTES, "", f"{interleaved_line(results)}."]
    for title, rows in sections(results):
        lines += ["", f"## {title[0].upper()}{title[1:]}", "", *markdown(rows)]
    return lines
