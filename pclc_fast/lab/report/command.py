"""``pclc report``: measure first, render second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console

from ..attack_config import AttackConfig
from ..distributed import join_world
from ..environment import environment, versions
from ..report_config import ReportConfig
from .document import document, identifiers
from .measure import measure
from .output import write
from .subject import find_folders, foreign, load_subject


def report(config: ReportConfig, arguments: Sequence[str]) -> None:
    """Measure every run of a checked configuration, and write the three files.

    ``arguments`` are those of ``pclc``, for the record.

    Raises:
        RunError: a folder holds no run, or a file cannot be written.
    """
    start = time.perf_counter()
    folders = find_folders(config.runs)
    names = identifiers(folders)
    errors, console = Console(stderr=True, emoji=False), Console(emoji=False)
    with join_world(config.device) as world:
        made = _made(config, str(world.device))
        subjects = [load_subject(f, config.root, world.device, made) for f in folders]
        runs = [
            measure(
                name,
                subject,
                images=config.images,
                foreign=foreign(subject, subjects),
                say=_say(errors, name),
            )
            for name, subject in zip(names, subjects, strict=True)
        ]
    where = {**environment(arguments), **versions(), "images": config.images}
    where["seconds"] = round(time.perf_counter() - start, 1)
    out = folders[0] if config.out is None else config.out
    for path in write(out, document(runs, where)):
        console.print(f"saved {path}", markup=False, highlight=False, soft_wrap=True)


def _made(config: ReportConfig, device: str) -> AttackConfig | None:
    """How pclc attack was told of a model that no run made."""
    if config.model is None:
        return None
    return AttackConfig(
        model=config.model,
        weights=config.weights,
        data=config.data,
        root=config.root,
        device=device,
    )


def _say(console: Console, name: str) -> Callable[[str], None]:
    """Print a line about what is being done for a run."""

    def say(doing: str) -> None:
        console.print(f"{name}: {doing}", markup=False, highlight=False, soft_wrap=True)

    return say
