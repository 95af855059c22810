"""What the report takes from a finished evaluation: plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..attacks import Result
from ..attacks.result import Attack, Cell, Share
from ..audit.traces import by_step
from ..paper import paper_numbers

_OF_THE_PAPER = {n.attack for n in paper_numbers()}


def attacked(result: Result, class_names: Sequence[str]) -> dict[str, Any]:
    """The shares, costs and settings of an evaluation."""
    budgets = {e: dict(result.cumulative_shares(e)) for e in result.epsilons}
    return {
        "preset": result.preset,
        "norm": result.norm,
        "seed": result.seed,
        "batch_size": result.batch_size,
        "images": result.clean.images,
        "clean": _share(result.clean),
        "worst": [{"epsilon": e, **_share(result.worst_case(e))} for e in result.epsilons],
        "attacks": [
            {
                "key": attack.key,
                "title": attack.title,
                "source": attack.source,
                "threat": attack.threat,
                "settings": attack.settings,
                "unbounded": any(c.epsilon is None for c in result.cells if c.attack == attack.key),
                "paper": _name_in_the_paper(attack),
                "gradients": _gradients(result, attack.key),
                "cells": [
                    _cell(result, cell, budgets.get(cell.epsilon or 0.0, {}).get(attack.key))
                    for cell in result.cells
                    if cell.attack == attack.key
                ],
            }
            for attack in result.attacks
        ],
        "classes": _classes(result, class_names),
        "minimum_epsilon": result.minimum_epsilon(),
        "gaps": {"prob_gap": result.images.prob_gap, "logit_gap": result.images.logit_gap},
        "assumptions": [vars(a) for a in result.assumptions],
        "cautions": [vars(c) for c in result.cautions],
        "environment": result.environment,
        "seconds": result.seconds,
        "peak_memory": result.peak_memory,
    }


def _cell(result: Result, cell: Cell, cumulative: Share | None) -> dict[str, Any]:
    alone = result.alone(cell)
    return {
        "norm": cell.norm,
        "epsilon": cell.epsilon,
        "attempted": len(cell.attempted),
        "fooled": len(cell.fooled),
        "rejected": cell.rejected,
        "alone": None if alone is None else _share(alone),
        "cumulative": None if cumulative is None else _share(cumulative),
        **vars(cell.counts),
        "seconds": cell.seconds,
        "median_distance": _median(cell.distance),
    }


def _gradients(result: Result, key: str) -> list[dict[str, Any]]:
    """How many of an attack's gradients were of no use, at each step."""
    return [
        {
            "step": found.step,
            "taken": found.taken,
            "zero": found.zero / found.taken,
            "vanishing": found.vanishing / found.taken,
            "non-finite": found.non_finite / found.taken,
        }
        for found in by_step(result, key)
    ]


def _name_in_the_paper(attack: Attack) -> str | None:
    """What the paper calls an attack, by the first word of its key; None for one of another kind.

    The paper's attacks follow the cross-entropy of the logits as they are.
    """
    name = attack.key.rpartition(": ")[2].removeprefix("transfer-").partition("-")[0]
    own = not attack.settings.get("rescaled") and attack.settings.get("loss", "ce") == "ce"
    return name if name in _OF_THE_PAPER and (own or name == "spsa") else None


def _classes(result: Result, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class that has images its share, at epsilon 0 and at every other."""
    budgets = [0.0, *(e for e in result.epsilons if e > 0)]
    by_budget = [(e, result.per_class(e)) for e in budgets]
    return [
        {
            "label": label,
            "name": names[label] if label < len(names) else str(label),
            "shares": [{"epsilon": e, **_share(shares[label])} for e, shares in by_budget],
        }
        for label in by_budget[0][1]
    ]


def _share(share: Share) -> dict[str, Any]:
    low, high = share.wilson_95
    return {**share._asdict(), "accuracy": share.accuracy, "low": low, "high": high}


def _median(values: Sequence[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None
