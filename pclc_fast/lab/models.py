"""The networks that the lab trains."""

from __future__ import annotations

import torch
from torch import nn


def small_cnn(*, seed: int, classes: int = 10) -> nn.Sequential:
    """Return a network of two convolutions and two linear layers for images [N, 1, 8, 8].

    Its weights depend on ``seed`` alone; the global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # layers draw their weights from this one
        return nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        )
