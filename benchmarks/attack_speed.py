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

Contender = Callable[..., Tensor]  # (model, images, labels, epsilon=, **SETTINGS) -> attacked
SETTINGS: dict[str, Any] = {"steps": 40, "step_size": 0.01, "random_start": True}
BATCHES = (128, 256)
OURS, NAIVE, TUTORIAL = "ours", "naive loop", "tutorial's"
_OTHERS: dict[str, Contender] = {
    NAIVE: attack_loops.gradient_ascent,
    TUTORIAL: attack_loops.tutorial_pgd,
    "foolbox": from_foolbox.pgd,
    "ART": from_art.pgd,
    "adv-lib": from_adv_lib.pgd,
}


def speed(
    model: nn.Module, images: Tensor, labels: Tensor, epsilons: Sequence[float], rounds: int
) -> dict[str, Any]:
    """Time PGD-40 on the images that the model knows: each at its best batch size, in turns.

    Ours at all epsilons together too, where only what is left of one goes on to the next.
    """
    with torch.no_grad():
        correct = model(images).argmax(dim=1) == labels
    timed = partial(_timed, model, images[correct], labels[correct])
    found = [_row(timed, [epsilon], [OURS, *_OTHERS], rounds) for epsilon in epsilons]
    found.append(_row(timed, list(epsilons), [OURS], rounds))
    return {"settings": SETTINGS, "images": int(correct.sum()), "pgd-40": found}


def _row(
    timed: Callable[[list[float], str, int], tuple[float, float, int]],
    epsilons: list[float],
    names: list[str],
    rounds: int,
) -> dict[str, Any]:
    best = {
        name: min(BATCHES, key=lambda batch, name=name: timed(epsilons, name, batch)[1])
        for name in names
    }
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    fooled = {}
    for _ in range(rounds):
        for name, batch in best.items():
            seconds, busy, fooled[name] = timed(epsilons, name, batch)
            wall[name].append(round(seconds, 3))
            cpu[name].append(round(busy, 3))
    return {"epsilons": epsilons, "batch": best, "wall": wall, "cpu": cpu, "fooled": fooled}


def _timed(
    model: nn.Module, images: Tensor, labels: Tensor, epsilons: list[float], name: str, batch: int
) -> tuple[float, float, int]:
    """The seconds of a contender, those the processor was busy, and how many images it fooled."""
    model.requires_grad_(name == TUTORIAL)
    start, busy = time.perf_counter(), time.process_time()
    if name == OURS:
        fooled = _ours(model, images, labels, epsilons, batch)
    else:
        (epsilon,) = epsilons
        parts = [
            _OTHERS[name](model, x, y, epsilon=epsilon, **SETTINGS)
            for x, y in zip(images.split(batch), labels.split(batch), strict=True)
        ]
        with torch.no_grad():
            fooled = int((model(torch.cat(parts)).argmax(dim=1) != labels).sum())
    return time.perf_counter() - start, time.process_time() - busy, fooled


def _ours(
    model: nn.Module, images: Tensor, labels: Tensor, epsilons: list[float], batch: int
) -> int:
    """All that a user gets: checks of model and data, every success checked again, traces."""
    preset = Preset("pgd-40", (Spec("pgd-40", "PGD-40", "pgd", SETTINGS),), carry=True)
    result = evaluate(model, images, labels, eps=epsilons, preset=preset, batch_size=batch)
    return len(labels) - result.worst_case(epsilons[-1]).correct


def speed_lines(found: dict[str, Any]) -> list[str]:
    """A line for each epsilon and contender: medians, and their ratios to ours."""
    *rows, together = found["pgd-40"]
    times = [_medians(row) for row in rows]
    lines = [
        f"PGD-40, step .01, random start, {found['images']} images that the model knows; seconds "
        "on the clock and of the processor: another process slows the first alone"
    ]
    for row, medians in zip(rows, times, strict=True):
        lines += [
            f"eps {row['epsilons'][0]:g}  {_words(name, medians[name], medians[OURS])}, "
            f"{100 * row['fooled'][name] / found['images']:.1f} % fooled, batch {batch}"
            for name, batch in row["batch"].items()
        ]
    (ours,) = _medians(together).values()
    lines.append(f"all      {_words(OURS, ours, ours)}, what is left of one epsilon goes on alone")
    for name in _OTHERS:
        sums = [sum(column) for column in zip(*(medians[name] for medians in times), strict=True)]
        lines.append(f"all      {_words(name, sums, ours)}, one epsilon after the other")
    return lines


def _medians(row: dict[str, Any]) -> dict[str, list[float]]:
    """The seconds on the clock and of the processor."""
    return {
        name: [statistics.median(row[kind][name]) for kind in ("wall", "cpu")]
        for name in row["batch"]
    }


def _words(name: str, times: Sequence[float], ours: Sequence[float]) -> str:
    ratios = [time / own for time, own in zip(times, ours, strict=True)]
    return (
        f"{name:<11} {times[0]:6.2f} s {times[1]:6.2f} s, "
        f"{ratios[0]:5.2f} and {ratios[1]:5.2f} of ours"
    )
