"""The training loop: epochs over images that lie on the device, without waiting for it inside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .adversarial import Adversary, attack
from .distributed import World
from .losses import Criterion
from .tally import Tally

Compilation = Literal["off", "on", "graphs"]  # graphs: with CUDA graphs
Augment = Callable[[Tensor, torch.Generator], Tensor]
_TEST_BATCH = 1000


class Images(Protocol):
    """Images and labels, of which a batch can be had on the device."""

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [N, C, H, W] in [0, 1] and labels [N]; ``indices`` are int64 [N]."""
        ...


class Networks(NamedTuple):
    """One network in the forms in which it is called."""

    to_train: nn.Module  # the gradients of its weights are averaged over the processes
    to_attack: nn.Module


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
        compile: Compilation = "off",
    ) -> None:
        self.network = network.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.world = world
        self._seed, self._augment, self._adversary, self._bf16 = seed, augment, adversary, bf16
        self._generator = torch.Generator(world.device)
        self._plain = Networks(world.wrap(self.network), self.network)
        self._fast = self._plain
        if compile != "off":
            mode = "reduce-overhead" if compile == "graphs" else None
            self._fast = Networks(*(_compiled(network, mode) for network in self._plain))
        if world.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # nearly every batch has the same shape

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
        device = self.world.device
        state = {
            "cpu": torch.get_rng_state(),
            f"images on {device.type}": self._generator.get_state(),
        }
        if device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(device)
        return state

    def set_rng_state(self, state: dict[str, Tensor]) -> None:
        """The inverse of ``rng_state``, as far as it is one of this kind of device."""
        device = self.world.device
        torch.set_rng_state(state["cpu"])
        if f"images on {device.type}" in state:
            self._generator.set_state(state[f"images on {device.type}"])
        if device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], device)

    def train_batches(
        self,
        data: Images,
        batches: list[Tensor],  # int64 indices, those of an epoch, over all processes
        criterion: Criterion,
        *,
        lr: float,
        tally: Tally,
        start: int = 0,
    ) -> Iterator[int]:
        """Take a step for each batch from ``start``; yield its images once it is under way."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.network.train()
        for batch in batches[start:]:
            images, labels = data.batch(self.world.share(batch))
            # The processes' gradients are averaged, whatever their shares of a batch.
            share = len(images) * self.world.size / len(batch)
            images = self._augment(images, self._generator)
            # To compile for the smaller last batch too would take longer than it saves.
            networks = self._fast if len(batch) == len(batches[0]) else self._plain
            self._step(networks, images, labels, criterion, tally, share)
            yield len(batch)

    def _step(
        self,
        networks: Networks,
        images: Tensor,
        labels: Tensor,
        criterion: Criterion,
        tally: Tally,
        share: float,
    ) -> None:
        clean = len(images)
        if self._adversary is not None:
            attacked = self._attacked(networks.to_attack, images, labels, self._adversary)
            images, labels = torch.cat([images, attacked]), torch.cat([labels, labels])
        images = images.contiguous(memory_format=torch.channels_last)
        self.optimizer.zero_grad()
        with self._autocast():
            loss, stats = criterion(networks.to_train(images), labels)
        tally.add(loss, stats, clean)
        (loss if share == 1 else loss * share).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _attacked(
        self, network: nn.Module, images: Tensor, labels: Tensor, adversary: Adversary
    ) -> Tensor:
        self.network.eval()
        with self._autocast():
            attacked = attack(network, images, labels, adversary, self._generator)
        self.network.train()
        return attacked

    @torch.no_grad()
    def test(self, data: Images, images: int, criterion: Criterion) -> Tally:
        """Look at each of the first ``images`` once, in evaluation mode."""
        tally = Tally()
        self.world.same_buffers(self.network)
        self.network.eval()
        for batch in torch.split(self.world.share(torch.arange(images)), _TEST_BATCH):
            shown, labels = data.batch(batch)
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


def _compiled(network: nn.Module, mode: str | None) -> nn.Module:
    compiled: nn.Module = torch.compile(network, mode=mode)  # type: ignore[assignment]
    return compiled
