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
BATCHES = (128, 256, 512)
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
            name: min(BATCHES, key=lambda batch, name=name: call(name, batch)[0])
            for name in (OURS, NAIVE, *_PEERS)
        }
        times: dict[str, list[float]] = {name: [] for name in best}
        fooled = {}
        for _ in range(rounds):
            for name, batch in best.items():
                seconds, fooled[name] = call(name, batch)
                times[name].append(round(seconds, 3))
        found.append({"epsilon": epsilon, "batch": best, "seconds": times, "fooled": fooled})
    return {"settings": SETTINGS, "images": len(labels), "pgd-40": found}


def _timed(
    model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, name: str, batch: int
) -> tuple[float, int]:
    """The seconds of a contender, and how many images it fooled."""
    start = time.perf_counter()
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
    return time.perf_counter() - start, fooled


def _ours(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float, batch: int) -> int:
    """All that a user gets: checks of model and data, every success checked again, traces."""
    preset = Preset("pgd-40", (Spec("pgd-40", "PGD-40", "pgd", SETTINGS),))
    result = evaluate(model, images, labels, eps=epsilon, preset=preset, batch_size=batch)
    return len(result.cells[0].fooled)


def speed_lines(found: dict[str, Any]) -> list[str]:
    """A line for each epsilon and contender."""
    lines = [f"PGD-40, step .01, random start, {found['images']} images"]
    for row in found["pgd-40"]:
        ours = statistics.median(row["seconds"][OURS])
        for name, seconds in row["seconds"].items():
            median = statistics.median(seconds)
            lines.append(
                f"eps {row['epsilon']:g}  {name:<11} {median:6.2f} s "
                f"({min(seconds):.2f} to {max(seconds):.2f}), {median / ours:5.2f} of ours, "
                f"{100 * row['fooled'][name] / found['images']:.1f} % fooled, "
                f"batch {row['batch'][name]}"
            )
    return lines
