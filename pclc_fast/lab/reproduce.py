"""``pclc reproduce``: an experiment from its data to its report, and what the numbers say."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from .attacks import Preset, Result, Spec, evaluate, save_result
from .config import DigitsExperiment
from .errors import RunError
from .report.command import report
from .report.subject import load_subject
from .report_config import ReportConfig
from .run_folder import find_runs, holds_runs, seed_folder
from .summary import BASELINE, CLEAN, OURS, WORST, Condition, Measurement, Results
from .table import accuracy_table, gap_table
from .threads import one_thread
from .train import train
from .train_config import TrainConfig
from .words import describe

LOSSES = {BASELINE: "ce", OURS: "pclc"}
_PRESET = "digits"
_TARGETED_STEPS = 10
_AUDITED = 25  # images a model


def reproduce_digits(config: DigitsExperiment, arguments: Sequence[str]) -> None:
    """Train, attack and audit both models of every seed; print tables and words, save the report.

    A run that was interrupted goes on. ``arguments`` are those of ``pclc``, for the record.

    Raises:
        RunError: the folder holds another experiment, a file cannot be written, or training
            diverged.
    """
    start = time.perf_counter()
    console, errors = Console(emoji=False), Console(stderr=True, emoji=False)
    with one_thread():
        folders = {name: train_seeds(config, name, arguments, errors) for name in LOSSES}
        results = attack_all(config, folders, errors)
        for table in (accuracy_table(results), gap_table(results)):
            console.print("", table, sep="\n")
        for paragraph in describe(results):
            console.print(paragraph + "\n", markup=False, highlight=False)
        runs = tuple(folder for found in folders.values() for folder in found)
        images = min(_AUDITED, config.images)
        report(ReportConfig(runs, out=config.out, images=images, device="cpu"), arguments)
    console.print(f"{time.perf_counter() - start:.0f} seconds", highlight=False)


def train_seeds(
    config: DigitsExperiment, name: str, arguments: Sequence[str], console: Console
) -> list[Path]:
    """Train a model of every seed, or go on with it; return the folders of the runs."""
    folder = config.out / LOSSES[name]
    wanted = TrainConfig(
        data="digits",
        loss=LOSSES[name],  # type: ignore[arg-type]
        epochs=config.epochs,
        lr=config.lr,
        batch_size=config.batch_size,
        seeds=config.seeds,
        device="cpu",
        out=folder,
        warm_ups=config.out / "warm-ups",
    )
    if holds_runs(folder):
        _check_same(wanted, [begun for _, begun in find_runs(folder)])
        train(TrainConfig(resume=folder), ("train", "--resume", str(folder)), quiet=True)
    else:
        train(wanted, arguments, quiet=True)
    alone = len(config.seeds) == 1
    found = [folder] if alone else [seed_folder(folder, seed).path for seed in config.seeds]
    for each in found:
        last = load_subject(each, None, torch.device("cpu")).metrics[-1]
        console.print(
            f"{each} trained: {100 * last['test_accuracy']:.1f} % of the test images correct, "
            f"logit gap {last['test_logit_gap']:.1f}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return found


def _check_same(wanted: TrainConfig, begun: Sequence[TrainConfig]) -> None:
    """Raise RunError unless the runs in a folder, by ascending seed, are of this experiment."""
    for run, seed in zip(begun, sorted(wanted.seeds), strict=False):
        found, own = run.identity(), dataclasses.replace(wanted, seeds=(seed,)).identity()
        if len(begun) != len(wanted.seeds) or any(found[key] != own[key] for key in _OPTIONS):
            raise RunError(
                f"{wanted.out} holds another experiment: choose another folder by --out", code=2
            )


_OPTIONS = ("data", "loss", "epochs", "lr", "batch_size", "seeds")


def attack_all(
    config: DigitsExperiment, folders: dict[str, list[Path]], console: Console
) -> Results:
    """Attack every model, keep what was found beside it, and measure what is left."""
    measurements: list[Measurement] = []
    for name, found in folders.items():
        for seed, folder in zip(config.seeds, found, strict=True):
            result = attack_run(config, folder, seed)
            measured = measure(seed, name, result)
            lowest = min(m.accuracy for m in measured)
            console.print(
                f"{folder} attacked: {100 * measured[0].accuracy:.1f} % of {result.clean.images} "
                f"images correct, lowest under attack {100 * lowest:.1f} %",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
            measurements += measured
    return Results(measurements)


def attack_run(config: DigitsExperiment, folder: Path, seed: int) -> Result:
    """Attack the model of a run; its result lies beside it then."""
    subject = load_subject(folder, None, torch.device("cpu"))
    if subject.network is None or subject.images is None or subject.labels is None:
        raise RunError(f"{folder}: {subject.missing.get('model', 'it cannot be attacked')}")
    images, labels = subject.images[: config.images], subject.labels[: config.images]
    result = evaluate(
        subject.network, images, labels, eps=config.epsilons, preset=preset(config), seed=seed
    )
    data = dataclasses.replace(result.data, name="digits test")
    model = dataclasses.replace(result.model, name=str(folder))
    result = dataclasses.replace(result, data=data, model=model)
    out = folder / "attacks" / _PRESET
    out.mkdir(parents=True, exist_ok=True)
    save_result(out, result)
    return result


def preset(config: DigitsExperiment) -> Preset:
    """FGSM and PGD as everybody runs them, and what finds more where these are misled."""
    plain = {"steps": config.steps, "step_size": 2.5 / config.steps, "per_epsilon": True}
    targets = {"steps": _TARGETED_STEPS, "targets": 9}
    specs = (
        Spec("fgsm", "FGSM", "fgsm", {}, _PRESET),
        Spec("pgd", f"PGD-{config.steps}", "pgd", plain, _PRESET),
        Spec(
            "pgd-rescaled",
            f"PGD-{config.steps}, rescaled",
            "pgd",
            {**plain, "rescaled": True},
            _PRESET,
        ),
        Spec(
            "multi-targeted",
            f"PGD-{_TARGETED_STEPS}, rescaled, each target",
            "multi-targeted",
            targets,
            _PRESET,
        ),
    )
    return Preset(_PRESET, specs, carry=True)


def measure(seed: int, name: str, result: Result) -> list[Measurement]:
    """What is right without an attack, under FGSM, under PGD, and under all that was tried."""
    gaps = (torch.tensor(g).double().mean().item() for g in _gaps(result))
    clean = _standing(result, [])
    found = [Measurement(seed, name, Condition(CLEAN, 0.0), clean, *gaps)]
    for title, keys in (
        ("FGSM", ["fgsm"]),
        ("PGD", ["pgd"]),
        (WORST, [a.key for a in result.attacks]),
    ):
        for epsilon in result.epsilons:
            cells = [c for c in result.cells if c.attack in keys and c.within(epsilon)]
            standing = _standing(result, [image for cell in cells for image in cell.fooled])
            found.append(Measurement(seed, name, Condition(title, epsilon), standing))
    return found


def _gaps(result: Result) -> tuple[list[float], list[float]]:
    return result.images.prob_gap, result.images.logit_gap


def _standing(result: Result, fooled: Sequence[int]) -> torch.Tensor:
    """Which images are right, without those that were fooled: [N], bool."""
    flags = torch.zeros(result.clean.images, dtype=torch.bool)
    flags[list(result.images.correct - set(fooled))] = True
    return flags
