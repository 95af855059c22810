"""Seconds an epoch of LeNet-5 on MNIST: the lab's loop against the usual one, on a CPU.

    python -m benchmarks.training --root FOLDER_WITH_MNIST

The usual loop is a DataLoader with ToTensor and two workers, F.cross_entropy and Adam. It runs
twice, with PyTorch's default threads, which then compete with the workers, and with one thread. The
loops take turns, epoch by epoch, so that all meet the same machine. It needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from pclc_fast.lab.data import ImageData, load_dataset
from pclc_fast.lab.data.augment import AUGMENTATIONS
from pclc_fast.lab.data.store import Store
from pclc_fast.lab.distributed import World
from pclc_fast.lab.loop import Trainer, split_batches
from pclc_fast.lab.losses import LossName, make_criterion
from pclc_fast.lab.models import build_model
from pclc_fast.lab.tally import Tally

from .environment import environment
from .harness import THREADS

BATCH, LR, WORKERS = 256, 0.01, 2
USUAL, USUAL_ONE_THREAD = "usual loop", "usual loop, 1 thread"
Epoch = Callable[[], None]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(THREADS)
    start = time.perf_counter()
    data = load_dataset("mnist", root=arguments.root)
    epochs: dict[str, Epoch] = {
        USUAL: usual_loop(arguments.root, data, THREADS),
        USUAL_ONE_THREAD: usual_loop(arguments.root, data, 1),
        "lab, ce": lab_loop(data, "ce"),
        "lab, pclc": lab_loop(data, "pclc"),
        "lab, ce, bfloat16": lab_loop(data, "ce", bf16=True),
    }
    if arguments.compile:
        epochs["lab, ce, compiled"] = lab_loop(data, "ce", compile=True)
    times = interleaved(epochs, arguments.rounds)
    for line in report(times):
        print(line)
    seconds = time.perf_counter() - start
    print("wrote", write(times, environment("python -m benchmarks.training", seconds)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder that holds MNIST/")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each loop that are timed")
    parser.add_argument("--compile", action="store_true", help="the lab's loop with torch.compile")
    return parser.parse_args()


def network(data: ImageData) -> nn.Module:
    return build_model("lenet5", data.shape, data.classes, mean=data.mean, std=data.std, seed=0)


def usual_loop(root: Path, data: ImageData, threads: int) -> Epoch:
    """What most training scripts do."""
    loader = DataLoader(
        MNIST(root, transform=ToTensor()), batch_size=BATCH, shuffle=True, num_workers=WORKERS
    )
    model = network(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def epoch() -> None:
        torch.set_num_threads(threads)
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        torch.set_num_threads(THREADS)

    return epoch


def lab_loop(
    data: ImageData, loss: LossName, *, bf16: bool = False, compile: bool = False
) -> Epoch:
    """What ``pclc train`` does between two tests."""
    world = World(torch.device("cpu"))
    trainer = Trainer(
        network(data), world, seed=0, augment=AUGMENTATIONS["none"], bf16=bf16, compile=compile
    )
    trainer.start_phase()
    store = Store(data.train_images, data.train_labels, world.device, data.brightest)
    criterion = make_criterion(loss)
    number = 0

    def epoch() -> None:
        nonlocal number
        trainer.start_epoch(number)
        tally, order = Tally(), trainer.order(len(data.train_labels), number)
        batches = split_batches(order, BATCH, world)
        for _ in trainer.train_batches(store, batches, criterion, lr=LR, tally=tally):
            pass
        tally.means(world)
        number += 1

    return epoch


def interleaved(epochs: dict[str, Epoch], rounds: int) -> dict[str, list[float]]:
    """Time the loops in turn, after an epoch of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            epoch()
            if number:
                times[name].append(time.perf_counter() - start)
    return times


def report(times: dict[str, list[float]]) -> list[str]:
    """A line for each loop: median and range of its seconds, and its share of the usual loops'."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    return [
        f"{name:<22} {medians[name]:6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}), "
        f"{medians[name] / medians[USUAL]:.2f} of the {USUAL}, "
        f"{medians[name] / medians[USUAL_ONE_THREAD]:.2f} of that with 1 thread"
        for name, seconds in times.items()
    ]


def write(times: dict[str, list[float]], where: dict[str, Any]) -> Path:
    """Write the seconds of every epoch; return the file."""
    cpu = re.sub(r"[^a-z0-9]+", "-", str(where["cpu"]).lower()).strip("-")
    path = Path(__file__).parent / "results" / f"training-cpu-{cpu}-{THREADS}-threads.json"
    document = {
        "environment": where,
        "task": f"LeNet-5, MNIST, batches of {BATCH}",
        "seconds_per_epoch": {n: [round(s, 3) for s in seconds] for n, seconds in times.items()},
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
