"""Results as files: written whole or not at all, with what is needed to repeat them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
import os
import platform
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import pclc_fast

from .summary import MODELS, Condition, Measurement, Results, wilson_interval


def prepare_folder(folder: Path) -> None:
    """Make ``folder``; raise ValueError unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"--out must be a folder that can be written to; got {folder} ({error.strerror})"
        ) from error


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` never holds a part of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def environment(arguments: Sequence[str]) -> dict[str, Any]:
    """What the numbers may depend on besides the configuration; ``arguments`` are those of pclc."""
    return {
        "command": shlex.join(["pclc", *arguments]),
        "pclc_fast": pclc_fast.__version__,
        "backends": {name: s._asdict() for name, s in pclc_fast.backends().items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
    }


def save(
    folder: Path,
    config: Any,
    where: dict[str, Any],
    results: Results,
    words: list[str],
    seconds: float,
) -> list[Path]:
    """Write results.json and results.csv; return their paths.

    ``config`` is the dataclass that was run, ``where`` its :func:`environment`.
    """
    rows = [_row(measurement) for measurement in results.measurements]
    document = {
        "config": dataclasses.asdict(config),
        "environment": where,
        "seconds": round(seconds, 1),
        "words": words,
        "comparisons": [_comparison(results, condition) for condition in results.conditions],
        "measurements": rows,
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    texts = {
        "results.json": json.dumps(document, indent=2, default=str, allow_nan=False) + "\n",
        "results.csv": table.getvalue(),
    }
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def _row(measurement: Measurement) -> dict[str, Any]:
    return {
        "seed": measurement.seed,
        "model": measurement.model,
        **measurement.condition._asdict(),
        "images": len(measurement.correct),
        "accuracy": measurement.accuracy,
        "prob_gap": _finite(measurement.prob_gap),
        "logit_gap": _finite(measurement.logit_gap),
    }


def _comparison(results: Results, condition: Condition) -> dict[str, Any]:
    models = {}
    for model in MODELS:
        mean, spread = results.accuracy(model, condition)
        low, high = wilson_interval(mean, results.images)
        models[model] = {
            "accuracy": mean,
            "standard_deviation": _finite(spread),
            "wilson_95": [low, high],
        }
    difference = results.difference(condition)
    return {
        **condition._asdict(),
        **models,
        "difference": difference.mean,
        "standard_error": difference.error,
    }


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _cpu_name() -> str:
    with contextlib.suppress(OSError):  # only Linux has it
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
