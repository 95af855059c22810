"""Networks with batch normalisation, for colour images, as the paper's released code has them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .classifier import Shape

_VGG13 = (64, 128, 256, 512, 512)  # two convolutions each, then half the size
_RESNET = (16, 32, 64)
_BLOCKS = 9  # of two convolutions each: with the first and the linear layer, 56


def vgg13_layers(shape: Shape, classes: int) -> nn.Sequential:
    """VGG-13 with BatchNorm; 512-512-K for 32 x 32 and 2048-512-K for 64 x 64.

    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    ICLR 2015.
    """
    channels, height, width = shape
    layers: list[nn.Module] = []
    for wide in _VGG13:
        for before in (channels, wide):
            layers += [_convolution(before, wide, bias=True), nn.BatchNorm2d(wide), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = wide
    pixels = (height // 2 ** len(_VGG13)) * (width // 2 ** len(_VGG13))
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(channels * pixels, 512),
        nn.ReLU(),
        nn.Linear(512, classes),
    )


def resnet56_layers(shape: Shape, classes: int) -> nn.Sequential:
    """ResNet-56 with shortcuts that have no weights, initialised as its authors do.

    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2.
    """
    before = _RESNET[0]
    layers: list[nn.Module] = [
        _convolution(shape[0], before),
        nn.BatchNorm2d(before),
        nn.ReLU(),
    ]
    for wide in _RESNET:
        for _ in range(_BLOCKS):
            layers.append(_Block(before, wide))
            before = wide
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network


class _Block(nn.Module):
    """Two convolutions beside a shortcut; with more channels than before, at half the size.

    Option A: the shortcut takes every second pixel and adds channels of zeros on both sides.
    """

    def __init__(self, before: int, wide: int) -> None:
        super().__init__()
        self._stride = 2 if wide > before else 1
        self._zeros = (wide - before) // 2
        self.layers = nn.Sequential(
            _convolution(before, wide, stride=self._stride),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            _convolution(wide, wide),
            nn.BatchNorm2d(wide),
        )

    def forward(self, images: Tensor) -> Tensor:
        shortcut = images
        if self._stride > 1:
            shortcut = F.pad(images[:, :, ::2, ::2], (0, 0, 0, 0, self._zeros, self._zeros))
        return F.relu(self.layers(images) + shortcut)


def _convolution(before: int, after: int, *, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=bias)
