"""``pclc doctor``: what is installed, which backends work, and a self-test."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import pclc_fast
from pclc_fast import backends, pc_lc_loss, reference_pc_lc_loss

from .data import load_dataset
from .data.augment import AUGMENTATIONS
from .data.store import Store
from .distributed import World
from .doctor_config import DoctorConfig
from .environment import PACKAGES, cpu_name, versions
from .errors import RunError
from .loop import Trainer, own_random_state, split_batches
from .losses import make_criterion
from .models import build_model
from .tally import Tally
from .threads import one_thread

# Rows x classes: a small data set, Tiny ImageNet, a vocabulary that needs a loop over the row.
_SHAPES = ((256, 10), (256, 200), (4, 50257))
_TOLERANCE = 1e-4  # of the largest value; float32 keeps about 1e-6 of a row's sum
_OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"lc_mode": "soft", "pc_mean": True},
    {"lc_mode": "all"},
    {"ce_weight": 1.0, "pc_weight": 0.0, "lc_weight": 0.0},
)
_EPOCHS = 3


class Finding(NamedTuple):
    """One line of the report; ``ok`` is None for what is only said."""

    about: str
    what: str
    ok: bool | None = None


def doctor(_: DoctorConfig, _arguments: Sequence[str]) -> None:
    """Print the report.

    Raises:
        RunError: the self-test found something wrong.
    """
    start = time.perf_counter()
    findings = [*installed(), *devices(), *usable_backends()]
    with one_thread():
        findings += self_test()
    console = Console(emoji=False)
    if console.is_terminal:
        console.print(_table(findings))
    else:
        for finding in findings:
            print(f"{finding.about}: {finding.what}{_verdict(finding.ok)}")
    seconds = time.perf_counter() - start
    wrong = [finding.about for finding in findings if finding.ok is False]
    if wrong:
        raise RunError(f"wrong: {', '.join(wrong)}")
    console.print(f"all is well ({seconds:.1f} seconds)", highlight=False)


def installed() -> Iterator[Finding]:
    """The versions of what matters."""
    yield Finding("pclc_fast", pclc_fast.__version__)
    yield Finding("Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("torch", torch.__version__)
    found = versions()
    for name in PACKAGES:
        yield Finding(name, found.get(name, "not installed"))


def devices() -> Iterator[Finding]:
    """What can compute here."""
    yield Finding("CPU", f"{cpu_name()}, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding(
            f"cuda:{index}",
            f"{about.name}, {about.total_memory / 2**30:.0f} GiB, sm_{about.major}{about.minor}",
        )
    if not torch.cuda.device_count():
        yield Finding("GPU", "PyTorch finds no NVIDIA GPU")


def usable_backends() -> Iterator[Finding]:
    """Which backends work, and why the others do not."""
    for name, status in backends().items():
        yield Finding(f"backend {name}", "usable" if status.usable else status.reason)


def self_test() -> Iterator[Finding]:
    """Every usable backend against the reference in float64, then a short training."""
    places = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for place in places:
        for name, status in backends().items():
            if status.usable:
                yield from _compared(name, torch.device(place))
        yield _trained(torch.device(place))


def _compared(backend: str, device: torch.device) -> Iterator[Finding]:
    """Nothing for a backend that is not for the device."""
    about = f"{backend} on {device.type}"
    try:
        worst = max(
            _error(backend, device, shape, options) for shape in _SHAPES for options in _OPTIONS
        )
    except RuntimeError as error:
        if "cannot run here" not in str(error):
            yield Finding(about, f"{type(error).__name__}: {error}", ok=False)
        return
    yield Finding(about, f"loss and gradient, largest error {worst:.0e}", ok=worst <= _TOLERANCE)


def _error(
    backend: str, device: torch.device, shape: tuple[int, int], options: dict[str, Any]
) -> float:
    """The largest error of loss or gradient, relative to the largest value; NaN is infinite."""
    logits, target = (tensor.to(device) for tensor in _problem(shape))
    found = _loss_and_gradient(logits, target, backend, options)
    expected = _loss_and_gradient(logits.double(), target, None, options)
    errors = [
        ((a.double() - b).abs().max() / b.abs().max()).item()
        for a, b in zip(found, expected, strict=True)
    ]
    return max(error if error == error else math.inf for error in errors)


def _problem(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logits and targets with f_y from about 0.1 to 0.999: hinges active, mixed and idle.

    Not far below: the float32 reference, unlike the kernels, cancels there.
    """
    rows, classes = shape
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    target = torch.randint(classes, (rows,), generator=generator)
    others = logits.scatter(1, target[:, None], -math.inf).logsumexp(dim=1)
    odds = torch.linspace(-2.0, 7.0, rows)
    return logits.scatter(1, target[:, None], (others + odds)[:, None]), target


def _loss_and_gradient(
    logits: Tensor, target: Tensor, backend: str | None, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    if backend is None:
        loss = reference_pc_lc_loss(logits, target, reduction="sum", **options)
    else:
        loss = pc_lc_loss(logits, target, reduction="sum", backend=backend, **options)
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def _trained(device: torch.device) -> Finding:
    """A few epochs on the digits must teach the network something."""
    data = load_dataset("digits")
    world = World(device)
    with own_random_state(device):
        network = build_model(
            "small-cnn", data.shape, data.classes, mean=data.mean, std=data.std, seed=0
        )
        trainer = Trainer(network, world, seed=0, augment=AUGMENTATIONS["none"])
        trainer.start_phase()
        store = Store(data.train_images, data.train_labels, device, data.brightest)
        criterion = make_criterion("ce")
        for epoch in range(_EPOCHS):
            trainer.start_epoch(epoch)
            batches = split_batches(trainer.order(len(data.train_labels), epoch), 64, world)
            tally = Tally()
            for _ in trainer.train_batches(store, batches, criterion, lr=3e-3, tally=tally):
                pass
            accuracy = tally.means(world)["accuracy"]
    what = f"{100 * accuracy:.0f} % of the digits correct after {_EPOCHS} epochs"
    return Finding(f"training on {device.type}", what, ok=accuracy > 0.5)


def _table(findings: list[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("what", "found", ""):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.about, finding.what, _verdict(finding.ok).lstrip(" :"))
    return table


def _verdict(ok: bool | None) -> str:
    return {None: "", True: ": ok", False: ": WRONG"}[ok]
