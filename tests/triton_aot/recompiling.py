"""Count what Triton would compile for calls that differ in numbers alone.

Run by test_triton_aot.py, in a process of its own.
"""

from __future__ import annotations

import json
from collections import Counter

import torch
from launches import MANY, make_rows, options_of, recording, step

CLASSES = (10, 1000, 50257)
ROWS = {"1 to 17 rows": (1, 2, 16, 17), f"{MANY} to 4096 rows": (MANY, 2 * MANY, 4096)}
COEFFICIENTS = (
    (0.995, 1.0, 0.05, 0.0, 0.0),
    (0.5, 0.0, 1.0, 1.0, 1.0),
    (1.0, 2.0, 1e-300, 0.25, 3.0),  # a margin of 1 leaves 0 of 1 - margin
)
IGNORED = (-100, 0, 1, 16, 2**40)


def distinct_launches(classes: int, rows: tuple[int, ...]) -> dict[str, int]:
    """Return how many different things are compiled of each kernel."""
    launched: set[tuple[str, str]] = set()
    for reduction in ("mean", "sum"):
        for n in rows:
            for numbers in COEFFICIENTS:
                for ignored in IGNORED:
                    options = options_of(reduction, "soft", numbers)._replace(ignore_index=ignored)
                    weight = torch.empty(classes)
                    with recording(reduction) as found:
                        step(make_rows(n, classes, torch.float32), weight, options, False)
                    launched |= {(launch.name, launch.identity()) for launch in found}
    return dict(Counter(name for name, _ in launched))


if __name__ == "__main__":
    counts = {
        which: {classes: distinct_launches(classes, rows) for classes in CLASSES}
        for which, rows in ROWS.items()
    }
    print(json.dumps(counts))
