"""Tables 1 to 5 of the paper, cell by cell: which attack ran at which budgets, with which numbers.

Li et al., "Improving Adversarial Robustness via Probabilistically Compact Loss with Logit
Constraints", AAAI 2021. "grey": MNIST, KMNIST, Fashion-MNIST. "colour": CIFAR-10, SVHN. "large":
CIFAR-100, Tiny ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .preset import Kind
from .result import Assumption

_LAST = {"iterate": "last"}
GREY, COLOUR, LARGE = (0.1, 0.2, 0.3), (0.04, 0.12, 0.2), (0.005, 0.010, 0.015)
BUDGETS: dict[Kind, tuple[float, ...]] = {"grey": GREY, "colour": COLOUR, "large": LARGE}


class Method(NamedTuple):
    """An attack with the settings that the paper gives it."""

    title: str
    attack: str
    settings: Mapping[str, Any]
    is_l2: bool = False  # and without a budget


METHODS = {
    "fgsm": Method("FGSM", "fgsm", {}),
    "bim": Method("BIM, 10 steps of 0.01", "bim", {"steps": 10, "step_size": 0.01, **_LAST}),
    "bim-eps/10": Method(
        "BIM, 10 steps of eps/10",
        "bim",
        {"steps": 10, "step_size": 0.1, "per_epsilon": True, **_LAST},
    ),
    "pgd": Method("PGD, 40 steps of 0.01", "pgd", {"steps": 40, "step_size": 0.01, **_LAST}),
    "mim": Method("MIM, 40 steps of 0.01", "mim", {"steps": 40, "step_size": 0.01, **_LAST}),
    "cw-100": Method(
        "C&W, 100 steps of 0.001",
        "cw",
        {"steps": 100, "lr": 0.001, "confidence": 0.0, "search_steps": 9},
        is_l2=True,
    ),
    "cw-1000": Method(
        "C&W, 1,000 steps of 0.001",
        "cw",
        {"steps": 1000, "lr": 0.001, "confidence": 0.0, "search_steps": 9},
        is_l2=True,
    ),
    "pgd-transfer": Method(
        "PGD from a substitute",
        "transfer",
        {"method": "pgd", "steps": 40, "step_size": 0.01, **_LAST},
    ),
    "mim-transfer": Method(
        "MIM from a substitute",
        "transfer",
        {"method": "mim", "steps": 40, "step_size": 0.01, **_LAST},
    ),
    "spsa": Method(
        "SPSA", "spsa", {"steps": 60, "samples": 128, "lr": 0.01, "delta": 0.01, "loss": "margin"}
    ),
    "pgd-10": Method(
        "PGD, 10 steps of eps/10",
        "pgd",
        {"steps": 10, "step_size": 0.1, "per_epsilon": True, **_LAST},
    ),
    "mim-10": Method(
        "MIM, 10 steps of eps/10",
        "mim",
        {"steps": 10, "step_size": 0.1, "per_epsilon": True, **_LAST},
    ),
}


class Row(NamedTuple):
    """One row of a table: a method at some budgets; none for C&W."""

    table: int
    kind: Kind
    method: str
    epsilons: tuple[float, ...]


def _rows(table: int, kind: Kind, methods: str, epsilons: tuple[float, ...]) -> list[Row]:
    return [
        Row(table, kind, method, () if METHODS[method].is_l2 else epsilons)
        for method in methods.split()
    ]


ROWS: tuple[Row, ...] = (
    *_rows(1, "grey", "fgsm bim bim-eps/10 pgd mim cw-100", GREY),
    *_rows(1, "colour", "fgsm bim bim-eps/10 pgd mim cw-100", COLOUR),
    *_rows(2, "grey", "fgsm bim bim-eps/10 pgd mim cw-1000", GREY),
    *_rows(2, "colour", "fgsm bim bim-eps/10 pgd mim cw-1000", COLOUR),
    *_rows(3, "grey", "pgd-transfer mim-transfer", GREY),
    *_rows(3, "grey", "spsa", (0.3,)),
    *_rows(3, "colour", "pgd-transfer mim-transfer", COLOUR),
    *_rows(3, "colour", "spsa", (0.3,)),
    *_rows(4, "large", "pgd-10 mim-10", LARGE),
    *_rows(4, "large", "spsa", (0.015,)),
    *_rows(5, "grey", "bim bim-eps/10 pgd mim cw-100 spsa", (0.3,)),
    *_rows(5, "colour", "bim bim-eps/10 pgd mim cw-100", (0.04,)),
    *_rows(5, "colour", "spsa", (0.3,)),
)

ASSUMPTIONS = (
    Assumption(
        "FGSM, BIM, PGD, MIM: which image counts",
        "not given",
        "the last one, as attack libraries of that time return it",
    ),
    Assumption(
        "BIM: step",
        "0.01 for 10 steps, which cannot move past 0.1, though Table 1 falls from 0.1 to 0.3",
        "both: 0.01 as written, and eps/10 as in the released notebook",
    ),
    Assumption(
        "PGD: random start", '"a random starting point"', "uniform in the budget, one start"
    ),
    Assumption("FGSM, BIM, PGD, MIM: loss", "not given", "cross-entropy"),
    Assumption("MIM: decay", "not given", "1, its authors' value"),
    Assumption(
        "PGD, MIM in Table 4: step", "10 iterations, at budgets below 0.01", "eps/10, as notebook"
    ),
    Assumption(
        "C&W: search for c", "not given", "9 steps from 0.001, its authors' way, in L2, no budget"
    ),
    Assumption(
        "SPSA: samples and iterations",
        "learning rate and delta only",
        "128 samples as in the released notebook; 60 steps, the fewest of 0.01 that cross 2 x 0.3",
    ),
    Assumption("SPSA: loss, start", "not given", "the margin of the logits, from the clean image"),
    Assumption(
        "Transfer: substitute",
        "a 3-layer CNN for LeNet-5, ResNet-56 for VGG-13; its loss is not given",
        "the model that is given, cross-entropy",
    ),
)
