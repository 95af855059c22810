"""The training loop: epochs over images that lie on the device, without waiting for it inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .adversarial import Adversary, attack
from .distributed import World
from .losses import Criterion
from .tally import Tally

Augment = Callable[[Tensor, torch.Generator], Tensor]
_TEST_BATCH = 1000


class Images(Protocol):
    """Images and labels, of which a batch can be had on the device."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [N, C, H, W] in [0, 1] and labels [N]; ``indices`` are int64 [N]."""
        ...


class Trainer:
    """A network, its optimizer, and how a step is taken. Holds no place in the run.

    The network is kept in channels_last, which LeNet-5 on two CPU cores gains a fifth from, too.
    """

    optimizer: torch.optim.Adam

    def __init__(
        self,
        network: nn.Module,
        world: World,
        *,
        seed: int,
        augment: Augment,
        adversary: Adversary | None = None,
        bf16: bool = False,
        compile: bool = False,
    ) -> None:
        self.network = network.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.world = world
        self._seed, self._augment, self._adversary, self._bf16 = seed, augment, adversary, bf16
        self._generator = torch.Generator(world.device)
        self._inner = _compiled(self.network) if compile else self.network  # for attacks
        self._forward = self._inner
        if world.size > 1:  # the gradients are averaged, but not those of attacks
            self._forward = world.wrap(self.network)
            if compile:
                self._forward = _compiled(self._forward)

    def start_phase(self) -> None:
        """Take a fresh optimizer."""
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), fused=self.world.device.type in ("cpu", "cuda")
        )

    def order(self, images: int, epoch: int) -> Tensor:
        """The order of the images in an epoch: the same in every process, on every device."""
        generator = torch.Generator().manual_seed(_derived(self._seed, "order", epoch))
        return torch.randperm(images, generator=generator)

    def start_epoch(self, epoch: int) -> None:
        """Seed what is random within an epoch by its number, so that no state has to be kept."""
        rank = self.world.rank
        torch.manual_seed(_derived(self._seed, "network", epoch, rank))
        self._generator.manual_seed(_derived(self._seed, "images", epoch, rank))

    def rng_state(self) -> dict[str, Tensor]:
        """Where the generators stand within an epoch."""
        state = {"cpu": torch.get_rng_state(), "images": self._generator.get_state()}
        if self.world.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.world.device)
        return state

    def set_rng_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``rng_state``."""
        torch.set_rng_state(state["cpu"])
        self._generator.set_state(state["images"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self.world.device)

    def train_batches(
        self,
        data: Images,
        batches: list[Tensor],  # int64 indices, over all processes
        criterion: Criterion,
        *,
        lr: float,
        tally: Tally,
    ) -> Iterator[int]:
        """Take a step for each batch; yield the number of its images once it is under way."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        for batch in batches:
            images, labels = data.batch(self.world.share(batch))
            images = self._augment(images, self._generator)
            self._step(images, labels, criterion, tally, len(batch))
            yield len(batch)

    def _step(
        self, images: Tensor, labels: Tensor, criterion: Criterion, tally: Tally, rows: int
    ) -> None:
        clean = len(images)
        if self._adversary is not None:
            images = torch.cat([images, self._attacked(images, labels, self._adversary)])
            labels = torch.cat([labels, labels])
        images = images.contiguous(memory_format=torch.channels_last)
        with self._autocast():
            loss, stats = criterion(self._forward(images), labels)
        tally.add(loss, stats, clean)
        self.optimizer.zero_grad()
        # The processes' gradients are averaged, whatever their shares of a batch.
        share = clean * self.world.size / rows
        (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _attacked(self, images: Tensor, labels: Tensor, adversary: Adversary) -> Tensor:
        self.network.eval()
        with self._autocast():
            attacked = attack(self._inner, images, labels, adversary, self._generator)
        self.network.train()
        return attacked

    @torch.no_grad()
    def test(self, data: Images, images: int, criterion: Criterion) -> Tally:
        """Look at each of the first ``images`` once, in evaluation mode."""
        tally = Tally()
        self.world.same_buffers(self.network)
        self.network.eval()
        for batch in torch.split(torch.arange(images), _TEST_BATCH):
            shown, labels = data.batch(self.world.share(batch))
            with self._autocast():
                logits = self.network(shown.contiguous(memory_format=torch.channels_last))
                loss, stats = criterion(logits, labels)
            tally.add(loss, stats, len(labels))
        return tally

    def weights(self) -> dict[str, Tensor]:
        """The parameters and buffers, copied to the CPU."""
        state = self.network.state_dict()
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """The inverse of ``weights``."""
        self.network.load_state_dict(weights)

    def optimizer_state(self) -> dict[str, Any]:
        """The state of the optimizer as tensors and numbers."""
        return self.optimizer.state_dict()

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """The inverse of ``optimizer_state``."""
        self.optimizer.load_state_dict(state)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self._bf16)


def split_batches(order: Tensor, batch_size: int, world: World) -> list[Tensor]:
    """The batches of an epoch; a last one with fewer images than processes is left out."""
    batches = list(torch.split(order, batch_size))
    return batches if len(batches[-1]) >= world.size else batches[:-1]


@contextmanager
def own_random_state(device: torch.device) -> Iterator[None]:
    """Leave the global generators as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _derived(*parts: object) -> int:
    """A seed that has nothing to do with that of other parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _compiled(network: nn.Module) -> nn.Module:
    compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return compiled
