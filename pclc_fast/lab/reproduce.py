"""``pclc reproduce``: an experiment from its data to its table, and what the table says."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from pclc_fast import PCLCLoss, pc_lc_loss

from .attacks import attack_images
from .config import DigitsExperiment
from .digits import DigitsData, digits_data
from .environment import environment
from .models import small_cnn
from .progress import Progress
from .record import save
from .summary import BASELINE, CLEAN, OURS, Condition, Measurement, Results
from .table import accuracy_table, gap_table
from .threads import one_thread
from .training import EpochStats, train
from .words import describe

# The last iterate counts. pc_lc_loss's cross-entropy keeps 1 - f_y where f_y rounds to 1.
_LAST: dict[str, Any] = {"iterate": "last", "loss": "exact-ce"}
CRITERIA = {
    BASELINE: PCLCLoss(pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, return_stats=True),
    OURS: PCLCLoss(margin=0.995, pc_weight=1.0, lc_weight=0.05, return_stats=True),  # Eq. 16
}


def reproduce_digits(config: DigitsExperiment, arguments: Sequence[str]) -> None:
    """Run an experiment that was checked, print its tables and words, and save both.

    ``arguments`` are those of ``pclc``, for the record.

    Raises:
        FloatingPointError: training diverged.
    """
    start = time.perf_counter()
    with one_thread():
        results = run_digits(config, digits_data(), Console(stderr=True))
        where = environment(arguments)
    seconds = time.perf_counter() - start
    console, words = Console(), describe(results)
    for table in (accuracy_table(results), gap_table(results)):
        console.print("", table, sep="\n")
    for paragraph in words:
        console.print(paragraph + "\n", markup=False, highlight=False)
    for path in save(config.out, config, where, results, words, seconds):
        console.print(f"saved {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{seconds:.0f} seconds", highlight=False)


def run_digits(config: DigitsExperiment, data: DigitsData, console: Console) -> Results:
    """Train and attack both models of every seed."""
    tested = 1 + len(config.epsilons) * (config.steps + 3)  # looks at a test image, see measure
    trained = 3 * config.epochs  # looks at a training image
    per_seed = trained * len(data.train_labels) + 2 * tested * len(data.test_labels)
    measurements: list[Measurement] = []
    with Progress(console, total=per_seed * len(config.seeds)) as progress:
        for seed in config.seeds:
            for name, model in train_pair(config, seed, data, progress).items():
                measured = list(measure(config, seed, name, model, data, progress))
                progress.finished(_tested_line(seed, name, measured))
                measurements += measured
    return Results(measurements)


def train_pair(
    config: DigitsExperiment, seed: int, data: DigitsData, progress: Progress
) -> dict[str, nn.Module]:
    """Train a warm-up with CE, then with each loss one model from its weights.

    Both of these see the images in the same order.
    """
    warm = small_cnn(seed=seed)
    shuffle = torch.Generator().manual_seed(seed)

    def phase(model: nn.Module, loss: str, title: str, generator: torch.Generator) -> nn.Module:
        epochs = train(
            model,
            data.train_images,
            data.train_labels,
            CRITERIA[loss],
            epochs=config.epochs,
            batch_size=config.batch_size,
            lr=config.lr,
            generator=generator,
        )
        for number, stats in enumerate(epochs, start=1):
            progress.advance(len(data.train_labels), f"seed {seed}, {title}, epoch {number}")
            line = _trained_line(seed, title, stats)
        progress.finished(line)
        return model.eval()

    phase(warm, BASELINE, "CE warm-up", shuffle)
    return {
        name: phase(copy.deepcopy(warm), name, f"then {name}", shuffle.clone_state())
        for name in CRITERIA
    }


def measure(
    config: DigitsExperiment,
    seed: int,
    name: str,
    model: nn.Module,
    data: DigitsData,
    progress: Progress,
) -> Iterator[Measurement]:
    """Yield a measurement of the clean test images, then of every attack at every epsilon."""
    images, labels = data.test_images, data.test_labels

    def look(condition: Condition, shown: Tensor, looks: int) -> Measurement:
        with torch.no_grad():
            _, stats = pc_lc_loss(model(shown), labels, return_stats=True)
        doing = f"seed {seed}, attacking {name}, {condition.attack} {condition.epsilon:g}"
        progress.advance(looks * len(labels), doing)
        gaps = stats.prob_gap.mean().item(), stats.logit_gap.mean().item()
        return Measurement(seed, name, condition, stats.correct, *gaps)

    yield look(Condition(CLEAN, 0.0), images, 1)
    for epsilon in config.epsilons:
        found = attack_images(model, images, labels, "fgsm", epsilon=epsilon, **_LAST)
        yield look(Condition("FGSM", epsilon), found.images, 2)
    for epsilon in config.epsilons:
        steps: dict[str, Any] = {
            "steps": config.steps,
            "step_size": 2.5 / config.steps,
            "per_epsilon": True,
        }
        found = attack_images(
            model, images, labels, "pgd", epsilon=epsilon, seed=seed, **steps, **_LAST
        )
        yield look(Condition("PGD", epsilon), found.images, config.steps + 1)


def _trained_line(seed: int, title: str, stats: EpochStats) -> str:
    return (
        f"seed {seed}, {title:<15} trained: {100 * stats.accuracy:.1f} %, "
        f"probability gap {stats.prob_gap:.3f}, logit gap {stats.logit_gap:.1f}"
    )


def _tested_line(seed: int, name: str, measured: list[Measurement]) -> str:
    clean, *attacked = (100 * m.accuracy for m in measured)
    return (
        f"seed {seed}, {name:<15} tested: {clean:.1f} %, lowest under attack {min(attacked):.1f} %"
    )
