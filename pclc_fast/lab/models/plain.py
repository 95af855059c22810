"""Networks without normalisation layers, for small and mostly grey images.

LeNet-5 and CNN-3 are those of the paper's released code; CNN-3 is the substitute that its attacker
trains. They apply ReLU after max-pooling: the same numbers and gradients as the other way round, at
less cost.
"""

from __future__ import annotations

from torch import nn

from .classifier import Shape, seeded
from .pooled import FirstPooled


def small_cnn(*, seed: int, classes: int = 10) -> nn.Sequential:
    """Return ``small_cnn_layers`` for images [N, 1, 8, 8].

    Its weights depend on ``seed`` alone; the global random state is left as it was.
    """
    with seeded(seed):
        return small_cnn_layers((1, 8, 8), classes)


def small_cnn_layers(shape: Shape, classes: int) -> nn.Sequential:
    """Two convolutions and two linear layers."""
    channels, height, width = shape
    half = (height + 1) // 2 * ((width + 1) // 2)
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * half, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def lenet5_layers(shape: Shape, classes: int) -> nn.Sequential:
    """5 x 5 convolutions of 6 and 16, the first padded; 400-120-84-K for 28 x 28."""
    channels, height, width = shape
    return FirstPooled(
        nn.Conv2d(channels, 6, kernel_size=5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * _after_lenet5(height) * _after_lenet5(width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def _after_lenet5(size: int) -> int:
    return (size // 2 - 4) // 2


def cnn3_layers(shape: Shape, classes: int) -> nn.Sequential:
    """5 x 5 convolutions of 16, 32 and 64; 576-100-K for 28 x 28."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 16, kernel_size=5),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * _after_cnn3(height) * _after_cnn3(width), 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def _after_cnn3(size: int) -> int:
    return ((size - 8) // 2 - 4) // 2
