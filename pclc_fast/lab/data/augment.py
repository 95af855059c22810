"""Augmentation of a whole batch at once, on whatever device it lies.

Every function takes images [N, C, H, W], float32 in [0, 1], and a generator on their device, and
returns images of the same shape; each image gets draws of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_PADDING = 4
_APPLIED = 0.8
_DEGREES = 10.0
_AREA, _ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
_ATTEMPTS = 10  # at a crop that fits, as torchvision's RandomResizedCrop has it


def none(images: Tensor, _: torch.Generator) -> Tensor:
    """Return the images as they are."""
    return images


def flip_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images; then move each by up to 4 pixels, black coming in."""
    count, _, height, width = images.shape

    def shifted(size: int) -> Tensor:
        shape, device = (count, 1), images.device
        offset = torch.randint(2 * _PADDING + 1, shape, generator=generator, device=device)
        return offset + torch.arange(size, device=device)

    rows, columns = shifted(height), shifted(width)
    mirrored = _happens(count, 0.5, generator, images.device)
    columns = torch.where(mirrored[:, None], width - 1 + 2 * _PADDING - columns, columns)
    padded = F.pad(images, (_PADDING,) * 4).permute(0, 2, 3, 1)
    number = torch.arange(count, device=images.device)[:, None, None]
    return padded[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def released(images: Tensor, generator: torch.Generator) -> Tensor:
    """What the paper's released code does to four images of five: mirror every second one, turn it
    by up to 10 degrees, and enlarge a random part to the whole.

    The code does so in two steps, the first to the nearest pixel. Here one bilinear interpolation
    does both.
    """
    changed = resample(images, draw(images, generator))
    applied = _happens(len(images), _APPLIED, generator, images.device)
    return torch.where(applied[:, None, None, None], changed, images)


class Draws(NamedTuple):
    """What happens to each image, in this order; all float32 [N] but ``mirrored``."""

    mirrored: Tensor  # bool
    degrees: Tensor  # counter-clockwise about the middle of the image
    top: Tensor  # in pixels
    left: Tensor
    height: Tensor
    width: Tensor


def draw(images: Tensor, generator: torch.Generator) -> Draws:
    """Draw what ``released`` does to the images that it changes.

    The crop is torchvision's RandomResizedCrop: an area and, on a logarithmic scale, an aspect
    ratio; the first of ten that fits into the image, else the largest part in its middle.
    """
    count, _, height, width = images.shape
    device = images.device

    def uniform(low: float, high: float, shape: tuple[int, ...] = (count,)) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    mirrored = _happens(count, 0.5, generator, device)
    degrees = uniform(-_DEGREES, _DEGREES)
    area = height * width * uniform(*_AREA, (count, _ATTEMPTS))
    low, high = map(math.log, _ASPECT)
    aspect = uniform(low, high, (count, _ATTEMPTS)).exp()
    widths, heights = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.int().argmax(dim=1, keepdim=True)
    any_fits = fits.any(dim=1)
    whole = _largest(height, width)
    crop_height = torch.where(any_fits, heights.gather(1, first)[:, 0], whole[0])
    crop_width = torch.where(any_fits, widths.gather(1, first)[:, 0], whole[1])

    def start(room: Tensor) -> Tensor:
        anywhere = (uniform(0.0, 1.0) * (room + 1)).floor().minimum(room)
        return torch.where(any_fits, anywhere, (room / 2).floor())

    return Draws(
        mirrored,
        degrees,
        start(height - crop_height),
        start(width - crop_width),
        crop_height,
        crop_width,
    )


def _largest(height: int, width: int) -> tuple[float, float]:
    """The largest part of an image with an aspect ratio that is allowed."""
    low, high = _ASPECT
    if width < low * height:
        return round(width / low), width
    if width > high * height:
        return height, round(height * high)
    return height, width


def resample(images: Tensor, draws: Draws) -> Tensor:
    """Mirror, turn and crop as drawn; black is outside the image."""
    height, width = images.shape[2:]
    # Backwards, from where a pixel of the result lies to where it comes from.
    y = _within(draws.top, draws.height, height)[:, :, None]
    x = _within(draws.left, draws.width, width)[:, None, :]
    angle = torch.deg2rad(draws.degrees)[:, None, None]
    cos, sin = angle.cos(), angle.sin()
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y, x = y - middle_y, x - middle_x
    source_x, source_y = cos * x - sin * y, sin * x + cos * y
    source_x = torch.where(draws.mirrored[:, None, None], -source_x, source_x)
    # grid_sample counts from -1 to 1 between the outer edges of the outer pixels.
    grid = torch.stack([2 * source_x / width, 2 * source_y / height], dim=3)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _within(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where the pixels of an axis come from when a part is enlarged to ``size``; [N, size].

    What lies outside the part is not looked at: its outermost pixels go on.
    """
    start, length = start[:, None], length[:, None]
    place = (torch.arange(size, device=start.device) + 0.5) * (length / size) - 0.5
    return start + torch.minimum(place.clamp(min=0.0), length - 1)


def _happens(
    count: int, probability: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    return torch.rand(count, generator=generator, device=device) < probability


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": none,
    "flip-crop": flip_crop,
    "released": released,
}
