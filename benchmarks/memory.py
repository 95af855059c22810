"""Peak memory of forward + backward beyond the logits, read from the kernel in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from .harness import THREADS, Shape
from .workbench import FUNCTIONS

_ROOT = Path(__file__).parent.parent
# Blocks above this come from the system and go back at once, so that none hides in a warm heap.
_BLOCK_BYTES = 4096


def formula_bytes(shape: Shape, element_size: int) -> int:
    """One gradient, 32 bytes of statistics a row, a float32 row a thread.

    Short rows are several at a time, which is up to 4 KiB more and not counted.
    """
    rows, classes = shape
    return rows * classes * element_size + 32 * rows + 4 * classes * THREADS


def peak_bytes(shape: Shape) -> dict[str, int]:
    """Run this file for the shape; return the peak of every function, of ours in bfloat16 too.

    Empty where the system does not say: elsewhere than on Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        return {}
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_BLOCK_BYTES)}
    command = [sys.executable, "-m", "benchmarks.memory", *map(str, shape)]
    done = subprocess.run(
        command, cwd=_ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout))


def _peak_of(function: str, shape: Shape, dtype: torch.dtype) -> int:
    logits = torch.randn(shape).to(dtype).requires_grad_()
    target = torch.randint(shape[1], (shape[0],))
    Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
    before = _status_bytes("VmRSS")
    FUNCTIONS[function](logits, target).backward()  # type: ignore[no-untyped-call]
    return _status_bytes("VmHWM") - before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return 1024 * int(kilobytes)


def _main() -> None:
    shape = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(THREADS)
    torch.ones(1 << 20).exp_()  # starts the threads
    peaks = {}
    for dtype, functions in ((torch.float32, list(FUNCTIONS)), (torch.bfloat16, ["ours"])):
        for function in functions:
            # Loads the code for rows of this length, and what lives as long as the process.
            _peak_of(function, (4, shape[1]), dtype)
            name = function if dtype == torch.float32 else f"{function} bfloat16"
            peaks[name] = _peak_of(function, shape, dtype)
    print(json.dumps(peaks))


if __name__ == "__main__":
    _main()
