"""The preset ``strong`` beside the union of everything else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pclc_fast.lab.attacks import Result, evaluate


def strong(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilons: Sequence[float],
    union: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Evaluate the preset; compare what stands with what stands after the union."""
    busy = time.process_time()
    result = evaluate(model, images, labels, eps=epsilons, preset="strong", seed=0)
    rows = []
    for others in union:
        standing = _standing(result, others["epsilon"])
        rows.append({"epsilon": others["epsilon"], **_compared(standing, others["standing"])})
    return {
        "images": len(labels),
        "clean": result.clean.correct,
        "seconds": result.seconds,
        "cpu_seconds": round(time.process_time() - busy, 1),  # what other processes do not slow
        "preset": [{"title": a.title, **a.settings} for a in result.attacks],
        "compared": rows,
        "cumulative": {
            f"{e:g}": [[key, share.correct] for key, share in result.cumulative_shares(e)]
            for e in epsilons
        },
    }


def _standing(result: Result, epsilon: float) -> list[int]:
    smallest = result.minimum_epsilon()
    return [i for i, e in enumerate(smallest) if e is None or e > epsilon]


def _compared(strong: Sequence[int], others: Sequence[int]) -> dict[str, Any]:
    return {
        "strong": len(strong),
        "union": len(others),
        "fooled_by_the_union_alone": sorted(set(strong) - set(others)),
        "fooled_by_strong_alone": sorted(set(others) - set(strong)),
    }


def strong_lines(found: dict[str, Any]) -> list[str]:
    """A line for each epsilon: what stands, and by how many points of accuracy strong is above."""
    count = found["images"]
    head = f"{count} images, {found['clean']} correct without attack, "
    head += f"{found['seconds']:.0f} s, of which the processor {found['cpu_seconds']:.0f} s"
    return [
        head,
        *(
            f"eps {row['epsilon']:g}: strong {row['strong']}, everything else {row['union']} "
            f"standing: {100 * (row['strong'] - row['union']) / count:+.1f} points "
            f"(fooled by everything else alone: {len(row['fooled_by_the_union_alone'])}, "
            f"by strong alone: {len(row['fooled_by_strong_alone'])})"
            for row in found["compared"]
        ),
    ]
