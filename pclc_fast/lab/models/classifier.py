"""What every network of the lab has in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

Shape = tuple[int, int, int]  # channels, height, width


class Network(nn.Module):
    """Pixels in [0, 1] to logits; the normalisation is a part of it, so that attacks go through it.

    Mean and standard deviation are buffers: the saved weights need nothing besides.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1))

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [N, C, H, W] whose channels have mean 0 and deviation 1 in training."""
        return (images - self.mean) / self.std

    def features(self, images: Tensor) -> Tensor:
        """Return what the last layer sees, [N, F]."""
        raise NotImplementedError


class Classifier(Network):
    """A body and, to turn its features into logits, a head."""

    def __init__(
        self, body: nn.Module, head: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(mean, std)
        self.body, self.head = body, head

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(self.normalised(images))
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, [N, K]."""
        logits: Tensor = self.head(self.features(images))
        return logits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let layers draw their weights by ``seed``; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
