"""The attacks by name, and what each needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

from .apgd import apgd
from .cw import carlini_wagner
from .decomposition import margin_decomposition
from .engine import Found, Task
from .gradient import bim, fgsm, mim, pgd
from .objectives import classes_needed, objective
from .preset import Spec
from .result import Norm, Threat
from .scores import random_noise, spsa, square
from .targeted import focused, multi_targeted
from .transfer import transfer


class Entry(NamedTuple):
    """An attack."""

    run: Callable[..., Found]  # (Task, **settings)
    threat: Threat = "white-box"
    norms: tuple[Norm, ...] = ("Linf", "L2")


ATTACKS: dict[str, Entry] = {
    "fgsm": Entry(fgsm),
    "bim": Entry(bim),
    "pgd": Entry(pgd),
    "mim": Entry(mim),
    "apgd": Entry(apgd),
    "multi-targeted": Entry(multi_targeted),
    "focused": Entry(focused),
    "margin-decomposition": Entry(margin_decomposition),
    "cw": Entry(carlini_wagner, norms=("L2",)),
    "transfer": Entry(transfer, "transfer"),
    "spsa": Entry(spsa, "score"),
    "square": Entry(square, "score", ("Linf",)),
    "random-noise": Entry(random_noise, "noise"),
}
_COUNTS = (
    "steps",
    "restarts",
    "queries",
    "samples",
    "tries",
    "search_steps",
    "scouting",
    "scouts",
)


def check(spec: Spec) -> None:
    """See that an attack can be run at all, before hours go into those ahead of it.

    Raises:
        TypeError: a setting is missing, or not one of this attack's.
        ValueError: there is no such attack or loss, or a count is below 1: it would try nothing.
    """
    name, settings = spec.attack, dict(spec.settings)
    if name not in ATTACKS:
        raise ValueError(f"the attack must be one of {', '.join(ATTACKS)}; got {name}")
    try:
        inspect.signature(ATTACKS[name].run).bind(None, **settings)
    except TypeError as error:
        raise TypeError(f"the settings of {name}: {error}") from error
    for count in _COUNTS:
        value = settings.get(count, 1)
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{count} of {name} must be an integer, at least 1; got {value}")
    objective(settings.get("loss", "ce"), rescaled=False)


def unfit(spec: Spec, norm: Norm, classes: int, *, has_substitute: bool) -> str | None:
    """Why an attack of a preset cannot be run; None where it can."""
    entry = ATTACKS[spec.attack]
    if norm not in entry.norms and spec.norm is None:
        return f"it is defined for {' and '.join(entry.norms)} only"
    if entry.threat == "transfer" and not has_substitute:
        return "it needs a substitute model"
    loss, targeted = spec.settings.get("loss", ""), bool(spec.settings.get("targets", 0))
    needed = classes_needed(loss, targeted=targeted)
    if classes < needed:
        return f"its loss {loss} needs {needed} classes"
    return None


def run(spec: Spec, task: Task) -> Found:
    """Run one attack of a preset."""
    settings: dict[str, Any] = dict(spec.settings)
    return ATTACKS[spec.attack].run(task, **settings)
