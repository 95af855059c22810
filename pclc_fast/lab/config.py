"""The configurations of the experiments: what their command lines offer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .files import prepare_folder
from .option_checks import as_typed, check_counts, check_lr, check_seeds


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
        check_counts(
            epochs=self.epochs, steps=self.steps, batch_size=self.batch_size, images=self.images
        )
        check_lr(self.lr)
        check_seeds(self.seeds)
        if not self.epsilons or len(set(self.epsilons)) < len(self.epsilons):
            raise ValueError(
                f"--epsilons must be one or more different numbers; got {as_typed(self.epsilons)}"
            )
        if not all(0 <= epsilon <= 1 for epsilon in self.epsilons):
            raise ValueError(f"--epsilons must be from 0 to 1; got {as_typed(self.epsilons)}")
        prepare_folder(self.out)
