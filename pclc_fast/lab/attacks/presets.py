"""The presets: what the paper did, what its authors' code did, and what decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .paper_tables import ASSUMPTIONS, BUDGETS, METHODS, ROWS
from .preset import Kind, Preset, Spec, kind_of
from .result import Assumption

NAMES = ("strong", "paper", "released")


def find_preset(preset: str | Preset, shape: tuple[int, ...], classes: int) -> Preset:
    """The preset of a name, with the paper's budgets for such images.

    Raises:
        ValueError: there is none of that name.
    """
    if isinstance(preset, Preset):
        return preset
    kind = kind_of(shape, classes)
    if preset == "paper":
        return Preset("paper", tuple(_paper(kind)), assumptions=ASSUMPTIONS)
    if preset not in _WITH_BUDGETS:
        raise ValueError(f"the preset must be one of {', '.join(NAMES)}; got {preset}")
    found = _WITH_BUDGETS[preset]
    specs = (dataclasses.replace(spec, epsilons=BUDGETS[kind]) for spec in found.specs)
    return dataclasses.replace(found, specs=tuple(specs))


def pick(keys: Sequence[str], preset: Preset, shape: tuple[int, ...], classes: int) -> Preset:
    """The attacks of some names, in their order, from a preset or else from any other.

    Raises:
        ValueError: no preset has an attack of that name.
    """
    presets = [preset, *(find_preset(name, shape, classes) for name in NAMES)]
    known: dict[str, Spec] = {}
    for spec in (spec for each in presets for spec in each.specs):
        known.setdefault(spec.key, spec)
    unknown = [key for key in keys if key not in known]
    if unknown or not keys:
        raise ValueError(
            f"attacks must be some of {', '.join(known)}; got {', '.join(unknown) or 'none'}"
        )
    if len(set(keys)) < len(keys):
        raise ValueError(f"attacks must be different ones; got {', '.join(keys)}")
    return dataclasses.replace(preset, specs=tuple(known[key] for key in keys))


def _paper(kind: Kind) -> list[Spec]:
    """Every method of the tables for such images once, with its budgets in all of them."""
    rows = [row for row in ROWS if row.kind == kind]
    specs = []
    for key in dict.fromkeys(row.method for row in rows):
        method, own = METHODS[key], [row for row in rows if row.method == key]
        specs.append(
            Spec(
                key,
                method.title,
                method.attack,
                method.settings,
                source=_tables([row.table for row in own]),
                epsilons=tuple(sorted({e for row in own for e in row.epsilons})),
                norm="L2" if method.is_l2 else None,
                has_budget=not method.is_l2,
            )
        )
    return specs


def _tables(numbers: list[int]) -> str:
    *others, last = map(str, dict.fromkeys(numbers))
    return f"Tables {', '.join(others)} and {last}" if others else f"Table {last}"


_NOTEBOOK = "released notebook"
_TENTHS = {"steps": 10, "step_size": 0.1, "per_epsilon": True, "iterate": "last"}
RELEASED = Preset(
    "released",
    (
        Spec("fgsm", "FGSM", "fgsm", {}, _NOTEBOOK),
        Spec("bim-eps/10", "BIM, 10 steps of eps/10", "bim", _TENTHS, _NOTEBOOK),
        Spec("pgd-10", "PGD, 10 steps of eps/10", "pgd", _TENTHS, _NOTEBOOK),
        Spec("mim-10", "MIM, 10 steps of eps/10", "mim", _TENTHS, _NOTEBOOK),
        Spec(
            "spsa-10",
            "SPSA, 10 steps",
            "spsa",
            {"steps": 10, "samples": 128, "lr": 0.01, "delta": 0.01, "loss": "margin"},
            _NOTEBOOK,
        ),
    ),
    assumptions=(
        Assumption(
            "which image counts", "the library's", "the last one; for SPSA the first that fools"
        ),
        Assumption("MIM: decay", "the library's default", "1"),
    ),
)

# The cheap ones first: they leave little to the rest. What decides is to aim at every class in
# turn; after that, more is found by new starts and by another loss.
_FOCUSED = {"scouting": 25, "scouts": 9, "steps": 100}
STRONG = Preset(
    "strong",
    tuple(
        Spec(key, title, attack, settings, "strong")
        for key, title, attack, settings in (
            (
                "pgd-rescaled",
                "PGD-10, rescaled margin",
                "pgd",
                {
                    "steps": 10,
                    "step_size": 0.25,
                    "per_epsilon": True,
                    "loss": "margin",
                    "rescaled": True,
                },
            ),
            (
                "apgd-ce",
                "APGD-100, rescaled CE",
                "apgd",
                {"steps": 100, "loss": "ce", "rescaled": True},
            ),
            (
                "multi-targeted",
                "PGD-50, margins, 9 targets",
                "multi-targeted",
                {"steps": 50, "targets": 9},
            ),
            (
                "focused",
                "PGD-100, margins, 2 targets x 10",
                "focused",
                {**_FOCUSED, "targets": 2, "restarts": 10},
            ),
            (
                "apgd-t",
                "APGD-100, DLR, 9 targets",
                "apgd",
                {"steps": 100, "loss": "dlr", "targets": 9},
            ),
            (
                "focused-dlr",
                "PGD-100, DLR, 3 targets x 10",
                "focused",
                {**_FOCUSED, "targets": 3, "restarts": 10, "loss": "dlr", "rescaled": False},
            ),
            (
                "md",
                "margin decomposition-100",
                "margin-decomposition",
                {"steps": 100},
            ),
            ("square", "Square, 1,000 queries", "square", {"queries": 1000}),
        )
    ),
    cumulative=True,
    carry=True,
)
_WITH_BUDGETS = {"strong": STRONG, "released": RELEASED}
