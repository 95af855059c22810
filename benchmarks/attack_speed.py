"""PGD-40, ours against the loop that everybody writes and against the peers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pclc_fast.lab.attacks import Preset, Spec, evaluate

from . import attack_loops
from .peers import from_adv_lib, from_art, from_foolbox

Contender = Callable[[nn.Module, Tensor, Tensor, float], Tensor]  # -> [N], bool: fooled
SETTINGS: dict[str, Any] = {"steps": 40, "step_size": 0.01, "random_start": True}
BATCHES = (128, 256)
OURS, NAIVE = "ours", "naive loop"
_PEERS = {"foolbox": from_foolbox.pgd, "ART": from_art.pgd, "adv-lib": from_adv_lib.pgd}


def speed(
    model: nn.Module, images: Tensor, labels: Tensor, epsilons: Sequence[float], rounds: int
) -> dict[str, Any]:
    """Time PGD-40 on the images that the model knows: each at its best batch size, in turns."""
    with torch.no_grad():
        correct = model(images).argmax(dim=1) == labels
    images, labels = images[correct], labels[correct]
    found = []
    for epsilon in epsilons:
        call = partial(_timed, model, images, labels, epsilon)
        best = {
            name: min(BATCHES, key=lambda batch, name=name: call(name, batch)[1])
            for name in (OURS, NAIVE, *_PEERS)
        }
        wall: dict[str, list[float]] = {name: [] for name in best}
        cpu: dict[str, list[float]] = {name: [] for name in best}
        fooled = {}
        for _ in range(rounds):
            for name, batch in best.items():
                seconds, busy, fooled[name] = call(name, batch)
                wall[name].append(round(seconds, 3))
                cpu[name].append(round(busy, 3))
        found.append(
            {"epsilon": epsilon, "batch": best, "wall": wall, "cpu": cpu, "fooled": fooled}
        )
    return {"settings": SETTINGS, "images": len(labels), "pgd-40": found}


def _timed(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, name: str, batch: int
) -> tuple[float, float, int]:
    """The seconds of a contender, those the processor was busy, and how many images it fooled."""
    start, busy = time.perf_counter(), time.process_time()
    if name == OURS:
        fooled = _ours(model, images, labels, epsilon, batch)
    else:
        attack = attack_loops.gradient_ascent if name == NAIVE else _PEERS[name]
        parts = [
            attack(model, x, y, epsilon=epsilon, **SETTINGS)
            for x, y in zip(images.split(batch), labels.split(batch), strict=True)
        ]
        with torch.no_grad():
            fooled = int((model(torch.cat(parts)).argmax(dim=1) != labels).sum())
    return time.perf_counter() - start, time.process_time() - busy, fooled


def _ours(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, batch: int) -> int:
    """All that a user gets: checks of model and data, every success checked again, traces."""
    preset = Preset("pgd-40", (Spec("pgd-40", "PGD-40", "pgd", SETTINGS),))
    result = evaluate(model, images, labels, eps=epsilon, preset=preset, batch_size=batch)
    return len(result.cells[0].fooled)


def speed_lines(found: dict[str, Any]) -> list[str]:
    """A line for each epsilon and contender: medians, and their ratios to ours."""
    lines = [
        f"PGD-40, step .01, random start, {found['images']} images that the model knows; seconds "
        "on the clock and of the processor: another process slows the first alone"
    ]
    for row in found["pgd-40"]:
        wall, cpu = (
            {name: statistics.median(times) for name, times in row[kind].items()}
            for kind in ("wall", "cpu")
        )
        lines += [
            f"eps {row['epsilon']:g}  {name:<11} {wall[name]:6.2f} s {cpu[name]:6.2f} s, "
            f"{wall[name] / wall[OURS]:5.2f} and {cpu[name] / cpu[OURS]:5.2f} of ours, "
            f"{100 * row['fooled'][name] / found['images']:.1f} % fooled, batch {batch}"
            for name, batch in row["batch"].items()
        ]
    return lines
