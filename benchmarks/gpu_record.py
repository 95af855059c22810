"""What a part of the GPU benchmark finds, written to results/ after every step."""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from .environment import Environment, environment
from .report import markdown, plain

PASS, FAIL, NOT_RUN = "PASS", "FAIL", "NOT RUN"
FOLDER = Path(__file__).parent / "results"
_REASON_LENGTH = 300  # of a line; an error of a compiler has pages

Table = tuple[str, list[list[str]]]  # the title; the header and the rows


class DeviceLostError(RuntimeError):
    """The CUDA context is gone: every later call in this process fails too."""


class NotHereError(RuntimeError):
    """Something that a step needs is not on this machine."""


class Budget:
    """How long may still be spent."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._end = self._start + 60 * minutes

    def spent(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._start

    def left(self) -> float:
        """Return the seconds that are left, 0 where there are none."""
        return max(self._end - self._clock(), 0.0)


class Record:
    """The lines, the measurements and the tables of one part."""

    def __init__(
        self, part: str, environment: Environment, budget: Budget, folder: Path = FOLDER
    ) -> None:
        self.part, self.environment, self.budget = part, environment, budget
        self.lines: list[dict[str, str]] = []  # status, what, reason
        self.cells: list[dict[str, Any]] = []  # one measurement each
        self.notes = ""
        self.tables: Callable[[list[dict[str, Any]]], list[Table]] = lambda _: []
        self._folder = folder

    def passed(self, what: str, reason: str = "") -> None:
        self.line(PASS, what, reason)

    def fail(self, what: str, reason: str) -> None:
        self.line(FAIL, what, reason)

    def not_run(self, what: str, reason: str) -> None:
        self.line(NOT_RUN, what, reason)

    def line(self, status: str, what: str, reason: str) -> None:
        short = " ".join(reason.split())
        if len(short) > _REASON_LENGTH:
            short = f"{short[:_REASON_LENGTH]} ..."
        self.lines.append({"status": status, "what": what, "reason": short})
        seconds = self.budget.spent()
        print(f"{seconds:5.0f} s  {status:7}  {what}{f': {short}' if short else ''}", flush=True)

    def failures(self) -> list[dict[str, str]]:
        return [line for line in self.lines if line["status"] == FAIL]

    def attempt(self, what: str, function: Callable[[], object], status: str = NOT_RUN) -> bool:
        """Call ``function``; where it fails, note that as ``status`` and return False.

        What the machine lacks, memory too, is no failure: that is noted as not run.

        Raises:
            DeviceLostError: the failure took the device with it.
        """
        if self.budget.left() == 0:
            self.not_run(what, "the time is up")
            return False
        outcome, reason = attempted(function, status)
        if outcome == PASS:
            return True
        self.line(outcome, what, reason)
        return False

    def write(self) -> Path:
        """Write the JSON and, where there are tables, the Markdown beside it; return the first."""
        self._folder.mkdir(exist_ok=True)
        stem = result_stem(str(self.environment.get("gpu", "no gpu")), self.part)
        path = self._folder / f"{stem}.json"
        _replace(path, self._json())
        page = self._page()
        if page:
            _replace(path.with_suffix(".md"), page)
        return path

    def print_summary(self) -> None:
        for title, rows in self.tables(self.cells):
            print(f"\n{title}")
            print("\n".join(plain(rows)))
        if self.notes:
            print(f"\n{self.notes}")
        counts = {
            status: sum(line["status"] == status for line in self.lines)
            for status in (PASS, FAIL, NOT_RUN)
        }
        print(
            f"\n{self.part}: "
            + ", ".join(f"{count} {status}" for status, count in counts.items())
            + f", {len(self.cells)} measurements, {self.budget.spent():.0f} s"
        )
        for line in self.failures():
            print(f"FAIL {line['what']}: {line['reason']}")

    def _json(self) -> str:
        """One line for each entry, so that changes can be read."""
        about = {**self.environment, "seconds": round(self.budget.spent())}
        lists = {"lines": self.lines, "cells": self.cells}
        fields = [f'"environment": {json.dumps(about)}', f'"notes": {json.dumps(self.notes)}']
        for name, entries in lists.items():
            fields.append(f'"{name}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]")
        return "{\n" + ",\n".join(fields) + "\n}\n"

    def _page(self) -> str:
        tables = self.tables(self.cells)
        if not tables:
            return ""
        about = {**self.environment, "seconds": round(self.budget.spent())}
        lines = [f"# GPU benchmarks: {self.part}", ""]
        lines += [", ".join(f"{name} {value}" for name, value in about.items()) + "."]
        lines += ["", self.notes]
        for title, rows in tables:
            lines += ["", f"## {title[0].upper()}{title[1:]}", "", *markdown(rows)]
        left_out = [line for line in self.lines if line["status"] != PASS]
        if left_out:
            lines += ["", "## Not measured", ""]
            lines += [f"- {line['what']}: {line['reason']}" for line in left_out]
        return "\n".join(lines) + "\n"


def attempted(function: Callable[[], object], status: str) -> tuple[str, str]:
    """Call ``function``; return PASS and nothing, or ``status`` and why it failed.

    What the machine lacks, memory too, is no failure: that is NOT RUN.

    Raises:
        DeviceLostError: the failure took the device with it.
    """
    try:
        function()
        return PASS, ""
    except DeviceLostError:
        raise
    except NotHereError as error:
        status, reason = NOT_RUN, str(error)
    except torch.OutOfMemoryError as error:
        status, reason = NOT_RUN, f"out of memory: {error}"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    # Out of the handler, the frames that the error kept alive are gone, and their tensors.
    release_memory()
    return status, reason


def _replace(path: Path, text: str) -> None:
    """Write so that a reader, or whoever is left after a kill, finds the old or the new file."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    os.replace(fresh, path)


def result_stem(gpu: str, part: str) -> str:
    """Return the name of the files of a part, such as "gpu-nvidia-h100-80gb-hbm3-large"."""
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{part}"


def release_memory() -> None:
    """Give back what is cached; find out whether the device still answers."""
    gc.collect()
    if not torch.cuda.is_available():
        return
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError as error:
        raise DeviceLostError(str(error).splitlines()[0]) from error


def gpu_environment(command: str) -> Environment:
    """Return what a result depends on: the CPU's side as for the CPU benchmarks, and the GPU."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        **environment(command, 0.0),
        "threads": torch.get_num_threads(),
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "cuda": str(torch.version.cuda),
        "triton": _version("triton"),
        **_driver(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> Environment:
    """Return driver, clocks and power limit from nvidia-smi; empty where it does not answer."""
    fields = ("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            [*command, f"--id={device}"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    values = done.stdout.splitlines()[:1]
    return dict(zip(fields, (value.strip() for value in ",".join(values).split(",")), strict=False))
