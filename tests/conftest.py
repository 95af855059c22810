"""Fixtures that the tests share."""

from __future__ import annotations

import pytest
import torch
from oracle import KERNELS


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    return str(request.param)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator, so that a failure can be seen again."""
    return torch.Generator().manual_seed(0)
