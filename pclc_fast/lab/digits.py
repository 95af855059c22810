"""The handwritten digits that scikit-learn ships: real, 8 x 8, 1797 of them, no download."""

from __future__ import annotations

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor

CLASSES = 10
_TEST_SHARE = 0.25
_SPLIT_SEED = 0  # one split for every run, so that runs differ by their training alone
BRIGHTEST = 16  # the pixels are counts from 0 to 16


class DigitsData(NamedTuple):
    """Images in [0, 1] and their labels, split once and for all."""

    train_images: Tensor  # [N, 1, 8, 8], float32
    train_labels: Tensor  # [N], int64
    test_images: Tensor  # [M, 1, 8, 8], float32
    test_labels: Tensor  # [M], int64


def digits_data() -> DigitsData:
    """Return the digits, a quarter of every class held out for the test."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().div_(BRIGHTEST).reshape(-1, 1, 8, 8)
    labels = torch.from_numpy(labels).long()
    train, test = stratified_split(labels)
    return DigitsData(images[train], labels[train], images[test], labels[test])


def stratified_split(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the indices of the training and of the test images, each in ascending order."""
    generator = torch.Generator().manual_seed(_SPLIT_SEED)
    is_test = torch.zeros_like(labels, dtype=torch.bool)
    for label in range(CLASSES):
        members = (labels == label).nonzero().squeeze(1)
        shuffled = members[torch.randperm(len(members), generator=generator)]
        is_test[shuffled[: round(_TEST_SHARE * len(members))]] = True
    return (~is_test).nonzero().squeeze(1), is_test.nonzero().squeeze(1)
