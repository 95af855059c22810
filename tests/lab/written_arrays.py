"""Random images and labels, written for tests of what reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pclc_fast.lab.data import ImageData

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, np.dtype[Any]]


def pixels(*shape: int) -> Array:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


class Written:
    """What a test wrote: arrays [N, C, H, W] and labels, of training and test."""

    def __init__(self, train: int, test: int, shape: tuple[int, int, int], classes: int) -> None:
        self.images = pixels(train, *shape), pixels(test, *shape)
        # The last class is there, so that one label too many would be noticed.
        self.labels = tuple(np.arange(n)[::-1] % classes for n in (train, test))

    def assert_read(self, data: ImageData) -> None:
        read = (data.train_images, data.test_images), (data.train_labels, data.test_labels)
        for found, expected in zip(read[0], self.images, strict=True):
            assert found.dtype == torch.uint8
            assert np.array_equal(found.numpy(), expected)
        for found, expected in zip(read[1], self.labels, strict=True):
            assert found.dtype == torch.int64
            assert np.array_equal(found.numpy(), expected)
