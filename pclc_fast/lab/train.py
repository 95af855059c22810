"""``pclc train``: from a configuration to the runs of its seeds."""

from __future__ import annotations

import dataclasses
import os
import shlex
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

import pclc_fast

from .data import ImageData, is_folder, load_dataset
from .data.store import Store
from .distributed import World, is_first_on_machine, join_world
from .environment import device_name, environment, git_commit, versions
from .errors import RunError
from .models import build_model
from .option_checks import as_typed
from .progress import Progress
from .recipes import fill_in, phases
from .run_folder import RunFolder, find_runs, holds_runs, remove_plan, seed_folder, write_plan
from .session import Session, Setting
from .stopping import StopRequest
from .threads import one_thread
from .train_config import MOVABLE, TrainConfig, given

Runs = list[tuple[RunFolder, TrainConfig]]


def train(config: TrainConfig, arguments: Sequence[str], *, quiet: bool = False) -> None:
    """Train every seed of a checked configuration, or go on with what it resumes.

    ``arguments`` are those of ``pclc``, for the record. ``quiet``: print nothing.

    Raises:
        RunError: a file, the data or the device cannot be used, training diverged, or a signal
            asked to stop.
    """
    start = time.perf_counter()
    resumed = _resumed(config, arguments) if config.resume is not None else None
    wanted = resumed[0][1] if resumed else config
    threads = one_thread() if wanted.data == "digits" else nullcontext()
    with threads, join_world(wanted.device) as world:
        named = config.data if "data" in given(config, arguments) else wanted.data
        data = _load(dataclasses.replace(wanted, data=named), world)
        where = _where(data, world)
        runs = resumed if resumed else _new_runs(config, data, world)
        check_together(runs[0][1], data, world)
        errors = Console(stderr=True, emoji=False, quiet=quiet or not world.is_first)
        if world.is_first:
            _begin(runs, config.seeds if resumed is None else (), where, arguments, errors)
        world.wait()
        lasts = _run_all(runs, data, where, world, errors)
        if world.is_first and not quiet:
            _report(runs, lasts, time.perf_counter() - start)


