"""How the Triton kernels cut their rows: a table by the length of a row, and no autotuning."""

# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class Tiling(NamedTuple):
    """How a kernel cuts its rows, and into how many warps and registers a program."""

    rows: int  # R
    block: int  # B
    width: int  # W
    in_registers: bool  # one block is a row
    num_warps: int
    max_registers: int  # of a thread

    def options(self) -> dict[str, Any]:
        """What a launch is given besides its arguments."""
        return {**LAUNCH, "num_warps": self.num_warps, "maxnreg": self.max_registers}


ARITHMETIC = {torch.float32: tl.float32, torch.float64: tl.float64}
LAUNCH = {"enable_fp_fusion": False, "num_stages": 1}  # Triton warns where the first is not said
SUMMING = {**LAUNCH, "num_warps": 8}  # of prepare_kernel
FINISHING = {**LAUNCH, "num_warps": 32}  # of finish_kernel: one program waits for all the losses
SMALLEST_BLOCK = 16

# Elements of a tile, its warps and the registers of a thread, for rows of up to so many elements,
# with the hard constraint or another. 32 elements a thread, since every thread does the arithmetic
# of its row too; as few registers as nothing is spilled to the stack with, since a program computes
# while others read and write.
TILES = {
    (tl.float32, True): (
        (512, 1, 72), (1024, 1, 72), (2048, 2, 72), (4096, 4, 72), (8192, 8, 72),
        (16384, 16, 64),
    ),
    (tl.float32, False): (
        (1024, 4, 64), (4096, 8, 128), (8192, 16, 128),
    ),
    (tl.float64, True): ((1024, 4, 168), (4096, 16, 128)),
    (tl.float64, False): ((1024, 8, 168), (2048, 16, 128)),
}  # fmt: skip
# Rows of up to 256 classes: elements of one in a thread, warps and registers.
SHORT_ROW = 256
SHORT = {
    (tl.float32, True): (32, 4, 128),
    (tl.float32, False): (8, 4, 128),
    (tl.float64, True): (4, 4, 168),
    (tl.float64, False): (4, 4, 192),
}
ODD_ELEMENTS = 4  # the most where rows are read logit by logit, which takes more registers
# The block of longer rows. For each of its elements a thread keeps three numbers from block to
# block with the hard constraint, five with the others.
LONG = {
    (tl.float32, True): (8192, 16, 64),
    (tl.float32, False): (2048, 8, 80),
    (tl.float64, True): (2048, 8, 255),
    (tl.float64, False): (2048, 8, 255),
}
BACKWARD_REGISTERS = 80  # at least: with fewer, odd rows of 1023 are spilled
# Backward has nothing to remember from block to block.
BACKWARD_BLOCK = {tl.float32: (2048, 4, 80), tl.float64: (4096, 16, 128)}


def tiling(classes: int, arithmetic: tl.dtype, lc_mode: str, aligned: int) -> Tiling:
    """How forward_kernel takes rows of ``classes``, ``aligned`` of which are read at once."""
    if classes <= SHORT_ROW:
        return _short_rows(classes, arithmetic, lc_mode, aligned)
    for block, num_warps, max_registers in TILES[arithmetic, lc_mode == "hard"]:
        if classes <= block:
            return Tiling(1, block, min(block, 32 * num_warps), True, num_warps, max_registers)
    block, num_warps, max_registers = LONG[arithmetic, lc_mode == "hard"]
    return Tiling(1, block, min(block, 32 * num_warps), False, num_warps, max_registers)


def backward_tiling(classes: int, arithmetic: tl.dtype, lc_mode: str, aligned: int) -> Tiling:
    """How backward_kernel takes rows of ``classes``."""
    block, num_warps, max_registers = BACKWARD_BLOCK[arithmetic]
    if classes > block:
        return Tiling(1, block, min(block, 32 * num_warps), False, num_warps, max_registers)
    tile = tiling(classes, arithmetic, lc_mode, aligned)
    return tile._replace(max_registers=max(tile.max_registers, BACKWARD_REGISTERS))


def _short_rows(classes: int, arithmetic: tl.dtype, lc_mode: str, aligned: int) -> Tiling:
    """So many rows that a thread has SHORT elements of one of them, or all of it."""
    elements, num_warps, max_registers = SHORT[arithmetic, lc_mode == "hard"]
    block = max(SMALLEST_BLOCK, triton.next_power_of_2(classes))
    if aligned == 1:
        elements = min(elements, ODD_ELEMENTS)
    threads = max(block // elements, 1)  # of a row
    width = min(threads * aligned, block)
    return Tiling(32 * num_warps // threads, block, width, True, num_warps, max_registers)
