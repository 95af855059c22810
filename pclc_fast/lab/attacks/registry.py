"""The attacks by name, and what each needs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from numbers import Integral, Real
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
_CHOICES = {"iterate": ("any", "last"), "method": ("pgd", "mim")}
_SIZES = ("step_size", "first_step", "lr", "delta", "first_c", "share")
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
        ValueError: there is no such attack or loss, a count is below 1, so that it would try
            nothing, or another setting is none of its values.
    """
    name, settings = spec.attack, dict(spec.settings)
    if name not in ATTACKS:
        raise ValueError(f"the attack must be one of {', '.join(ATTACKS)}; got {name}")
    try:
        inspect.signature(ATTACKS[name].run).bind(None, **settings)
    except TypeError as error:
        raise TypeError(f"the settings of {name}: {error}") from error
    for setting, value in settings.items():
        if expected := _expected(setting, value):
            raise ValueError(f"{setting} of {name} must be {expected}; got {value!r}")
    objective(settings.get("loss", "ce"), rescaled=False)


def _expected(setting: str, value: object) -> str | None:
    """What a setting must be; None where it is."""
    if setting in (*_COUNTS, "targets"):
        least = int(setting in _COUNTS)  # 0 targets: an attack without
        fits = isinstance(value, Integral) and int(value) >= least
        return None if fits else f"an integer, at least {least}"
    number = float(value) if isinstance(value, Real) else math.nan
    if setting in _SIZES and not 0 < number < math.inf:
        return "a number above 0, and finite"
    if setting in ("decay", "confidence") and not 0 <= number < math.inf:
        return "a number, not negative, and finite"
    if setting in _CHOICES and value not in _CHOICES[setting]:
        return " or ".join(_CHOICES[setting])
    return None


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
