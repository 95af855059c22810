"""Fabricated results, and the documents of reports on them."""

from __future__ import annotations

import json
import random
from typing import Any

import torch

from pclc_fast.lab.attacks import Result
from pclc_fast.lab.attacks.result import (
    Adversarial,
    Assumption,
    Attack,
    Caution,
    Cell,
    Counts,
    Images,
    Subject,
    Trace,
)
from pclc_fast.lab.audit import verdict
from pclc_fast.lab.audit.evidence import Evidence
from pclc_fast.lab.report.document import document
from pclc_fast.lab.report.images import samples
from pclc_fast.lab.report.ranks import ranks
from pclc_fast.lab.report.results import attacked

ATTACKS = {"fgsm": "FGSM", "pgd-40": "PGD-40", "square": "Square, 1,000 queries"}
TRACE = Trace([40, 30], [10, 5], [1.0, 2.0], [0.1, 0.2], [0.5, 0.5], [1, 0], [2, 6], [0, 0])


def result(
    *, classes: int = 10, images: int = 60, seed: int = 0, epsilons: tuple[float, ...] = (0.1, 0.2)
) -> Result:
    """A result in which every attack fools images at random, the more the larger epsilon."""
    draw = random.Random(seed)
    labels = [i % classes for i in range(images)]
    clean = random.Random(0)  # the same for every seed
    predicted = [y if clean.random() < 0.95 else (y + 1) % classes for y in labels]
    right = [i for i in range(images) if predicted[i] == labels[i]]
    cells, nearest = [], dict[int, float]()
    for key in ATTACKS:
        for e in epsilons:
            fooled = [i for i in right if draw.random() < 3 * e]
            nearest.update({i: min(e, nearest.get(i, e)) for i in fooled})
            others = [(labels[i] + 1) % classes for i in fooled]
            rank = [draw.choice([2, 2, 2, 3, 7]) for _ in fooled]
            counts = Counts(40 * len(right), 39 * len(right), 40 * images, 39 * images)
            ones, distances = [1] * len(fooled), [e] * len(fooled)
            cells.append(
                Cell(key, "Linf", e, right, fooled, others, rank, ones, distances, 0, counts,
                     TRACE, 0.5)
            )  # fmt: skip
    lines = sorted(nearest)
    adversarial = Adversarial(
        torch.rand(len(lines), 1, 4, 4, generator=torch.Generator().manual_seed(seed)),
        torch.tensor(lines),
        torch.tensor([nearest[i] for i in lines], dtype=torch.float64),
        torch.tensor([(labels[i] + 1) % classes for i in lines]),
        torch.zeros(len(lines), dtype=torch.int64),
    )
    return Result(
        Subject("m", "ab" * 32, {"classes": classes, "parameters": 12345}),
        Subject("d", "cd" * 32, {"first": 0}),
        "paper", "Linf", list(epsilons), seed, 512, False, False,
        [Attack(k, t, "Table 1", "score" if k == "square" else "white-box", {"steps": 40})
         for k, t in ATTACKS.items()],
        [Assumption("MIM: decay", "not given", "1.0")],
        [Caution("softmax", "The outputs sum to 1 on 60 of 60 images.")],
        Images(labels, predicted, [0.5] * images, [3.25] * images),
        cells, {"torch": "2.14.1"}, 12.5, 2**28, adversarial,
    )  # fmt: skip


def audited(classes: int) -> dict[str, Any]:
    """An audit in which some checks pass, some fail and some were not run."""
    clean = torch.ones(20, dtype=torch.bool)
    half = torch.arange(20) < 10
    standing = {(a, 0.1): half for a in ("fgsm", "pgd", "pgd-twice", "noise")}
    standing |= {("pgd-targets", 0.1): ~clean, ("square", 0.1): clean}
    evidence = Evidence(classes, clean, [0.1], standing, worst={0.1: half})
    return verdict.to_json(evidence)


def run(name: str, *, group: str | None = None, **options: Any) -> dict[str, Any]:
    """A run in which everything was measured."""
    found = result(**options)
    classes = found.model.facts["classes"]
    names = [f"class-{k}" for k in range(classes)]
    images = torch.rand(len(found.images.label), 1, 4, 4)
    points = [{"x": i * 0.5, "y": -i, "label": i % 10, "attacked": i > 6} for i in range(9)]
    centre = {"mean": 1.5, "median": 1.25}
    return {
        "id": name,
        "key": group or name,
        "about": "lenet5, pclc, 8 epochs a phase",
        "folder": f"runs/{name}",
        "model": {"sha256": "ab" * 32, "facts": {"parameters": 12345}},
        "data": {"set": "mnist", "sha256": "cd" * 32, "facts": {"classes": classes}},
        "training": {"epochs": 16, "planned": 16, "test_accuracy": 0.9917},
        "attacked": attacked(found, names),
        "gaps": {"probability": centre, "logit": centre},
        "gradients": {"l2": centre, "l1": centre, "margin": {**centre, "images": 60}},
        "ranks": ranks(found),
        "embedding": {"facts": {"images": 7, "epsilon": 0.3, "fooled": 2}, "points": points},
        "samples": samples(found, images, names),
        "audit": audited(classes),
        "missing": {},
    }


def killed(name: str) -> dict[str, Any]:
    """A run that was killed while it trained."""
    nothing = dict.fromkeys(
        ("attacked", "gaps", "gradients", "ranks", "embedding", "samples", "audit")
    )
    reasons = dict.fromkeys(nothing, "training is not finished after 3 of 16 epochs")
    return {
        **run(name),
        **nothing,
        "model": {"sha256": None, "facts": {}},
        "training": {"epochs": 3, "planned": 16},
        "missing": reasons,
    }


def uneven(name: str) -> dict[str, Any]:
    """A run whose attacks ran at different epsilons, as those of the paper's tables do."""
    found = run(name)
    whole = result()
    part = Result(**{**vars(whole), "cells": whole.cells[:4]})
    return {**found, "attacked": attacked(part, [f"class-{k}" for k in range(10)])}


def cases() -> dict[str, dict[str, Any]]:
    """Documents by what is hard about them, as they come out of a file."""
    six = [
        run(f"{name}/seed-{seed}", group=name, seed=seed)
        for name in ("ce", "pc")
        for seed in range(3)
    ]
    centre = {"mean": 1.5, "median": 1.25}
    nothing = {"mean": None, "median": None, "images": 60}
    where = {"command": "pclc report runs/7", "torch": "2.14.1", "seconds": 1.5}
    found = {
        "one": [run("mnist-ce")],
        "six": six,
        "killed": [killed("mnist-ce")],
        "uneven": [uneven("mnist-ce"), killed("other")],
        "200 classes": [run("tiny", classes=200, images=400, epsilons=(0.005, 0.01))],
        "one epsilon": [run("x", epsilons=(0.3,))],
        "all wrong": [{**run("x"), "gradients": {"l2": centre, "l1": centre, "margin": nothing}}],
    }
    return {k: json.loads(json.dumps(document(runs, where))) for k, runs in found.items()}
