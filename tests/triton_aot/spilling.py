"""Compile a kernel that has to spill and one that must not: the limits tell them apart.

Run by test_triton_aot.py, in a process of its own.
"""

from __future__ import annotations

import json

from ahead_of_time import MAIN, compile_variant

from pclc_fast.backends.triton_kernels import Variant, variants

ELEMENTS = 65536  # of a row in registers: 64 for each of 1024 threads, which have 64 registers each


def longest_row_in_registers() -> Variant:
    """Return the training kernel of the longest row that the table keeps in registers."""
    found = [
        variant
        for variant in variants()
        if variant.name.startswith("forward-train-fp32-hard")
        and variant.constexprs["IN_REGISTERS"]
        and not variant.name.endswith("odd")
    ]
    return max(found, key=lambda variant: variant.constexprs["B"])


if __name__ == "__main__":
    good = longest_row_in_registers()
    bad = good._replace(name="too-long", constexprs={**good.constexprs, "B": ELEMENTS})
    print(json.dumps({v.name: compile_variant(v, MAIN).complaints() for v in (good, bad)}))
