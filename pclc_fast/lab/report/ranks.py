"""Figure 2 of the paper: to which class of the clean prediction newly fooled images go."""

from __future__ import annotations

from typing import Any

from ..attacks import Result

_NAMED = (2, 3, 4, 5)


def ranks(result: Result) -> list[dict[str, Any]]:
    """Sum up an evaluation over a fine grid of epsilons, attack by attack.

    An image is newly fooled at the smallest epsilon at which the attack fools it.
    """
    return [_sweep(result, attack.key, attack.title) for attack in result.attacks]


def _sweep(result: Result, key: str, title: str) -> dict[str, Any]:
    fooled: set[int] = set()
    reached: list[int] = []
    clean = result.clean
    steps = [_step(0.0, clean.accuracy, [])]
    for epsilon in result.epsilons:
        cell = result.cell(key, epsilon)
        if cell is None or epsilon == 0:
            continue
        pairs = zip(cell.fooled, cell.rank, strict=True)
        new = [rank for image, rank in pairs if image not in fooled]
        fooled |= set(cell.fooled)
        reached += new
        steps.append(_step(epsilon, (clean.correct - len(fooled)) / clean.images, new))
    second = reached.count(2) / len(reached) if reached else 0.0
    facts = {"images": clean.images, "fooled": len(reached), "second": second}
    return {"attack": key, "title": title, "facts": facts, "steps": steps}


def _step(epsilon: float, accuracy: float, new: list[int]) -> dict[str, Any]:
    shares = {f"rank {k}": new.count(k) / len(new) if new else 0.0 for k in _NAMED}
    beyond = sum(rank not in _NAMED for rank in new) / len(new) if new else 0.0
    return {
        "epsilon": epsilon,
        "accuracy": accuracy,
        "newly": len(new),
        **shares,
        "beyond": beyond,
    }
