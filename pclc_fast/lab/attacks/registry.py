"""The attacks by name, and what each needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .apgd import apgd
from .cw import carlini_wagner
from .decomposition import margin_decomposition
from .engine import Found, Task
from .gradient import bim, fgsm, mim, pgd
from .objectives import classes_needed
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
