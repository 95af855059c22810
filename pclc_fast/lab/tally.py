"""Statistics of the images of an epoch, kept where they were computed and read once."""

from __future__ import annotations

import torch
from torch import Tensor

from pclc_fast import LossStats

from .distributed import World

_SUMS = ("loss", "accuracy", "prob_gap", "logit_gap")


class Tally:
    """Gathers what the criterion reports of every batch.

    Adding a batch starts nothing on the device: its tensors are only kept.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []  # [1] each
        self._rows: list[int] = []
        self._gaps: list[tuple[Tensor, Tensor]] = []
        self._correct: list[Tensor] = []
        self._attacked: list[Tensor] = []

    def add(self, loss: Tensor, stats: LossStats, clean: int) -> None:
        """Add a batch of which the first ``clean`` rows are images as they are."""
        self._losses.append(loss.detach().reshape(1))
        self._rows.append(len(stats.correct))
        self._gaps.append((stats.prob_gap[:clean], stats.logit_gap[:clean]))
        self._correct.append(stats.correct[:clean])
        self._attacked.append(stats.correct[clean:])

    def means(self, world: World) -> dict[str, float]:
        """The means over the images of all processes: the one look at the device.

        The loss is that of all rows, the rest of clean images, but for ``adversarial_accuracy``,
        which is there where images were attacked.
        """
        rows = torch.tensor(self._rows, dtype=torch.float64)
        clean, attacked = torch.cat(self._correct), torch.cat(self._attacked)
        losses = torch.cat(self._losses).double()
        prob_gap, logit_gap = (torch.cat(gaps).double() for gaps in zip(*self._gaps, strict=True))
        sums = [losses @ rows.to(losses.device), clean.sum(), prob_gap.sum(), logit_gap.sum()]
        counts = [float(rows.sum()), len(clean), len(attacked)]
        known = torch.tensor(counts, dtype=torch.float64).to(losses.device)
        packed = torch.cat([torch.stack([s.double() for s in (*sums, attacked.sum())]), known])
        loss, *others, fooled_not, all_rows, n_clean, n_attacked = world.sum(packed).tolist()
        means = dict(zip(_SUMS, (loss / all_rows, *(o / n_clean for o in others)), strict=True))
        if n_attacked:
            means["adversarial_accuracy"] = fooled_not / n_attacked
        return means

    def to_tensors(self) -> dict[str, Tensor]:
        """What was gathered so far, to go on from."""
        prob_gap, logit_gap = (torch.cat(gaps) for gaps in zip(*self._gaps, strict=True))
        return {
            "losses": torch.cat(self._losses),
            "rows": torch.tensor(self._rows),
            "prob_gap": prob_gap,
            "logit_gap": logit_gap,
            "correct": torch.cat(self._correct),
            "attacked": torch.cat(self._attacked),
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], device: torch.device) -> Tally:
        """The inverse of ``to_tensors``."""
        there = {name: tensor.to(device) for name, tensor in tensors.items()}
        tally = cls()
        tally._losses = [there["losses"]]
        tally._rows = tensors["rows"].tolist()
        tally._gaps = [(there["prob_gap"], there["logit_gap"])]
        tally._correct, tally._attacked = [there["correct"]], [there["attacked"]]
        return tally
