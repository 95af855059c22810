"""Check and measure every backend on one NVIDIA GPU: ``python -m benchmarks.gpu --part check``.

The parts, each of them under 9 minutes on an H100:

check   every backend against the float64 oracle; CUDA graphs, streams, synchronisation, memory
large   bandwidth against a device copy, plain PyTorch and F.cross_entropy, 10 to 262144 classes
small   256 rows, where everything is call overhead, eager and as a CUDA graph
peers   other libraries' cross-entropy kernels, where they are installed

A part writes JSON and its tables to results/ as it goes, so that one that is cut short loses only
what it had not reached. What was not run, and why, is said line by line.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if not __package__:  # python benchmarks/gpu.py
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from benchmarks import gpu_check, gpu_large, gpu_peers, gpu_small
from benchmarks.gpu_record import Budget, DeviceLostError, Record, gpu_environment

PARTS = {
    "check": gpu_check.run,
    "large": gpu_large.run,
    "small": gpu_small.run,
    "peers": gpu_peers.run,
}
NO_GPU = 2  # the exit status


def main(arguments: list[str] | None = None) -> int:
    """Run one part; return 0, 1 where a check failed or the device was lost, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--part", required=True, choices=PARTS)
    parser.add_argument("--minutes", type=float, default=8.5, help="start nothing after this long")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"no GPU: torch {torch.__version__} sees no CUDA device here, nothing was run")
        return NO_GPU
    os.environ.pop("PCLC_FAST_DEBUG", None)  # it synchronises
    budget = Budget(options.minutes)
    command = f"python -m benchmarks.gpu --part {options.part}"
    record = Record(options.part, gpu_environment(command), budget)
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        PARTS[options.part](record, device)
    except DeviceLostError as error:
        record.fail("the device", f"lost, nothing after this can run: {error}")
    finally:
        record.write()
    record.print_summary()
    return 1 if record.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
