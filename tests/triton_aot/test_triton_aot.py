"""The ahead-of-time check in short: that it runs, and that it can fail.

All of it takes minutes: ``python tests/triton_aot``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent

pytest.importorskip("triton")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the interpreter of Triton, which other tests may have asked for."""
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    return subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )


def printed_by(script: str) -> Any:
    """Return the JSON that a script of this folder prints."""
    done = run(str(FOLDER / script))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_variant_compiles_for_every_architecture() -> None:
    done = run(str(FOLDER), "--only", "finish-full-fp32")
    assert done.returncode == 0, done.stdout + done.stderr
    header, *lines = done.stdout.splitlines()
    assert re.findall(r"sm_\d+", header) == ["sm_80", "sm_90", "sm_100"]
    row = next(line for line in lines if line.startswith("finish-full-fp32"))
    assert re.fullmatch(r"\S+( +\d+){9}", row)


def test_a_row_too_long_for_the_registers_is_found() -> None:
    """At 64K elements a row does not fit into the registers of a program on sm_90."""
    complaints = printed_by("spilling.py")
    (too_long,) = complaints.pop("too-long")
    assert re.fullmatch(r"too-long on sm_90: \d+ bytes of stack a thread, at most 0 .*", too_long)
    assert list(complaints.values()) == [[]]


def test_numbers_that_change_compile_nothing_new() -> None:
    """Not the coefficients, the number of rows, or ignore_index, in any regime."""
    compiled = printed_by("recompiling.py")
    assert list(compiled) == ["1 to 17 rows", "257 to 4096 rows"]
    for regime, counts in compiled.items():
        assert len(counts) == 3, regime  # so many numbers of classes
        for of_kernel in counts.values():
            again = of_kernel.pop("prepare-mean")  # for backward, which looks at grad_output
            assert again == 2
            assert sorted(of_kernel) == [
                "backward-mean", "backward-sum", "finish-mean", "finish-sum", "forward-mean",
                "forward-sum",
            ]  # fmt: skip
            assert set(of_kernel.values()) == {1}


def test_a_compiler_that_crashes_is_a_failure() -> None:
    """LLVM takes its process with it where it cannot go on."""
    program = (
        f"import runpy, sys; sys.path.insert(0, {str(FOLDER)!r}); import ahead_of_time\n"
        "ahead_of_time.ARCHITECTURES += (131,)  # there is none\n"
        "sys.argv = ['triton_aot', '--only', 'prepare-full-fp32-hard-16-again']\n"
        f"runpy.run_path({str(FOLDER)!r}, run_name='__main__')"
    )
    done = run("-c", program)
    assert done.returncode == 1, done.stderr
    assert "FAIL the compiler crashed, at prepare-full-fp32-hard-16-again for sm_1" in done.stdout


def test_it_does_not_run_in_the_interpreter() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("TRITON_INTERPRET=1 is set")
