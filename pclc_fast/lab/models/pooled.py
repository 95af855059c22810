"""A convolution and the max-pooling behind it at once."""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CORNERS = [(row, column) for row in (0, 1) for column in (0, 1)]  # of a 2 x 2 window, in its order


class FirstPooled(nn.Sequential):
    """Layers in turn, made for a first one that is a convolution with 2 x 2 max-pooling behind it.

    While they train on a CPU these two are computed at once, which takes a tenth off an epoch of
    LeNet-5. Results agree with those of the layers to rounding; the hooks of the two do not run.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return what the last layer gives."""
        first, second = islice(self, 2)
        here = self.training and images.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (here and isinstance(first, nn.Conv2d) and isinstance(second, nn.MaxPool2d)):
            features: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
            return features
        features = convolved_and_pooled(first, images)
        for layer in islice(self, 2, None):
            features = layer(features)
        return features


def convolved_and_pooled(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Return the largest of each 2 x 2 outputs of a convolution of stride 1, in channels_last.

    The corners of the windows become channels of a convolution of stride 2; its outputs lie so that
    whole vectors of pixels are compared, where max-pooling has as many at a time as there are
    channels.
    """
    weight = torch.stack([_moved(layer.weight, *corner) for corner in _CORNERS]).flatten(0, 1)
    bias = None if layer.bias is None else layer.bias.repeat(len(_CORNERS))
    corners = F.conv2d(_rows_last(images), weight, bias, stride=2, padding=layer.padding)
    count, _, height, width = corners.shape
    shape = count, len(_CORNERS), layer.out_channels, height * width
    pixels = corners.reshape(shape).permute(0, 3, 1, 2)  # [N, pixels, corners, C]
    largest = F.max_pool2d(pixels, (len(_CORNERS), 1)).permute(0, 2, 3, 1).squeeze(1)
    if largest.requires_grad:
        # Pooling copies all corners where the gradient lies otherwise than what it gave.
        largest.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
    by_pixel = largest.transpose(1, 2).contiguous()  # [N, pixels, C]
    return by_pixel.view(count, height, width, layer.out_channels).permute(0, 3, 1, 2)


def _moved(weight: Tensor, row: int, column: int) -> Tensor:
    """Weights [..., k, k] in a frame of k + 1, for the corner ``row``, ``column`` of a window."""
    return F.pad(weight, (column, 1 - column, row, 1 - row))


def _rows_last(images: Tensor) -> Tensor:
    """The images, contiguous by their strides: of one channel, channels_last is contiguous too."""
    return images.contiguous().flatten(1).view(images.shape)