def _run_all(
    runs: Runs, data: ImageData, where: dict[str, Any], world: World, console: Console
) -> list[dict[str, Any]]:
    hint = shlex.quote(str(runs[0][0].whole))
    epochs = sum(phase.epochs for _, config in runs for phase in phases(config))
    images = len(data.train_labels)
    brightest = data.brightest
    console.print(
        f"{data.name}: {images} training and {len(data.test_labels)} test images of "
        f"{'x'.join(map(str, data.shape))}, {data.classes} classes; {where['device_name']}"
        + (f", {world.size} processes" if world.size > 1 else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    with Progress(console, total=epochs * images) as progress, StopRequest() as stop:
        setting = Setting(
            data=data,
            train=Store(data.train_images, data.train_labels, world.device, brightest),
            test=Store(data.test_images, data.test_labels, world.device, brightest),
            world=world,
            where=where,
            progress=progress,
            stop=stop,
            resume_hint=hint,
        )
        try:
            return [Session(folder, config, setting).run() for folder, config in runs]
        except KeyboardInterrupt:  # the second Ctrl-C
            raise RunError(
                f"interrupted. The last saved state is intact: go on by pclc train --resume {hint}",
                code=130,
            ) from None


def _new_runs(config: TrainConfig, data: ImageData, world: World) -> Runs:
    """The folder and the filled-in configuration of every seed."""
    config = fill_in(config, data.shape[0])
    default: Literal["on", "off"] = "on" if world.device.type == "cuda" else "off"
    folder_name = Path(os.path.abspath(config.data)).name
    name = f"{folder_name}-{config.model}-{config.loss}".replace(":", "-")
    out = Path("runs") / name if config.out is None else config.out
    config = dataclasses.replace(
        config,
        data=str(Path(config.data).resolve()) if is_folder(config.data) else config.data,
        device=world.device.type,
        out=out,
        bf16=default if config.bf16 == "auto" else config.bf16,
        compile=default if config.compile == "auto" else config.compile,
    )
    alone = len(config.seeds) == 1
    folders = [RunFolder(out)] if alone else [seed_folder(out, seed) for seed in config.seeds]
    return [
        (folder, dataclasses.replace(config, seeds=(seed,), out=folder.path))
        for folder, seed in zip(folders, config.seeds, strict=True)
    ]


def _resumed(config: TrainConfig, arguments: Sequence[str]) -> Runs:
    """The runs in a folder as they were configured; raises RunError where options contradict."""
    assert config.resume is not None
    options = given(config, arguments)
    moved = {name: getattr(config, name) for name in options if name in MOVABLE}
    moved.pop("resume")
    runs = []
    for folder, stored in find_runs(config.resume):
        values = stored.to_json()
        for name, value in options.items():
            if name == "data" and is_folder(value) and is_folder(stored.data):
                continue  # it was moved: its images are known by their checksum
            if name == "out" or (name not in MOVABLE and values[name] != value):
                flag = name.replace("_", "-")
                here, there = _as_typed(value), _as_typed(values[name])
                raise RunError(
                    f"--{flag} {here} contradicts the run in {folder.path}, which has "
                    f"{there}: leave it out, or begin another run",
                    code=2,
                )
        runs.append((folder, dataclasses.replace(stored, **moved)))
    return runs


def _as_typed(value: Any) -> str:
    """A value of config.json as it is given to an option."""
    return as_typed(value) if isinstance(value, list) else str(value)


def check_together(config: TrainConfig, data: ImageData, world: World) -> None:
    """Raise RunError where the configuration, the data and the processes do not go together."""
    if min(config.batch_size, len(data.test_labels)) < world.size:
        raise RunError(
            f"each of {world.size} processes needs a share: the batches have {config.batch_size} "
            f"images and the test {len(data.test_labels)}",
            code=2,
        )
    needed = 3 if config.loss == "gce" else 2  # gce compares the false classes with each other
    if data.classes < needed:
        raise RunError(
            f"--loss {config.loss} needs at least {needed} classes; {data.name} has {data.classes}",
            code=2,
        )
    assert config.model is not None  # filled in
    try:
        build_model(config.model, data.shape, data.classes, mean=data.mean, std=data.std, seed=0)
    except ValueError as error:
        raise RunError(f"--model: {error}", code=2) from error


def _load(config: TrainConfig, world: World) -> ImageData:
    """Load the data, on each machine in one process first, which leaves a cache to the others."""

    def load() -> ImageData:
        return load_dataset(
            config.data, root=config.root, download=config.download, image_size=config.image_size
        )

    try:
        if is_first_on_machine():
            data = load()
        world.wait()
        return data if is_first_on_machine() else load()
    except OSError as error:
        raise RunError(str(error)) from error
    except ValueError as error:
        raise RunError(str(error), code=2) from error


def _where(data: ImageData, world: World) -> dict[str, Any]:
    """What a result depends on besides the configuration."""
    return {
        "data_sha256": data.sha256,
        "torch": torch.__version__,
        "pclc_fast": pclc_fast.__version__,
        "device_name": device_name(world.device),
        "threads": torch.get_num_threads(),
        "processes": world.size,
    }


def _begin(
    runs: Runs,
    new: tuple[int, ...],
    where: dict[str, Any],
    arguments: Sequence[str],
    console: Console,
) -> None:
    """Make the folders of the ``new`` seeds and of those that were cut short: all or none.

    Say of the others what is no longer as it was when they began.
    """
    whole = runs[0][0].whole
    for folder, _ in runs if new else ():
        folder.check_is_free()
    try:
        if len(new) > 1:
            write_plan(whole, dataclasses.replace(runs[0][1], seeds=new, out=whole))
        for folder, config in runs:
            if folder.is_begun():
                _compare(folder, where, console)
            else:
                facts = {"commit": git_commit(), "packages": versions()}
                folder.create(config, {**environment(arguments), **where, **facts})
        remove_plan(whole)
    except KeyboardInterrupt:
        if not holds_runs(whole):
            raise
        raise RunError(
            f"interrupted. Go on by pclc train --resume {shlex.quote(str(whole))}", code=130
        ) from None


def _compare(folder: RunFolder, where: dict[str, Any], console: Console) -> None:
    """Say what is no longer as it was when a run began."""
    before = folder.environment()
    for name, value in where.items():
        if before.get(name) != value:
            console.print(
                f"{folder.path} began with {name} {before.get(name)}, now it is {value}: "
                "it will not end the same to the last bit",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def _report(runs: Runs, lasts: list[dict[str, Any]], seconds: float) -> None:
    console = Console(emoji=False)
    for (folder, _), last in zip(runs, lasts, strict=True):
        console.print(
            f"{folder.path}: {100 * last['test_accuracy']:.2f} % of the test images correct "
            f"after {last['epoch']} epochs",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"{seconds:.0f} seconds", highlight=False)
