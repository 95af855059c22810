"""Seconds an epoch: the lab's loop against the usual one, on real images.

    python -m benchmarks.training --root FOLDER_WITH_MNIST
    python -m benchmarks.training --device cuda --data tiny-imagenet-200 --model vgg13 --root FOLDER

The usual loop is a DataLoader with ToTensor and two workers, F.cross_entropy and Adam, without
waiting for the device within an epoch; its network is the lab's with ReLU before max-pooling, as
networks are usually written. On a CPU it runs twice, with PyTorch's default threads,
which then compete with the workers, and with one thread; on a GPU as the lab's loop does, in
channels_last and bfloat16, from pinned memory. The loops take turns, epoch by epoch, so that all
meet the same machine. It needs torchvision.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import CIFAR10, MNIST, ImageFolder
from torchvision.transforms import ToTensor

from pclc_fast.lab.data import ImageData, load_dataset
from pclc_fast.lab.data.augment import AUGMENTATIONS
from pclc_fast.lab.data.store import Store
from pclc_fast.lab.distributed import World
from pclc_fast.lab.environment import device_name
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
    data = load_dataset(arguments.data, root=arguments.root)
    epochs = _loops(arguments, data)
    times, busy = interleaved(epochs, arguments.rounds, arguments.device)
    for line in report(times):
        print(line)
    for name, percent in busy.items():
        print(f"{name:<22} the GPU is at work {percent:.0f} % of the time")
    where = environment("python -m benchmarks.training", time.perf_counter() - start)
    device = device_name(torch.device(arguments.device))
    task = f"{arguments.model}, {data.name}, {len(data.train_labels)} images in batches of {BATCH}"
    document = {
        "environment": {**where, "device": device},
        "task": task,
        "seconds_per_epoch": {n: [round(s, 3) for s in seconds] for n, seconds in times.items()},
        "gpu_percent": {name: round(percent) for name, percent in busy.items()},
    }
    print("wrote", write(document, f"{device}-{Path(data.name).name}-{arguments.model}"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="mnist", help="mnist, cifar10 or a folder of images")
    parser.add_argument("--root", type=Path, default=Path("data"), help="folder with their files")
    parser.add_argument("--model", default="lenet5", help="as pclc train has it")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=3, help="epochs of each loop that are timed")
    return parser.parse_args()


def _loops(arguments: argparse.Namespace, data: ImageData) -> dict[str, Epoch]:
    def network() -> nn.Module:
        return build_model(
            arguments.model, data.shape, data.classes, mean=data.mean, std=data.std, seed=0
        )

    device = torch.device(arguments.device)
    images = _images(arguments.data, arguments.root)
    options: dict[str, dict[str, Any]] = {"": {}}
    epochs = {USUAL: usual_loop(images, pooled_last(network()), device, THREADS)}
    if device.type == "cpu":
        epochs[USUAL_ONE_THREAD] = usual_loop(images, pooled_last(network()), device, 1)
        options[", bf16"] = {"bf16": True}  # pclc train --bf16 on
    else:
        compiled = {"bf16": True, "compile": "on"}  # what pclc train does there
        options = {
            "": compiled,
            ", CUDA graphs": {**compiled, "compile": "graphs"},
            ", not compiled": {"bf16": True},
        }
    losses: tuple[LossName, LossName] = ("ce", "pclc")
    for what, chosen in options.items():
        for loss in losses:
            epochs[f"lab, {loss}{what}"] = lab_loop(data, network(), device, loss, chosen)
    return epochs


def _images(name: str, root: Path) -> Dataset[Any]:
    """What a usual script reads."""
    if name == "mnist":
        return MNIST(root, transform=ToTensor())
    if name == "cifar10":
        return CIFAR10(root, transform=ToTensor())
    folder = root / name if (root / name).exists() else Path(name)
    return ImageFolder(folder / "train", transform=ToTensor())


def pooled_last(network: nn.Module) -> nn.Module:
    """Exchange each max-pooling with a ReLU behind it: the same numbers, at a higher cost."""
    for layers in [part for part in network.modules() if isinstance(part, nn.Sequential)]:
        for i, (first, second) in enumerate(pairwise(list(layers))):
            if isinstance(first, nn.MaxPool2d) and isinstance(second, nn.ReLU):
                layers[i], layers[i + 1] = second, first
    return network


def usual_loop(images: Dataset[Any], model: nn.Module, device: torch.device, threads: int) -> Epoch:
    """What most training scripts do."""
    on_gpu = device.type == "cuda"
    loader = DataLoader(
        images, batch_size=BATCH, shuffle=True, num_workers=WORKERS, pin_memory=on_gpu
    )
    layout = torch.channels_last if on_gpu else torch.preserve_format
    model = model.to(device, memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def epoch() -> None:
        torch.set_num_threads(threads)
        for batch in loader:
            shown, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
                loss = F.cross_entropy(model(shown.to(memory_format=layout)), labels)
            loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        torch.set_num_threads(THREADS)

    return epoch


def lab_loop(
    data: ImageData, model: nn.Module, device: torch.device, loss: LossName, options: dict[str, Any]
) -> Epoch:
    """What ``pclc train`` does between two tests."""
    world = World(device)
    trainer = Trainer(model, world, seed=0, augment=AUGMENTATIONS["none"], **options)
    trainer.start_phase()
    store = Store(data.train_images, data.train_labels, device, data.brightest)
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


def interleaved(
    epochs: dict[str, Epoch], rounds: int, device: str
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time the loops in turn, after an epoch of each that does not count.

    On a GPU also return what share of the time it was at work in the last round, in percent.
    """
    times: dict[str, list[float]] = {name: [] for name in epochs}
    busy: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, epoch in epochs.items():
            start = time.perf_counter()
            if device == "cuda" and number == rounds:
                busy[name] = _at_work(epoch)
            else:
                epoch()
            if number:
                times[name].append(time.perf_counter() - start)
    return times, busy


def _at_work(epoch: Epoch) -> float:
    """Run an epoch; return the mean of what nvidia-smi says, about ten times a second."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*query, "-lms", "100"], stdout=subprocess.PIPE, text=True) as watch:
        epoch()
        watch.terminate()
        said, _ = watch.communicate()
    percents = [float(line) for line in said.split()]
    return statistics.fmean(percents) if percents else float("nan")


def report(times: dict[str, list[float]]) -> list[str]:
    """A line for each loop: median and range of its seconds, and its share of the usual loops'.

    The share is the median of those of each round, since other processes come and go.
    """
    usual = [name for name in (USUAL, USUAL_ONE_THREAD) if name in times]
    return [
        f"{name:<22} {statistics.median(seconds):6.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}), "
        + ", ".join(f"{_share(seconds, times[other]):.2f} of the {other}" for other in usual)
        for name, seconds in times.items()
    ]


def _share(seconds: list[float], of: list[float]) -> float:
    return statistics.median(own / other for own, other in zip(seconds, of, strict=True))


def write(document: dict[str, Any], name: str) -> Path:
    """Write what was measured; return the file."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    path = Path(__file__).parent / "results" / f"training-{plain}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
