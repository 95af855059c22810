"""What the benchmarks share, and what they leave behind: tables, and files under results/."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from .environment import environment
from .export import write
from .harness import SHAPES, THREADS, Results
from .report import NOTES, interleaved_line, plain, sections
from .workbench import Workbench

_start = time.monotonic()
_results = Results()


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield _results
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def workbench(request: pytest.FixtureRequest, results: Results) -> Workbench:
    """The data of one shape at a time: pytest runs everything on it before the next."""
    return Workbench(request.param, results)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the shapes that were timed in full; write files where nothing is missing."""
    seconds = time.monotonic() - _start
    if _results.complete_shapes():
        for title, rows in sections(_results):
            terminalreporter.section(title)
            for line in plain(rows):
                terminalreporter.write_line(line)
        terminalreporter.write_line(f"\n{NOTES}")
    if _results.interleaved:
        terminalreporter.write_line(f"\n{interleaved_line(_results)}")
    if _results.is_complete():
        command = " ".join(["pytest", *config.invocation_params.args])
        for path in write(_results, environment(command, seconds)):
            terminalreporter.write_line(f"wrote {path.relative_to(config.rootpath)}")
    if _results.times:
        terminalreporter.write_line(f"{seconds:.0f} s in total")
