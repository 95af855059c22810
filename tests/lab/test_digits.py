"""The digits and how they are split."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from pclc_fast.lab.digits import DigitsData, digits_data, stratified_split

LABELS = torch.from_numpy(load_digits().target)


def test_sizes_and_ranges(data: DigitsData) -> None:
    assert data.train_images.shape == (1347, 1, 8, 8)
    assert data.test_images.shape == (450, 1, 8, 8)
    assert data.train_labels.shape == (1347,)
    assert data.test_labels.shape == (450,)
    for images in (data.train_images, data.test_images):
        assert images.dtype == torch.float32
        assert images.min() == 0
        assert images.max() == 1
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64


def test_every_image_is_in_exactly_one_part() -> None:
    train, test = stratified_split(LABELS)
    assert torch.cat([train, test]).sort().values.equal(torch.arange(1797))


def test_every_class_gives_a_quarter(data: DigitsData) -> None:
    for label in range(10):
        members = int(LABELS.eq(label).sum())
        assert int((data.test_labels == label).sum()) == round(members / 4)


def test_images_keep_their_labels(data: DigitsData) -> None:
    pixels = torch.from_numpy(load_digits().images)
    train, test = stratified_split(LABELS)
    assert data.train_labels.equal(LABELS[train])
    assert (16 * data.test_images[:, 0].double()).equal(pixels[test])
    assert (16 * data.train_images[:, 0].double()).equal(pixels[train])


def test_the_split_is_fixed_and_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(1)
    first = digits_data()
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == drawn
    torch.manual_seed(2)
    assert all(a.equal(b) for a, b in zip(first, digits_data(), strict=True))
