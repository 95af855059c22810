"""The losses that the lab trains with, by name.

Every criterion takes logits [N, K] and labels [N] and returns the mean loss together with the
statistics of every row, which cost no second look at the logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from pclc_fast import LossStats, PCLCLoss

LossName = Literal["ce", "pclc", "pclc-released", "pclc-soft", "pclc-all", "gce"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
Criterion = Callable[[Tensor, Tensor], tuple[Tensor, LossStats]]

# The options of PCLCLoss that each loss leaves open; the others make it what its name says.
OPTIONS: Mapping[LossName, tuple[str, ...]] = {
    "ce": (),
    "pclc": ("margin", "lc_weight", "lc_cap", "pc_mean"),
    "pclc-released": ("margin", "lc_weight"),
    "pclc-soft": ("margin", "lc_weight", "pc_mean"),
    "pclc-all": ("margin", "lc_weight", "lc_cap", "pc_mean"),
    "gce": (),
}


def make_criterion(name: LossName, options: Mapping[str, Any] | None = None) -> Criterion:
    """Return a criterion; ``options`` are among those that ``OPTIONS`` names for it."""
    options = options or {}
    if name == "ce":
        return PCLCLoss(pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, return_stats=True)
    if name == "gce":
        return GuidedComplementEntropy()
    if name == "pclc-released":
        return PCLCLoss.released(return_stats=True, **options)
    modes: dict[LossName, str] = {"pclc": "hard", "pclc-soft": "soft", "pclc-all": "all"}
    return PCLCLoss(lc_mode=modes[name], return_stats=True, **options)  # type: ignore[arg-type]


class GuidedComplementEntropy(nn.Module):
    """The entropy among the false classes, guided by the probability of the true one.

    With ``f = softmax(logits)``, true class ``y`` and ``q_k = f_k / (1 - f_y)``, the mean of ::

        f_y^alpha * sum_{k != y} q_k log q_k / log K

    of Chen et al., "Improving Adversarial Robustness via Guided Complement Entropy", ICCV 2019,
    with their alpha. 1 - f_y is the sum of the false probabilities, so nothing cancels where f_y is
    near 1: q is the softmax over the false classes alone.
    """

    def __init__(self, alpha: float = 0.333) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(
        self,
        logits: Tensor,  # [N, K], K >= 2
        labels: Tensor,  # [N], int64
    ) -> tuple[Tensor, LossStats]:
        """Return the mean loss in float32 (float64 for float64 logits) and the statistics."""
        if logits.dtype != torch.float64:
            logits = logits.float()
        label = labels[:, None]
        is_true = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, label, True)
        log_q = logits.masked_fill(is_true, -math.inf).log_softmax(dim=1)
        log_q = log_q.masked_fill(is_true, 0.0)  # not 0 * -inf
        log_true = logits.log_softmax(dim=1).gather(1, label).squeeze(1)
        complement = (log_q.exp() * log_q).sum(dim=1) / math.log(logits.shape[1])
        loss = ((self.alpha * log_true).exp() * complement).mean()
        return loss, _statistics(logits.detach(), is_true, log_true.detach())


def _statistics(logits: Tensor, is_true: Tensor, log_true: Tensor) -> LossStats:
    """What the fused kernels report; a tie for the largest logit goes to the lowest class."""
    top, runner_up = logits.masked_fill(is_true, -math.inf).max(dim=1)
    label = is_true.int().argmax(dim=1)
    logit_gap = logits.gather(1, label[:, None]).squeeze(1) - top
    true_prob = log_true.exp()
    return LossStats(
        prob_gap=true_prob - (log_true - logit_gap).exp(),
        logit_gap=logit_gap,
        runner_up=runner_up,
        correct=(logit_gap > 0) | ((logit_gap == 0) & (label < runner_up)),
    )
