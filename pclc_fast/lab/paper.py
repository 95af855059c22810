"""What the paper reports, as numbers: Tables 1 to 5 and the gaps of its introduction.

Li et al., "Improving Adversarial Robustness via Probabilistically Compact Loss with Logit
Constraints", AAAI 2021. The numbers lie in paper.csv, a row each.
"""

from __future__ import annotations

import csv
import functools
import io
from importlib import resources
from typing import NamedTuple

INTRODUCTION = "introduction"


class PaperNumber(NamedTuple):
    """One number of the paper, by the names that this package uses."""

    table: str  # "1" to "5", or INTRODUCTION
    data: str
    network: str
    method: str  # ce, gce or pclc, with +at where trained adversarially too
    attack: str
    epsilon: float | None  # None: clean, and C&W, whose distance is not bounded
    quantity: str  # accuracy in percent, prob_gap as a fraction
    value: float


@functools.cache
def paper_numbers() -> tuple[PaperNumber, ...]:
    """Return every number, in the order of the paper."""
    text = resources.files(__package__).joinpath("paper.csv").read_text(encoding="utf-8")
    return tuple(
        PaperNumber(
            row["table"],
            row["data"],
            row["network"],
            row["method"],
            row["attack"],
            float(row["epsilon"]) if row["epsilon"] else None,
            row["quantity"],
            float(row["value"]),
        )
        for row in csv.DictReader(io.StringIO(text))
    )
