"""Compiling Triton kernels without a GPU, and what the machine code takes of one.

Not under TRITON_INTERPRET=1: a process that interprets kernels cannot compile them.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import Any, NamedTuple

import triton
from launches import MAIN, Launch, launches
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, MAIN, 100)  # A100, H100 and H200, B200
# Of a thread. What ptxas has no register for is spilled to the stack, in device memory. Nothing on
# sm_90. The same table is used elsewhere, where ptxas needs a few registers more: 16 of them.
STACK_BYTES = {80: 64, 90: 0, 100: 64}
_REGISTERS = 65536  # of a multiprocessor, on all of them
# How many warps the registers of a multiprocessor must suffice for, and for one program at least.
# float64 needs twice the registers.
RESIDENT_WARPS = {"fp32": 16, "fp64": 8}


class Usage(NamedTuple):
    """What one compiled variant takes."""

    variant: str
    architecture: int
    registers: int  # of a thread
    stack: int  # bytes of a thread
    shared: int  # bytes of a program
    num_warps: int

    def complaints(self) -> list[str]:
        """Return what is over a limit; empty where nothing is."""
        found = []
        where = f"{self.variant} on sm_{self.architecture}"
        stack = STACK_BYTES[self.architecture]
        if self.stack > stack:
            found.append(
                f"{where}: {self.stack} bytes of stack a thread, at most {stack} are allowed"
            )
        wanted = RESIDENT_WARPS["fp64" if "fp64" in self.variant else "fp32"]
        wanted = max(wanted, self.num_warps)
        resident = _REGISTERS // (32 * (-(-self.registers // 8) * 8))
        if resident < wanted:
            found.append(
                f"{where}: {self.registers} registers a thread leave room for {resident} warps on "
                f"a multiprocessor, at least {wanted} are asked for"
            )
        return found


def compile_launch(launch: Launch, architecture: int) -> Usage:
    """Compile for one architecture and read what cuobjdump says of the machine code."""
    source = ASTSource(
        fn=launch.kernel,
        signature=launch.signature,
        constexprs=launch.constexprs,
        attrs=launch.attrs,
    )
    target = GPUTarget("cuda", architecture, 32)
    compiled: Any = triton.compile(source, target=target, options=launch.options)
    # Triton's own n_spills is None where there is no GPU to load the kernel.
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        done = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name],
            capture_output=True,
            text=True,
            check=True,
        )
    registers, stack = _used(done.stdout)
    shared = int(compiled.metadata.shared)
    num_warps = launch.options["num_warps"]
    return Usage(launch.name, architecture, registers, stack, shared, num_warps)


def compile_named(work: tuple[str, int]) -> Usage:
    """Compile a launch by its name, which other than a kernel can go to another process."""
    name, architecture = work
    return compile_launch(launches()[name], architecture)


def _used(text: str) -> tuple[int, int]:
    """Return registers and stack bytes from a line such as " REG:63 STACK:0 SHARED:1024 ..."."""
    found = re.findall(r"REG:(\d+) STACK:(\d+)", text)
    if len(found) != 1:
        raise ValueError(f"cuobjdump should have described one kernel; it printed {text!r}")
    registers, stack = found[0]
    return int(registers), int(stack)


def plan(names: list[str]) -> list[tuple[str, int]]:
    """Return what to compile: everything for MAIN, and for the others what takes the most.

    That is, of every tiling and mode, what is launched where all that can be asked for is, in
    bfloat16, whose conversions are not the same on all of them, and in float64.
    """
    others = [architecture for architecture in ARCHITECTURES if architecture != MAIN]
    most = [n for n in names if "-full-" in n and ("-fp32-" not in n or _is_small(n))]
    work = [(name, MAIN) for name in names]
    return work + [(name, other) for other in others for name in most]


def _is_small(name: str) -> bool:
    """Whether it is a kernel that has no tile of logits, and so the same for every dtype."""
    return name.startswith(("prepare-", "finish-"))


def table(usages: list[Usage]) -> list[str]:
    """Return a line for each variant: registers, stack and shared bytes on each architecture."""
    by_name: dict[str, dict[int, Usage]] = {}
    for usage in usages:
        by_name.setdefault(usage.variant, {})[usage.architecture] = usage
    lines = [
        f"{'registers, stack and shared bytes':32}"
        + "".join(f"{f'sm_{architecture}':>18}" for architecture in ARCHITECTURES)
    ]
    for name, found in by_name.items():
        line = f"{name:32}"
        for architecture in ARCHITECTURES:
            usage = found.get(architecture)
            text = f"{usage.registers} {usage.stack:4} {usage.shared:6}" if usage else "-"
            line += f"{text:>18}"
        lines.append(line)
    return lines
