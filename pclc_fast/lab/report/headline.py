"""The sentences that a report begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from .numbers import Numbers

Run = dict[str, Any]
_EPSILON = "\N{GREEK SMALL LETTER EPSILON}"
_FREEDOM = {
    "Linf": f"With every pixel free to move by {_EPSILON}",
    "L2": f"With the image free to move by a Euclidean distance of {_EPSILON}",
}


def worst_case(name: str, runs: Sequence[Run], numbers: Numbers) -> Markup:
    """What is left of a configuration's accuracy at each epsilon; ``runs`` have been attacked."""
    if not runs:
        return Markup("No attack is finished, so there is no worst case to state.")
    epsilons = [share["epsilon"] for share in runs[0]["attacked"]["worst"]]
    if not epsilons:
        return Markup("No attack had a budget, so there is no worst case to state.")
    total = numbers("clean", runs[0]["id"], "", None, "images", "count")
    images = Markup("of {} test images").format(total)
    if len(runs) > 1:
        seeds = numbers("group clean", name, "", None, "seeds", "count")
        images += Markup(" (mean of {} seeds)").format(seeds)
    (share, budget), *others = (_share(name, runs, epsilon, numbers) for epsilon in epsilons)
    first = Markup("{}, {} {} withstand every attack tried at {} = {}")
    parts = [first.format(_FREEDOM[runs[0]["attacked"]["norm"]], share, images, _EPSILON, budget)]
    parts += [Markup("{} at {}").format(*other) for other in others]
    *most, last = parts
    return (Markup(", ").join(most) + " and " if most else Markup("")) + last + "."


def _share(
    name: str, runs: Sequence[Run], epsilon: float, numbers: Numbers
) -> tuple[Markup, Markup]:
    """The accuracy with its interval or spread, and the epsilon."""
    run = runs[0]["id"]
    budget = numbers.epsilon(epsilon)
    if numbers.has("group worst", name, "", epsilon, "spread"):
        mean, spread = (
            numbers("group worst", name, "", epsilon, quantity) for quantity in ("mean", "spread")
        )
        return Markup("<b>{} %</b> (\N{PLUS-MINUS SIGN} {})").format(mean, spread), budget
    share, low, high = (
        numbers("worst", run, "", epsilon, quantity) for quantity in ("accuracy", "low", "high")
    )
    return Markup("<b>{} %</b> ({} to {})").format(share, low, high), budget


def verdict(run: Run, numbers: Numbers) -> Markup:
    """What the audit of a run comes to."""
    if not run["audit"]:
        return Markup("The audit was not run.")
    return numbers.sentence(run["audit"]["verdict"], "audit", run["id"], "")
