"""Compile a kernel that has to spill and one that must not: the limits tell them apart.

Run by test_triton_aot.py, in a process of its own.
"""

from __future__ import annotations

import json

from ahead_of_time import compile_launch
from launches import MAIN, Launch, launches

ELEMENTS = 65536  # of a row in registers: more for each of 256 threads than it has registers


def in_a_tile_of(launch: Launch, elements: int) -> Launch:
    """Return the launch with rows of another length in registers."""
    at = (launch.kernel.arg_names.index("B"),)
    return launch._replace(name="too-long", constexprs={**launch.constexprs, at: elements})


if __name__ == "__main__":
    good = launches()["forward-train-fp32-hard-8192"]
    bad = in_a_tile_of(good, ELEMENTS)
    print(json.dumps({x.name: compile_launch(x, MAIN).complaints() for x in (good, bad)}))
