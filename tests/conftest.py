"""Fixtures that the tests share."""

from __future__ import annotations

import pytest
import torch
from oracle import KERNELS


def pytest_configure(config: pytest.Config) -> None:
    # The interpreter computes with NumPy, which warns of infinities and NaN that are meant.
    for warning in ("RuntimeWarning", "DeprecationWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{warning}:triton.runtime.interpreter")


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    return str(request.param)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator, so that a failure can be seen again."""
    return torch.Generator().manual_seed(0)
