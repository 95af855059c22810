"""What the launches of the backend ask Triton to compile, without a GPU and without compiling.

The host's own code runs, on CPU tensors, and Triton binds the arguments as for a GPU. So what is
compiled ahead of time is what a GPU would be given, options, types and alignments included.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from pclc_fast.backends import triton as backend
from pclc_fast.backends.triton_kernels import TARGETS
from pclc_fast.backends.triton_tiling import TILES
from pclc_fast.options import Options

MAIN = 90  # the architecture that every variant is compiled for, and that TILES is written for
DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
MODES = ("hard", "soft", "all")
COEFFICIENTS = (0.995, 1.0, 0.05, 0.0, 0.25)
BETWEEN = (32, 64, 128, 512, 2048)  # the blocks of fewer elements than a tile's
FEW, MANY = 5, TARGETS.value + 1  # rows: the weights of many are summed by a launch of its own
_OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "maxnreg")


class Launch(NamedTuple):
    """A kernel as a launch compiles it: the arguments of triton.compile and ASTSource."""

    name: str
    kernel: Any
    signature: dict[str, str]  # the type of every argument
    constexprs: dict[tuple[int], Any]
    attrs: dict[tuple[int], list[list[Any]]]  # which arguments are divisible by 16
    options: dict[str, Any]

    def identity(self) -> str:
        """Return all of it but the name: a second launch of the same compiles nothing."""
        return repr((self.kernel, *self[2:]))


class _AbsentGPU:
    """As much of Triton's driver as is asked before a kernel is compiled."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", MAIN, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0


@contextmanager
def recording(name: str) -> Iterator[list[Launch]]:
    """Yield a list to which every launch inside is added, as "forward-<name>" and so on.

    Nothing is compiled or run. The process cannot launch kernels on a GPU from then on.
    """
    found: list[Launch] = []

    def note(fn: Any, compile: Any, **_: Any) -> bool:
        options = json.loads(compile["specialization_data"])["options"]
        found.append(
            Launch(
                f"{fn.name.removesuffix('_kernel')}-{name}",
                fn.jit_function,
                compile["signature"],
                compile["constants"],
                compile["configs"][0],
                {option: options[option] for option in _OPTIONS},
            )
        )
        return True  # do not go on

    driver.set_active(_AbsentGPU())
    knobs.runtime.jit_cache_hook = note
    try:
        yield found
    finally:
        knobs.runtime.jit_cache_hook = None


def options_of(
    reduction: str, mode: str, coefficients: tuple[float, ...] = COEFFICIENTS
) -> Options:
    numbers = torch.tensor(coefficients, dtype=torch.float64)
    return Options(numbers, -100, reduction, mode, False)


def make_rows(rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return logits and targets that nobody reads."""
    return torch.empty(rows, classes, dtype=dtype), torch.empty(rows, dtype=torch.int64)


def train(classes: int, dtype: torch.dtype, mode: str) -> None:
    """Mean loss and gradient, and backward where the gradient may be there already."""
    step(make_rows(FEW, classes, dtype), None, options_of("mean", mode), with_stats=False)


def everything(classes: int, dtype: torch.dtype, mode: str) -> None:
    """Many rows with weights and statistics: every argument is there."""
    weight = torch.empty(classes, dtype=torch.promote_types(dtype, torch.float32))
    step(make_rows(MANY, classes, dtype), weight, options_of("mean", mode), with_stats=True)


def each(classes: int, dtype: torch.dtype, mode: str) -> None:
    """A loss for each row, without weights."""
    step(make_rows(FEW, classes, dtype), None, options_of("none", mode), with_stats=False)


def summed(classes: int, dtype: torch.dtype, mode: str) -> None:
    """The sum of the losses, without weights."""
    step(make_rows(FEW, classes, dtype), None, options_of("sum", mode), with_stats=False)


def evaluate(classes: int, dtype: torch.dtype, mode: str) -> None:
    """The sum of the losses and nothing else."""
    logits, target = make_rows(FEW, classes, dtype)
    backend._launch_forward(logits, target, None, options_of("sum", mode), False, False, False)


def step(
    rows: tuple[Tensor, Tensor], weight: Tensor | None, options: Options, with_stats: bool
) -> None:
    """Launch what autograd would for one forward and one backward."""
    logits, target = rows
    with_grad = options.reduction != "none" and logits.dtype != torch.float16
    loss, row_stats, *_ = backend._launch_forward(
        logits, target, weight, options, True, with_grad, with_stats
    )
    grad = torch.empty_like(logits)
    backend._launch_backward(
        grad, loss.reshape(-1) if loss.dim() else loss, row_stats, logits, target, weight, options,
        with_grad,
    )  # fmt: skip


def _calls(
    dtype: str, mode: str
) -> Iterator[tuple[str, int, Callable[[int, torch.dtype, str], None]]]:
    """Yield what is asked for at each number of classes, 16 dividing it but where it is odd.

    Every tile with what training asks for and, but for float16, with all that can be asked for. The
    dtypes differ in conversions and in bytes, so one stands for the others in the rest: bfloat16
    for rows that are not aligned and for the blocks between tiles, float32 for calls that ask for
    less.
    """
    arithmetic = tl.float64 if dtype == "fp64" else tl.float32
    tiles = [elements for elements, *_ in TILES[arithmetic, mode == "hard"]]
    blocks = tiles[-1] + 16
    for classes in (16, *tiles, blocks):
        yield "train", classes, train
        if dtype != "fp16":
            yield "full", classes, everything
    if dtype == "bf16":
        for classes in (16, *BETWEEN, *tiles, tiles[-1] + 2):
            yield "odd", classes - 1, train
    if dtype == "fp32":
        for classes in (tiles[1], blocks):
            yield "none", classes, each
            yield "sum", classes, summed
            yield "eval", classes, evaluate


@functools.cache
def launches() -> dict[str, Launch]:
    """Return every launch that differs from the others in more than its name, by name."""
    named: dict[str, Launch] = {}
    known: set[str] = set()
    for dtype, torch_dtype in DTYPES.items():
        for mode in MODES:
            for asked, classes, call in _calls(dtype, mode):
                with recording(f"{asked}-{dtype}-{mode}-{classes}") as found:
                    call(classes, torch_dtype, mode)
                for launch in found:
                    if launch.identity() not in known:
                        known.add(launch.identity())
                        # Weights are summed for forward, and again for backward.
                        name = f"{launch.name}-again" if launch.name in named else launch.name
                        named[name] = launch._replace(name=name)
    return named
