"""All results of one model as one: the worst case is over everything that was tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from ..attacks import Result
from ..attacks.result import Adversarial, Caution
from ..attacks.result_file import RESULT

_ORDER = ("released", "paper")  # before all others: what decides comes last


def result_folders(folder: Path) -> list[Path]:
    """Where there are results of a run: in its folder, and in those of its presets."""
    files = [folder / RESULT, *sorted(folder.glob(f"attacks/*/{RESULT}"))]
    return [file.parent for file in files if file.exists()]


def together(results: Sequence[Result]) -> Result:
    """One result with the attacks of all that are about the same images and norm.

    The one with the most images decides which these are, of equal ones that of the last preset. A
    caution names the others.
    """
    ordered = sorted(results, key=_place)
    main = max(enumerate(ordered), key=lambda item: (item[1].clean.images, item[0]))[1]
    fitting = [r for r in ordered if _about(r) == _about(main)]
    cautions = [c for r in fitting for c in r.cautions]
    cautions += [_left_out(r) for r in ordered if r not in fitting]
    if len(fitting) == 1:
        return dataclasses.replace(main, cautions=cautions)
    parts, first, names = [], 0, _names(fitting)
    for name, result in zip(names, fitting, strict=True):
        parts.append(_renamed(result, name, first))
        first += len(result.attacks)
    return dataclasses.replace(
        main,
        preset=", ".join(names),
        epsilons=sorted({e for r in fitting for e in r.epsilons}),
        cumulative=any(r.cumulative for r in fitting),
        carry=any(r.carry for r in fitting),
        attacks=[attack for part in parts for attack in part.attacks],
        assumptions=[assumption for part in parts for assumption in part.assumptions],
        cautions=list(dict.fromkeys(cautions)),
        cells=[cell for part in parts for cell in part.cells],
        seconds=round(sum(r.seconds for r in fitting), 3),
        peak_memory=max(r.peak_memory for r in fitting),
        adversarial=_nearest([p.adversarial for p in parts if p.adversarial is not None]),
    )


def _place(result: Result) -> int:
    return _ORDER.index(result.preset) if result.preset in _ORDER else len(_ORDER)


def _about(result: Result) -> tuple[object, ...]:
    return result.norm, result.data.sha256, result.images.label, result.images.predicted


def _left_out(result: Result) -> Caution:
    return Caution(
        "left-out",
        f"What {result.preset} found in {result.norm} on {result.clean.images} images is not in "
        "this report: it is of another norm, or of other images",
    )


def _names(results: Sequence[Result]) -> list[str]:
    """Their presets, with a number where one is there again."""
    presets = [result.preset for result in results]
    before = [presets[:place].count(preset) for place, preset in enumerate(presets)]
    return [f"{p} {n + 1}" if n else p for p, n in zip(presets, before, strict=True)]


def _renamed(result: Result, name: str, first: int) -> Result:
    """Keys and topics behind a name; positions of attacks counted from ``first``."""
    name = f"{name}: "
    adversarial = result.adversarial
    if adversarial is not None:
        adversarial = adversarial._replace(attack=adversarial.attack + first)
    return dataclasses.replace(
        result,
        attacks=[dataclasses.replace(a, key=name + a.key) for a in result.attacks],
        assumptions=[dataclasses.replace(a, topic=name + a.topic) for a in result.assumptions],
        cells=[dataclasses.replace(c, attack=name + c.attack) for c in result.cells],
        adversarial=adversarial,
    )


def _nearest(parts: Sequence[Adversarial]) -> Adversarial | None:
    """Of every image the one with the smallest epsilon, the first of equal ones."""
    if not parts:
        return None
    whole = Adversarial(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    best: dict[int, int] = {}
    for line, (position, epsilon) in enumerate(
        zip(whole.position.tolist(), whole.epsilon.tolist(), strict=True)
    ):
        if position not in best or epsilon < whole.epsilon[best[position]]:
            best[position] = line
    lines = torch.tensor([best[position] for position in sorted(best)], dtype=torch.int64)
    return Adversarial(*(column[lines] for column in whole))
