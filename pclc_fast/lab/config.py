"""The configurations of the experiments: what their command lines offer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import prepare_folder


@dataclass(frozen=True)
class DigitsExperiment:
    """CE against PC-LC on handwritten digits: trained, attacked, audited, reported.

    Each seed trains a small CNN with CE (the warm-up), then from its weights one model with CE
    again and one with PC-LC, as pclc train does it. Then come what pclc attack and pclc report do.
    The digits are scikit-learn's. Takes about a minute.
    """

    epochs: int = 30
    """Epochs of the warm-up, and of each of the two phases after it."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One repetition each: initial weights, order of the images, random start of PGD."""
    epsilons: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3)
    """Largest change of a pixel, of which the values are 0 to 1."""
    steps: int = 40
    """Steps of PGD."""
    batch_size: int = 64
    """Images in a training step."""
    lr: float = 3e-3
    """Learning rate of Adam."""
    images: int = 150
    """Test images that are attacked, at most."""
    out: Path = Path("runs/digits")
    """Folder for the runs, and for report.html, report.csv and report.json."""

    def check(self) -> None:
        """Raise ValueError for the first value that makes no sense; make the folder ``out``."""
        for name, value in (
            ("epochs", self.epochs),
            ("steps", self.steps),
            ("batch-size", self.batch_size),
            ("images", self.images),
        ):
            if value < 1:
                raise ValueError(f"--{name} must be at least 1; got {value}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"--lr must be positive and finite; got {self.lr:g}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"--seeds must be one or more different numbers; got {_list(self.seeds)}"
            )
        if not all(0 <= seed < 2**63 for seed in self.seeds):
            raise ValueError(f"--seeds must be from 0 to 2^63 - 1; got {_list(self.seeds)}")
        if not self.epsilons or len(set(self.epsilons)) < len(self.epsilons):
            raise ValueError(
                f"--epsilons must be one or more different numbers; got {_list(self.epsilons)}"
            )
        if not all(0 <= epsilon <= 1 for epsilon in self.epsilons):
            raise ValueError(f"--epsilons must be from 0 to 1; got {_list(self.epsilons)}")
        prepare_folder(self.out)


def _list(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values) or "nothing"
