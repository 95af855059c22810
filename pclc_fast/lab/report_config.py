"""The configuration of ``pclc report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .files import prepare_folder


@dataclass(frozen=True)
class ReportConfig:
    """What the robustness of one or more runs is really worth: a page, a CSV and a JSON.

    Reads what pclc attack found, measures what it takes of the models (gaps, gradients, features,
    where fooled images go), and audits each: whether its gradient is masked, and whether the worst
    case can be trusted. A run that is not finished gets what there is of it.
    """

    runs: Positional[tuple[Path, ...]]
    """Folders of runs; runs that differ only by their seed are summed up together."""
    out: Annotated[
        Path | None, arg(help_behavior_hint="(default: the folder of the first run)")
    ] = None
    """Folder for report.html, report.csv and report.json."""
    root: Annotated[Path | None, arg(help_behavior_hint="(default: where each run had it)")] = None
    """Folder with the files of the data sets."""
    model: str | None = None
    """package.module:factory, for results of pclc attack --model."""
    weights: Path | None = None
    """The weights of --model, a safetensors file."""
    data: str | None = None
    """The data set of --model, as pclc train --data takes it."""
    images: int = 200
    """Test images that the audit and the measurements look at, at most."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: a GPU where there is one."""

    def check(self) -> None:
        """Raise ValueError for the first value that makes no sense."""
        if not self.runs:
            raise ValueError("name at least one folder of a run")
        for run in self.runs:
            if not run.is_dir():
                raise ValueError(f"{run} is not a folder")
        parts = (self.model, self.weights, self.data)
        if any(part is not None for part in parts) and None in parts:
            raise ValueError("--model, --weights and --data go together")
        if self.images < 1:
            raise ValueError(f"--images must be at least 1; got {self.images}")
        if self.out is not None:
            prepare_folder(self.out)
