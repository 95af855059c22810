"""One run from where it stands to its end: epochs, tests, saved states."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .adversarial import make_adversary
from .checkpoint import DamagedError, State, read_state, write_state
from .data import ImageData
from .data.augment import AUGMENTATIONS
from .data.store import Store
from .distributed import World
from .errors import RunError
from .loop import Trainer, own_random_state, split_batches
from .losses import make_criterion
from .models import build_model
from .progress import Progress
from .recipes import WARM_UP, Phase, fingerprint, locate, phases, warm_up_facts
from .run_folder import RunFolder
from .stopping import StopRequest
from .tally import Tally
from .train_config import TrainConfig


class Setting(NamedTuple):
    """What the runs of one command share."""

    data: ImageData
    train: Store
    test: Store
    world: World
    where: Mapping[str, Any]  # what results depend on besides the configuration
    progress: Progress
    stop: StopRequest
    resume_hint: str  # what goes on with all runs of the command


class Session:
    """One run; its configuration is filled in."""

    def __init__(self, folder: RunFolder, config: TrainConfig, setting: Setting) -> None:
        self._folder, self._config, self._setting = folder, config, setting
        (self._seed,) = config.seeds
        self._plan = phases(config)
        self._images = len(setting.data.train_labels)
        self._identity = fingerprint({**config.identity(), "sha256": setting.data.sha256})

    def run(self) -> dict[str, Any]:
        """Train to the end, save the weights, and return the last epoch's metrics.

        Raises:
            RunError: a file cannot be read or written, the loss is no longer finite, or a signal
                asked to stop.
        """
        with own_random_state(self._setting.world.device):
            return self._run()

    def _run(self) -> dict[str, Any]:
        setting = self._setting
        state = self._stored_state() or self._shared_warm_up()
        trainer = self._trainer()
        if state is None:
            state = State(self._identity, epoch=0, weights={})
        else:
            trainer.load_weights(state.weights)
        if setting.world.is_first:
            self._folder.write_metrics(state)  # those after the last good state are gone
        setting.progress.advance(state.epoch * self._images, "")
        while state.epoch < sum(phase.epochs for phase in self._plan):
            state = self._epoch(trainer, state)
            self._stop_if_asked(state)
        if setting.world.is_first:
            self._folder.finish(trainer.weights(), self._about())
        setting.world.wait()
        return state.metrics[-1]

    def _trainer(self) -> Trainer:
        data, config = self._setting.data, self._config
        assert config.model is not None  # filled in
        assert config.compile != "auto"
        network = build_model(
            config.model, data.shape, data.classes, mean=data.mean, std=data.std, seed=self._seed
        )
        return Trainer(
            network,
            self._setting.world,
            seed=self._seed,
            augment=AUGMENTATIONS[config.augmentation],
            adversary=make_adversary(
                config.adversarial, config.adversarial_eps, config.adversarial_steps
            ),
            bf16=config.bf16 == "on",
            compile=config.compile,
        )

    def _epoch(self, trainer: Trainer, state: State) -> State:
        """Take the rest of the epoch that ``state`` stands in; save and return where that ends."""
        world, progress = self._setting.world, self._setting.progress
        phase, number = locate(self._plan, state.epoch)
        criterion = make_criterion(
            phase.loss, self._config.loss_options() if phase.loss == self._config.loss else None
        )
        tally = self._place(trainer, state, number)
        order = trainer.order(self._images, state.epoch)
        batches = split_batches(order, self._config.batch_size, world)
        lr = phase.lr(number, self._config.lr)
        doing = f"seed {self._seed}, {phase.name}, epoch {state.epoch + 1}"
        progress.advance(sum(map(len, batches[: state.batch])), doing)
        start = time.perf_counter()
        steps = trainer.train_batches(
            self._setting.train, batches, criterion, lr=lr, tally=tally, start=state.batch
        )
        for done, images in enumerate(steps, start=state.batch + 1):
            progress.advance(images, doing)
            if self._setting.stop and world.size == 1:
                self._save_within(trainer, state, done, tally)
        row: dict[str, Any] = {"epoch": state.epoch + 1, "phase": phase.name, "lr": lr}
        row |= tally.means(world)
        row["seconds"] = round(time.perf_counter() - start, 3)
        test = trainer.test(self._setting.test, len(self._setting.data.test_labels), criterion)
        row |= {f"test_{name}": value for name, value in test.means(world).items()}
        for loss in (row["loss"], row["test_loss"]):  # the last step may be the one too far
            if not math.isfinite(loss):
                self._diverged(loss, row, state)
        after = self._save(trainer, state, row, phase, number)
        progress.finished(self._line(row))  # last: whoever reads may have gone
        return after

    def _place(self, trainer: Trainer, state: State, number: int) -> Tally:
        """Bring the trainer to where ``state`` stands in epoch ``number`` of a phase."""
        device = self._setting.world.device
        if number == 0 and state.batch == 0:
            trainer.start_phase()
        elif not hasattr(trainer, "optimizer"):
            trainer.start_phase()
            trainer.load_optimizer_state(state.optimizer)
        trainer.start_epoch(state.epoch)
        if state.batch == 0:
            return Tally()
        if not self._setting.world.is_first:  # it was one process that stopped within an epoch
            return Tally.from_tensors({n: t[:0] for n, t in state.seen.items()}, device)
        trainer.set_rng_state(state.rng)
        return Tally.from_tensors(state.seen, device)

    def _save(
        self, trainer: Trainer, state: State, row: dict[str, Any], phase: Phase, number: int
    ) -> State:
        after = State(
            belongs_to=self._identity,
            epoch=state.epoch + 1,
            weights={},
            metrics=[*state.metrics, row],
        )
        if self._setting.world.is_first:
            after.weights, after.optimizer = trainer.weights(), trainer.optimizer_state()
            self._folder.save(after)
            if phase.name == WARM_UP and number + 1 == phase.epochs:
                self._share_warm_up(after)
        return after

    def _save_within(self, trainer: Trainer, state: State, batch: int, tally: Tally) -> None:
        self._folder.save(
            State(
                belongs_to=self._identity,
                epoch=state.epoch,
                weights=trainer.weights(),
                optimizer=trainer.optimizer_state(),
                metrics=state.metrics,
                batch=batch,
                rng=trainer.rng_state(),
                seen=tally.to_tensors(),
            )
        )
        self._stopped(f"after batch {batch} of epoch {state.epoch + 1}")

    def _stop_if_asked(self, state: State) -> None:
        """With several processes, all must stop at the same place: the end of an epoch."""
        asked = self._setting.world.sum(torch.tensor(float(bool(self._setting.stop))))
        if asked > 0:
            self._stopped(f"after epoch {state.epoch}")

    def _stopped(self, where: str) -> None:
        self._setting.world.fail(
            RunError(
                f"stopped {where}, saved. Go on by pclc train --resume {self._setting.resume_hint}",
                self._setting.stop.exit_code,
            )
        )

    def _diverged(self, loss: float, row: dict[str, Any], state: State) -> None:
        kept = f"{self._folder.path} holds the state before that epoch. " if state.epoch else ""
        self._setting.world.fail(
            RunError(
                f"the loss became {loss} in epoch {row['epoch']}: lr {row['lr']:g} is too large. "
                f"{kept}Begin another run with a smaller --lr, in another folder (--out)"
            )
        )

    def _stored_state(self) -> State | None:
        world = self._setting.world
        content = world.from_first(self._folder.state_bytes() if world.is_first else None)
        if content is None:
            return None
        state = read_state(content)
        if state.belongs_to != self._identity:
            world.fail(
                RunError(
                    f"the state in {self._folder.path} belongs to another configuration or other "
                    "data than config.json and the data found now",
                    code=2,
                )
            )
        return state

    def _warm_up_file(self) -> tuple[Path, str]:
        key = fingerprint(warm_up_facts(self._config, self._setting.where))
        return self._config.warm_ups / f"{key}.pt", key

    def _shared_warm_up(self) -> State | None:
        if self._plan[0].name != WARM_UP:
            return None
        world, progress = self._setting.world, self._setting.progress
        path, key = self._warm_up_file()
        content = world.from_first(_bytes_if_there(path) if world.is_first else None)
        if content is None:
            return None
        try:
            state = read_state(content)
            if state.belongs_to != key:
                raise DamagedError("it belongs to something else")
        except DamagedError as error:
            progress.finished(f"seed {self._seed}: {path} is damaged ({error}), so not used")
            return None
        progress.finished(f"seed {self._seed}: the warm-up, {state.epoch} epochs, is in {path}")
        state.belongs_to = self._identity
        if world.is_first:
            self._folder.save(state)
        return state

    def _share_warm_up(self, state: State) -> None:
        path, key = self._warm_up_file()
        shared = State(key, epoch=state.epoch, weights=state.weights, metrics=state.metrics)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_state(path, shared)
        except OSError as error:  # this run needs it no more
            self._setting.progress.finished(f"the warm-up is not shared: {path}: {error.strerror}")

    def _line(self, row: dict[str, Any]) -> str:
        total = sum(phase.epochs for phase in self._plan)
        attacked = row.get("adversarial_accuracy")
        return (
            f"seed {self._seed}, epoch {row['epoch']:>{len(str(total))}}/{total}, {row['phase']}: "
            f"loss {row['loss']:.4f}, train {100 * row['accuracy']:.2f} %, "
            + ("" if attacked is None else f"attacked {100 * attacked:.2f} %, ")
            + f"test {100 * row['test_accuracy']:.2f} %, "
            f"logit gap {row['logit_gap']:.1f}, {row['seconds']:.1f} s"
        )

    def _about(self) -> dict[str, str]:
        data = self._setting.data
        return {
            "config": json.dumps(self._config.to_json()),
            "data_sha256": data.sha256,
            "shape": json.dumps(list(data.shape)),
            "class_names": json.dumps(list(data.class_names)),
        }


def _bytes_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
