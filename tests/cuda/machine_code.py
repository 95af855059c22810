"""What the compiler made of the CUDA kernels: ``python tests/cuda/machine_code.py MODULE``.

MODULE is the compiled pclc_fast/_cuda*.so. Registers, stack and shared memory of every kernel are
held under the limits below, from cuobjdump's report; kernels that move rows have to do it 16 bytes
at a time. The exit status is 1 where something is over a limit or missing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

MAIN = "sm_90"
STORED = {"Float32": 4, "BFloat16": 2, "Float16": 2, "Float64": 8}
MODES = ("0", "1", "2")  # LcMode in csrc/pclc.h
HARD = "0"
REGISTERS = 65536  # of a multiprocessor, and those of a thread are given out by eights
# Static, of a block: what CUDA keeps for itself. The kernels' own is dynamic, and its size is
# asserted where it is computed (csrc/pclc_cuda_launch.cuh).
SHARED_BYTES = 1024
STACK_BYTES = 0  # of a thread: what has no register is in device memory
# A read, where it may be a copy to shared memory, and a write.
VECTORS = (r"LDG\.E\.128|LDGSTS\.E\S*\.128", r"STG\.E\.128")
# _ZN4pclc6device 13 forward_lanes I NS0_ 7 Float32 E L NS_6LcModeE 2 E Li16E Li8E ...
MANGLED = re.compile(
    r"_ZN4pclc6device\d+([a-z_]+)"
    r"(?:INS0_\d+([A-Z]\w*?\d\d)ELNS_6LcModeE(\d)E((?:L[ib]\d+E)*))?"
)
ALONE = ("prepare_weights", "ask_for_code")  # not for each storage type and mode


class Kernel(NamedTuple):
    """One kernel in the module and what it takes."""

    name: str  # as in the sources
    storage: str
    mode: str
    numbers: tuple[int, ...]  # the other template arguments
    registers: int
    stack: int
    shared: int

    def __str__(self) -> str:
        arguments = ", ".join([self.storage, self.mode, *map(str, self.numbers)]).strip(", ")
        return f"{self.name}<{arguments}>"

    def warps(self) -> int:
        """How many warps on a multiprocessor its registers have to suffice for."""
        if self.name == "forward_streamed" and self.storage == "Float64":
            return 8
        if self.name == "forward_warp":
            return 24 if self.mode == HARD else 20
        return 20 if self.name == "forward_shared" else 16

    def moves_vectors(self) -> bool:
        return not self.name.endswith("_lanes") and self.storage != ""


def find_tool(name: str) -> str:
    """Return the path of one of NVIDIA's tools: CUDA's, or those that Triton brings."""
    places = [os.environ.get("PATH", "")]
    places += [str(path) for path in Path("/usr/local").glob("cuda*/bin")]
    for folder in map(Path, sys.path):
        places.append(str(folder / "triton" / "backends" / "nvidia" / "bin"))
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        sys.exit(f"{name} is neither on the PATH, nor in a CUDA toolkit, nor in Triton")
    return found


def report(tool: str, option: str, module: str, *selection: str) -> str:
    environment = {**os.environ, "PATH": f"{Path(tool).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [tool, option, *selection, module],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout


def named(mangled: str) -> tuple[str, str, str, tuple[int, ...]] | None:
    """Return name, storage type, mode and further template arguments of a kernel of ours."""
    match = MANGLED.match(mangled)
    if match is None:
        return None
    name, storage, mode, numbers = match.groups(default="")
    return name, storage, mode, tuple(map(int, re.findall(r"\d+", numbers)))


def kernels_in(text: str) -> list[Kernel]:
    """Parse what ``cuobjdump -res-usage`` prints for one architecture."""
    found = []
    pattern = r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)"
    for mangled, registers, stack, shared, local in re.findall(pattern, text):
        parts = named(mangled)
        if parts:
            found.append(Kernel(*parts, int(registers), int(stack) + int(local), int(shared)))
    return found


def complaints(kernel: Kernel) -> list[str]:
    """Return what is over a limit; empty where nothing is."""
    found = []
    if kernel.stack > STACK_BYTES:
        found.append(f"{kernel}: {kernel.stack} bytes of stack, at most {STACK_BYTES} are allowed")
    if kernel.shared > SHARED_BYTES:
        found.append(f"{kernel}: {kernel.shared} bytes of static shared memory")
    resident = REGISTERS // (32 * (-(-kernel.registers // 8) * 8))
    if resident < kernel.warps():
        found.append(
            f"{kernel}: {kernel.registers} registers leave room for {resident} warps, "
            f"at least {kernel.warps()} are asked for"
        )
    return found


def missing(kernels: list[Kernel]) -> list[str]:
    """Return the kernels of a storage type and mode that are not there."""
    names = {(k.name, k.storage, k.mode) for k in kernels}
    wanted = set()
    for storage, mode in itertools.product(STORED, MODES):
        kinds = ["forward_streamed", "backward_lanes", "backward_warp"]
        if storage != "Float64":
            kinds += ["forward_lanes", "forward_warp", "forward_shared"]
        wanted |= {(kind, storage, mode) for kind in kinds}
    wanted |= {(name, "", "") for name in ALONE}
    return [
        f"{name}<{storage}, {mode}> is missing" for name, storage, mode in sorted(wanted - names)
    ]


def without_vectors(sass: str) -> list[str]:
    """Return the kernels that have to read or write 16 bytes at a time and do not."""
    found = []
    for function in sass.split("Function : ")[1:]:
        parts = named(function.split(maxsplit=1)[0])
        if parts is None or not Kernel(*parts, 0, 0, 0).moves_vectors():
            continue
        kernel = Kernel(*parts, 0, 0, 0)
        found += [f"{kernel}: no {code}" for code in VECTORS if not re.search(code, function)]
    return found


def main() -> int:
    """Print a table, then what is wrong."""
    parser = argparse.ArgumentParser(prog="python tests/cuda/machine_code.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("module")
    parser.add_argument("--arch", default=MAIN, help="machine code of which GPU (default: sm_90)")
    options = parser.parse_args()
    tool = find_tool("cuobjdump")
    selection = ("-arch", options.arch)
    kernels = kernels_in(report(tool, "-res-usage", options.module, *selection))
    print(f"{'kernel':48}{'registers':>10}{'stack':>7}{'static shared':>15}  on {options.arch}")
    for kernel in sorted(kernels):
        print(f"{kernel!s:48}{kernel.registers:10}{kernel.stack:7}{kernel.shared:15}")
    found = [complaint for kernel in kernels for complaint in complaints(kernel)]
    found += missing(kernels)
    found += without_vectors(report(tool, "-sass", options.module, *selection))
    for complaint in found:
        print(f"FAIL {complaint}")
    print(f"{len(kernels)} kernels, {len(found)} complaints")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
