"""Adds ``pytest --benchmark``, which runs the benchmarks instead of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--benchmark", action="store_true", help="run the benchmarks instead of the tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--benchmark"):
        return
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(BENCHMARKS)]
    config.option.benchmark_quiet = True  # its table has one line a measurement: hundreds of them


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keep the benchmarks out of every other run, ``pytest .`` included."""
    is_benchmark = collection_path == BENCHMARKS or BENCHMARKS in collection_path.parents
    return True if is_benchmark and not config.getoption("--benchmark") else None
