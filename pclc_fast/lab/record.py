"""The results of an experiment as files, with what is needed to repeat them."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

from .files import write_atomically
from .summary import MODELS, Condition, Measurement, Results, wilson_interval


def save(
    folder: Path,
    config: Any,
    where: dict[str, Any],
    results: Results,
    words: list[str],
    seconds: float,
) -> list[Path]:
    """Write results.json and results.csv; return their paths.

    ``config`` is the dataclass that was run, ``where`` the environment it ran in.
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
