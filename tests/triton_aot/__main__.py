"""Compile the Triton kernels for GPUs that are not here: ``python tests/triton_aot [--all]``.

Every variant for sm_90, those that take the most for sm_80 and sm_100 (with --all every one for
these too). Registers and stack are held under the limits in ahead_of_time.py; the exit status is 1
where something is over one or does not compile. A process for each core, a part of a second for
each variant.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

if os.environ.get("TRITON_INTERPRET") == "1":
    sys.exit("TRITON_INTERPRET=1 is set: a process that interprets kernels cannot compile them")

from ahead_of_time import ARCHITECTURES, Usage, compile_named, plan, table
from launches import launches

CACHE = "TRITON_CACHE_DIR"


def main() -> int:
    """Compile, print one table, then what is over a limit."""
    parser = argparse.ArgumentParser(prog="python tests/triton_aot", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--all", action="store_true", help="every variant for sm_80 and sm_100 too")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    arguments = parser.parse_args()
    names = [name for name in launches() if arguments.only in name]
    if not names:
        parser.error(f"no variant has {arguments.only!r} in its name")
    work = [(n, a) for n in names for a in ARCHITECTURES] if arguments.all else plan(names)

    start = time.monotonic()
    usages: list[Usage] = []
    complaints: list[str] = []
    with (
        tempfile.TemporaryDirectory() as cache,  # a gigabyte that nothing will ask for again
        ProcessPoolExecutor(
            len(os.sched_getaffinity(0)), initializer=os.environ.update, initargs=({CACHE: cache},)
        ) as pool,
    ):
        jobs = [(item, pool.submit(compile_named, item)) for item in work]
        for (name, architecture), job in jobs:
            try:
                usages.append(job.result())
            except BrokenProcessPool:
                complaints.append(f"the compiler crashed, at {name} for sm_{architecture} or near")
                break
            except Exception as error:  # the other variants still say something
                reason = " ".join(str(error).split())[:300]
                complaints.append(f"{name} does not compile for sm_{architecture}: {reason}")
    print("\n".join(table(usages)))
    complaints += [complaint for usage in usages for complaint in usage.complaints()]
    seconds = time.monotonic() - start
    print(f"\n{len(names)} variants, {len(usages)} compiled in {seconds:.0f} s")
    for complaint in complaints:
        print(f"FAIL {complaint}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
