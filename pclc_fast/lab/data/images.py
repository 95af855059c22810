"""A data set in memory: images of one size, their labels, and what is known of both."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import DataError

_CHUNK = 4096  # images that are looked at at once


class Raw(NamedTuple):
    """What a reader returns."""

    train_images: Tensor  # [N, C, H, W], uint8, 0 to ``brightest``
    train_labels: Tensor  # [N], int64
    test_images: Tensor  # [M, C, H, W], uint8
    test_labels: Tensor  # [M], int64
    class_names: tuple[str, ...]
    brightest: int = 255


@dataclass(frozen=True, eq=False)
class ImageData:
    """Images of one size and their labels; ``image / brightest`` lies in [0, 1]."""

    name: str
    train_images: Tensor  # [N, C, H, W], uint8
    train_labels: Tensor  # [N], int64
    test_images: Tensor  # [M, C, H, W], uint8
    test_labels: Tensor  # [M], int64
    class_names: tuple[str, ...]
    brightest: int
    mean: tuple[float, ...]  # of each channel, over the training images in [0, 1]
    std: tuple[float, ...]
    sha256: str  # of images, labels and class names: where they come from does not matter

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)


def describe(name: str, raw: Raw) -> ImageData:
    """Check what was read and add what follows from it.

    Raises:
        DataError: the parts do not fit together.
    """
    for part, images, labels in (
        ("training", raw.train_images, raw.train_labels),
        ("test", raw.test_images, raw.test_labels),
    ):
        if len(images) != len(labels):
            raise DataError(f"{name}: {len(images)} {part} images, but {len(labels)} labels")
        if not len(images):
            raise DataError(f"{name}: there are no {part} images")
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(raw.class_names):
            raise DataError(
                f"{name}: the {part} labels go from {low} to {high}, "
                f"but there are {len(raw.class_names)} classes, counted from 0"
            )
    if raw.train_images.shape[1:] != raw.test_images.shape[1:]:
        raise DataError(
            f"{name}: the training images are {_size(raw.train_images)}, "
            f"the test images {_size(raw.test_images)}"
        )
    mean, std = _statistics(raw.train_images, raw.brightest)
    return ImageData(name, *raw, mean=mean, std=std, sha256=_digest(raw))


def _size(images: Tensor) -> str:
    return "x".join(map(str, images.shape[1:]))


def _statistics(images: Tensor, brightest: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, from how often it has each value.

    Counting is faster than summing, and integers give the same on every machine.
    """
    often = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for chunk in torch.split(images, _CHUNK):
        for channel, values in zip(often, chunk.transpose(0, 1).flatten(1), strict=True):
            channel += torch.bincount(values, minlength=256)
    moments = [_moments(counts) for counts in often.tolist()]
    # A channel without any contrast stays as it is.
    return (
        tuple(mean / brightest for mean, _ in moments),
        tuple(std / brightest or 1.0 for _, std in moments),
    )


def _moments(counts: list[int]) -> tuple[float, float]:
    """Mean and standard deviation of values that occur so often, the first being 0."""
    count = sum(counts)
    total = sum(value * often for value, often in enumerate(counts))
    squares = sum(value**2 * often for value, often in enumerate(counts))
    return total / count, math.sqrt((count * squares - total**2) / count**2)


def _digest(raw: Raw) -> str:
    digest = hashlib.sha256(json.dumps([raw.class_names, raw.brightest]).encode())
    for tensor in raw[:4]:
        digest.update(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
