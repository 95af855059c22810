"""Fixtures that the tests share."""

from __future__ import annotations

import functools
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracle import INTERPRETED, KERNELS

# Triton's interpreter is for the tests of kernels: what no kernel takes part in runs without it.
ELSEWHERE = ["benchmarks", "lab", "triton_aot"]
ELSEWHERE += ["test_arguments.py", "test_checked_values.py", "test_import_contract.py"]
ELSEWHERE += ["test_process.py"]
collect_ignore = ELSEWHERE if INTERPRETED else []


def pytest_configure(config: pytest.Config) -> None:
    if INTERPRETED and "triton" in KERNELS:
        look_up_builtins_once()
    # The interpreter computes with NumPy, which warns of infinities and NaN that are meant.
    for warning in ("RuntimeWarning", "DeprecationWarning"):
        config.addinivalue_line("filterwarnings", f"ignore::{warning}:triton.runtime.interpreter")


def look_up_builtins_once() -> None:
    """Take half of their time from interpreted kernels.

    At every call of a function in a kernel the interpreter lists all members of Triton's modules,
    of which it replaces the builtins. Which those are does not change.
    """
    import triton.language as tl
    from triton.runtime import interpreter

    @functools.cache
    def builtins_of(module: Any) -> list[str]:
        members = inspect.getmembers(module)
        return [name for name, member in members if tl.core.is_builtin(member)]

    def members_that_matter(module: Any) -> list[tuple[str, Any]]:
        return [(name, getattr(module, name)) for name in builtins_of(module)]

    interpreter.inspect = SimpleNamespace(**{**vars(inspect), "getmembers": members_that_matter})


@pytest.fixture(params=KERNELS)
def backend(request: pytest.FixtureRequest) -> str:
    """The backend under test."""
    return str(request.param)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded generator, so that a failure can be seen again."""
    return torch.Generator().manual_seed(0)
