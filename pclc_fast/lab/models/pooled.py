"""A convolution and the max-pooling behind it at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_CORNERS = [(row, column) for row in (0, 1) for column in (0, 1)]  # of a 2 x 2 window, in its order

_POOLING = nn.MaxPool2d(2)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class FirstPooled(nn.Sequential):
    """Layers in turn, made for a first one that is a convolution with 2 x 2 max-pooling behind it.

    While they train on a CPU these two are computed at once, which takes a tenth off an epoch of
    LeNet-5. Results agree with those of the layers to rounding.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return what the last layer gives."""
        may = self.training and _on_cpu(images)
        convolution = _pooled_convolution([*islice(self, 2)]) if may else None
        if convolution is None:
            features: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
            return features
        features = convolved_and_pooled(convolution, images)
        for layer in islice(self, 2, None):
            features = layer(features)
        return features


def convolved_and_pooled(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """Return the largest of each 2 x 2 outputs of a convolution of stride 1, in channels_last.

    The corners of the windows become channels of a convolution of stride 2; its outputs lie so that
    whole vectors of pixels are compared, where max-pooling has as many at a time as there are
    channels.
    """
    # Strided by hand, its gradient lies as the weight does, which DistributedDataParallel expects.
    weight = layer.weight.as_strided(layer.weight.shape, layer.weight.stride())
    weight = torch.stack([_moved(weight, *corner) for corner in _CORNERS]).flatten(0, 1)
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


def _on_cpu(images: Tensor) -> bool:
    """Whether these are images, not what stands for them where somebody traces the layers."""
    is_real = isinstance(images, Tensor) and not torch.compiler.is_compiling()
    return is_real and images.device.type == "cpu"


def _pooled_convolution(layers: Sequence[nn.Module]) -> nn.Conv2d | None:
    """The first of two layers, if they are what was said and nobody watches them."""
    if [type(layer) for layer in layers] != [nn.Conv2d, nn.MaxPool2d]:
        return None
    convolution, pooling = layers
    assert isinstance(convolution, nn.Conv2d)
    is_plain = (
        {*convolution.stride, *convolution.dilation, convolution.groups} == {1}
        and convolution.padding_mode == "zeros"
        and isinstance(convolution.padding, tuple)
        and pooling.extra_repr() == _POOLING.extra_repr()
        and not any(vars(layer)[hooks] for layer in layers for hooks in _HOOKS)
    )
    return convolution if is_plain else None


def _moved(weight: Tensor, row: int, column: int) -> Tensor:
    """Weights [..., k, k] in a frame of k + 1, for the corner ``row``, ``column`` of a window."""
    return F.pad(weight, (column, 1 - column, row, 1 - row))


def _rows_last(images: Tensor) -> Tensor:
    """The images, contiguous by their strides: of one channel, channels_last is contiguous too."""
    return images.contiguous().flatten(1).view(images.shape)
