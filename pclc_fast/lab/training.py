"""Training of one phase: one loss, a fresh Adam, a number of epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pclc_fast import PCLCLoss


class EpochStats(NamedTuple):
    """Means over the training images of an epoch, each taken when its batch was trained on."""

    loss: float
    accuracy: float
    prob_gap: float
    logit_gap: float


def train(
    model: nn.Module,
    images: Tensor,  # [N, ...]
    labels: Tensor,  # [N], int64
    criterion: PCLCLoss,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> Iterator[EpochStats]:
    """Train ``model`` in place; yield after every epoch, so it trains only as far as it is read.

    ``criterion`` is called with ``return_stats``: the statistics come from the pass that computes
    the loss. ``generator`` shuffles.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for epoch in range(1, epochs + 1):
        sums = torch.zeros(len(EpochStats._fields), dtype=torch.float64)
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            loss, stats = criterion(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            means = (loss.detach(), stats.correct.double(), stats.prob_gap, stats.logit_gap)
            sums += len(batch) * torch.stack([mean.mean().double() for mean in means])
        epoch_stats = EpochStats(*(sums / len(labels)).tolist())
        if not math.isfinite(epoch_stats.loss):
            raise FloatingPointError(
                f"the loss became {epoch_stats.loss} in epoch {epoch}: lr {lr:g} is too large"
            )
        yield epoch_stats
