"""What a result depends on besides the code."""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

import pclc_fast

from .harness import THREADS

Environment = dict[str, str | int]


def environment(command: str, seconds: float) -> Environment:
    return {
        "command": command,
        "seconds": round(seconds),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": THREADS,
        "caches": _caches(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pclc_fast": pclc_fast.__version__,
        "commit": _commit(),
    }


def cpu_model() -> str:
    """Return the processor's name, "unknown" where the system does not tell."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.*)$", info.read_text(), re.M) if info.exists() else None
    return found[1] if found else platform.processor() or "unknown"


def _caches() -> str:
    """Return the caches of the first core, such as "L1 48K, L2 2048K, L3 32768K"."""
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (index / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def _commit() -> str:
    """Return the git commit, with "-dirty" where files differ from it; "unknown" without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
