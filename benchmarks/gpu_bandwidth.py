"""How much of a copy's bandwidth our backends reach: ``python -m benchmarks.gpu_bandwidth``.

Half a minute where what Triton compiles is compiled already. A line for each number of classes:
the copy in GB/s, then for each backend the time of the copy over that of forward + backward, half
that time over forward alone, the time over forward + backward with a grad_output of 3, and over
forward + backward of rows whose hinges are mixed. The logits are well above L2, as in the part
"large" of benchmarks/gpu.py, which compares with other functions too and takes minutes.
"""

from __future__ import annotations

import statistics
import sys

import torch

from .forms import Loss
from .gpu_sizes import BOTH, CLASSES, FORWARD
from .gpu_subjects import (
    DTYPES,
    bind,
    copy_call,
    make_large,
    make_mixed_,
    ours,
    tripled,
    usable_backends,
)
from .gpu_timing import Call, device_seconds


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit(f"no GPU: torch {torch.__version__} sees no CUDA device here, nothing was run")
    device = torch.device("cuda", torch.cuda.current_device())
    names, _ = usable_backends(device)
    for dtype in ("bfloat16", "float32"):
        print(f"{dtype}, K: copy GB/s | forward + backward, forward, x3, mixed over the copy's")
        for classes in CLASSES:
            print(line(names, classes, DTYPES[dtype], device), flush=True)


def line(names: list[str], classes: int, dtype: torch.dtype, device: torch.device) -> str:
    """Measure one number of classes."""
    logits, target = make_large(classes, dtype, device)

    def call(loss: Loss, direction: str = BOTH) -> Call:
        return bind(loss, logits, target, direction)

    calls = {"copy": copy_call(logits)}
    for name in names:
        calls[name] = call(ours(name))
        calls[f"{name} forward"] = call(ours(name), FORWARD)
        calls[f"{name} x3"] = call(tripled(ours(name)))
    times = medians(calls)
    if classes > 3:
        with torch.no_grad():
            make_mixed_(logits, target)
        times |= medians({f"{name} mixed": call(ours(name)) for name in names})
    copy = times["copy"]
    rate = 2 * logits.numel() * dtype.itemsize / copy / 1e9
    parts = [f"{classes:7d}: {rate:5.0f}"]
    for name in names:
        shares = [copy / times[name], copy / 2 / times[f"{name} forward"]]
        shares += [copy / times[f"{name} x3"], copy / times.get(f"{name} mixed", float("nan"))]
        parts.append(f"{name} " + " ".join(f"{share:.3f}" for share in shares))
    return " | ".join(parts)


def medians(calls: dict[str, Call]) -> dict[str, float]:
    return {name: statistics.median(seconds) for name, seconds in device_seconds(calls).items()}


if __name__ == "__main__":
    main()
