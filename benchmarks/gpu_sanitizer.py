"""NVIDIA's compute-sanitizer over a small run of every kernel, in a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch

from pclc_fast import pc_lc_loss

from .gpu_jobs import Job, Outcome
from .gpu_oracle import MODES
from .gpu_record import FAIL, NOT_RUN, PASS

TOOLS = ("memcheck", "racecheck")
_ROOT = Path(__file__).resolve().parent.parent
_FOUND = 86  # the exit status that the tool is asked to give where it finds something
# Rows that share a program or a warp, in registers, in shared memory, and block by block.
_WIDTHS = (10, 1000, 5000, 20_000, 40_000)
# "ERROR SUMMARY: 2 errors", "RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"
_SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)")


def find_tool() -> str | None:
    """Return the path of compute-sanitizer, on the PATH or in a CUDA toolkit's folder."""
    folders = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    folders += sorted(map(str, Path("/usr/local").glob("cuda*")), reverse=True)
    places = [
        f"{folder}/{sub}" for folder in folders if folder for sub in ("bin", "compute-sanitizer")
    ]
    return shutil.which("compute-sanitizer") or shutil.which(
        "compute-sanitizer", path=os.pathsep.join(places)
    )


def verdict(status: int, output: str) -> Outcome:
    """Return PASS, FAIL or NOT RUN, and why, from the tool's exit status and what it printed.

    A run without the tool's summary is no result: the tool could not work on this machine.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    summaries = _SUMMARY.findall(output)
    if any(int(count) for count in summaries) or status == _FOUND:
        found = [line for line in lines if line.startswith("=========") and ":" in line]
        return FAIL, " ".join(found[-3:]) or f"exit status {status}"
    if not summaries:
        return NOT_RUN, f"no summary, exit status {status}: {' '.join(lines[-2:])}"
    if status != 0:
        return FAIL, f"the run itself failed with {status}: {' '.join(lines[-3:])}"
    return PASS, f"{lines[-1].lstrip('= ')}"


def sanitizer_jobs(backend: str, seconds: float) -> list[Job]:
    """Both tools over ``exercise``, each for at most ``seconds``."""
    return [
        Job(f"{backend}: compute-sanitizer {name}", partial(_run, name, backend, seconds))
        for name in TOOLS
    ]


def _run(name: str, backend: str, seconds: float) -> Outcome:
    tool = find_tool()
    if tool is None:
        return NOT_RUN, "compute-sanitizer is neither on the PATH nor in a CUDA toolkit"
    command = [tool, "--tool", name, "--error-exitcode", str(_FOUND)]
    command += ["--target-processes", "application-only"]
    if name == "memcheck":  # PyTorch asks CUDA what it expects it to refuse
        command += ["--report-api-errors", "no"]
    command += [sys.executable, "-m", "benchmarks.gpu_sanitizer", backend]
    # Without PyTorch's cache every tensor is an allocation of its own, whose ends are guarded.
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return NOT_RUN, f"not done after {seconds:.0f} s"
    except OSError as error:
        return NOT_RUN, str(error)
    return verdict(done.returncode, done.stdout)


def exercise(backend: str, device: torch.device) -> None:
    """Call every kind of kernel once: forward alone, with gradient, and backward.

    On a GPU with targets that are no class too. The last rows and classes end inside a tile.
    """
    for classes in _WIDTHS:
        for mode in MODES:
            repeats = 300 if classes == _WIDTHS[0] else 1  # more rows than one program sums
            logits = torch.randn(5 * repeats, classes, device=device)
            target = torch.tensor([0, classes - 1, -100, classes // 2, 1], device=device)
            target = target.repeat(repeats)
            # f_y = 0.9955 and f_0 = 0.0045: its hinges are mixed, which takes another pass.
            logits[3] = -30.0
            logits[3, 0], logits[3, classes // 2] = -5.4, 0.0
            if device.type == "cuda":
                target[4] = classes
            weight = torch.rand(classes, device=device)
            leaf = logits.requires_grad_()
            for reduction in ("mean", "none"):
                loss, _ = pc_lc_loss(
                    leaf,
                    target,
                    weight,
                    lc_mode=mode,
                    reduction=reduction,
                    return_stats=True,
                    backend=backend,
                )
                for factor in (1.0, 2.0):
                    torch.autograd.grad(
                        loss, leaf, torch.full_like(loss, factor), retain_graph=True
                    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    exercise(sys.argv[1], torch.device("cuda"))
