"""The sentences that a report begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from .numbers import Numbers

Run = dict[str, Any]


def worst_case(name: str, runs: Sequence[Run], numbers: Numbers) -> Markup:
    """What is left of a configuration's accuracy at each epsilon; ``runs`` have been attacked."""
    if not runs:
        return Markup("Not attacked yet, so nothing is known about its robustness.")
    epsilons = [share["epsilon"] for share in runs[0]["attacked"]["worst"]]
    if not epsilons:
        return Markup("No attack had a budget, so there is no worst case to state.")
    shares = [_share(name, runs, epsilon, numbers) for epsilon in epsilons]
    run = runs[0]["id"]
    total = numbers("clean", run, "", None, "images", "count")
    of = Markup("of {} test images").format(total)
    if len(runs) > 1:
        seeds = numbers("group clean", name, "", None, "seeds", "count")
        of += Markup(", on average over {} seeds,").format(seeds)
    withstand = Markup("withstand every attack tried with {}").format(_BUDGET[_norm(runs)])
    first, *others = shares
    text = Markup("{} {} {} {}").format(first[0], of, withstand, first[1])
    return text + Markup("").join(Markup("; {} {}").format(*other) for other in others) + "."


_BUDGET = {
    "Linf": "every pixel free to move by \N{GREEK SMALL LETTER EPSILON} =",
    "L2": "a change of Euclidean length \N{GREEK SMALL LETTER EPSILON} =",
}


def _norm(runs: Sequence[Run]) -> str:
    norm: str = runs[0]["attacked"]["norm"]
    return norm


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
