"""What results depend on besides the configuration."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import pclc_fast

# What may change a result or explain a failure, by the names they are installed under.
PACKAGES = (
    "triton",
    "numpy",
    "pillow",
    "safetensors",
    "scikit-learn",
    "torchvision",
    "timm",
    "tyro",
    "rich",
)


def environment(arguments: Sequence[str]) -> dict[str, Any]:
    """What the numbers may depend on besides the configuration; ``arguments`` are those of pclc."""
    return {
        "command": shlex.join(["pclc", *arguments]),
        "pclc_fast": pclc_fast.__version__,
        "backends": {name: s._asdict() for name, s in pclc_fast.backends().items()},
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
    }


def versions() -> dict[str, str]:
    """The installed ones of the packages that the lab can use, by name."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def device_name(device: torch.device) -> str:
    """Return the name that the hardware gives itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def git_commit() -> str | None:
    """The commit of this package's sources, "-dirty" where they differ; None outside git."""
    folder = Path(pclc_fast.__file__).parent
    tracked = _git("ls-files", "--error-unmatch", "__init__.py", folder=folder)
    if tracked is None:  # an installed copy in somebody's repository
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", folder=folder)


def _git(*arguments: str, folder: Path) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def cpu_name() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):  # only Linux has it
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
