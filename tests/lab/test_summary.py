"""The statistics: against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from pclc_fast.lab.summary import (
    Condition,
    Difference,
    Measurement,
    mean_and_spread,
    paired_difference,
    wilson_interval,
)


def measured(*rows: list[int]) -> list[Measurement]:
    """One measurement a row, of which 1 is an image classified correctly."""
    condition = Condition("none", 0.0)
    return [
        Measurement(seed, "CE", condition, torch.tensor(row, dtype=torch.bool), 0.0, 0.0)
        for seed, row in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("correct", "images", "expected"),
    [
        (8, 10, (0.4902, 0.9433)),
        (0, 10, (0.0, 0.2775)),
        (10, 10, (0.7225, 1.0)),
        (225, 450, (0.4540, 0.5460)),
    ],
)
def test_wilson_interval(correct: int, images: int, expected: tuple[float, float]) -> None:
    interval = wilson_interval(correct / images, images)
    assert interval == pytest.approx(expected, abs=1e-4)
    assert 0 <= interval[0] < interval[1] <= 1


def test_mean_and_spread() -> None:
    assert mean_and_spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, math.sqrt(7.0)))
    mean, spread = mean_and_spread([2.0])
    assert mean == 2
    assert math.isnan(spread)


def test_one_seed_has_the_error_of_the_images() -> None:
    difference = paired_difference(measured([1, 1, 0, 0]), measured([1, 1, 1, 0]))
    # differences 0, 0, 1, 0: variance 1/4
    assert difference == pytest.approx((0.25, math.sqrt(0.25 / 4)))


def test_seeds_add_their_error() -> None:
    first = measured([1, 1, 0, 0], [1, 0, 0, 0])
    second = measured([1, 1, 1, 0], [1, 1, 1, 1])
    # by image 0, 1/2, 1, 1/2: variance 1/6; by seed 1/4 and 3/4: variance 1/8
    assert paired_difference(first, second) == pytest.approx(
        (0.5, math.sqrt(1 / 6 / 4 + 1 / 8 / 2))
    )
    assert paired_difference(second, first).mean == -0.5


def test_equal_models_do_not_differ() -> None:
    rows = measured([1, 0, 1], [0, 0, 1])
    assert paired_difference(rows, rows) == (0, 0)
    assert paired_difference(rows, rows).sign == 0


@pytest.mark.parametrize(
    ("mean", "error", "sign"), [(0.2, 0.09, 1), (-0.2, 0.09, -1), (0.2, 0.11, 0), (-0.2, 0.11, 0)]
)
def test_a_difference_counts_above_two_errors(mean: float, error: float, sign: int) -> None:
    assert Difference(mean, error).sign == sign
