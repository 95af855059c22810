"""Fixtures that the tests share."""

from __future__ import annotations

import pytest
import torch

from pclc_fast import backends

# Every backend that can be tested here takes the whole suite.
KERNELS = [name for name, status in backends().items() if status.usable and name != "reference"]


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    return str(request.param)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator, so that a failure can be seen again."""
    return torch.Generator().manual_seed(0)
