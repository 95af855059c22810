"""Several processes as one: started by torchrun, one for each GPU or on CPUs.

Every process trains on its share of each batch and holds the same weights. Only the first writes
files. A process draws its own augmentation, dropout and attacks, and a BatchNorm layer sees the
statistics of its process's share alone, so results then depend on the number of processes; without
these they do not, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .errors import RunError


class World(NamedTuple):
    """One process, the one that this runs in, among all of them."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """The part of a batch of indices that is for one process."""
        return batch[self.rank :: self.size]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def wrap(self, network: nn.Module) -> nn.Module:
        """A network whose gradients are averaged over the processes."""
        if self.size == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices)

    def same_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's buffers, such as the statistics of BatchNorm."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    def from_first(self, data: bytes | None) -> bytes | None:
        """What the first process holds."""
        if self.size == 1:
            return data
        length = torch.tensor(-1 if data is None else len(data))
        dist.broadcast(length, src=0)
        if length < 0:
            return None
        content = torch.empty(int(length), dtype=torch.uint8)
        if self.is_first and data:
            content = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        dist.broadcast(content, src=0)
        return content.numpy().tobytes()

    def wait(self) -> None:
        """Return when every process is here."""
        if self.size > 1:
            dist.barrier()

    def fail(self, error: RunError) -> NoReturn:
        """Raise what every process finds, and only the first need say."""
        raise error if self.is_first else SystemExit(error.code)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Take this process's place among those that torchrun started, if it did.

    Raises:
        RunError: the device does not exist, or another process has gone.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _device(device, int(os.environ.get("LOCAL_RANK", "0")) if size > 1 else None)
    if size == 1:
        yield World(chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        dist.init_process_group("cpu:gloo,cuda:nccl", device_id=chosen)
    else:
        dist.init_process_group("gloo")
    try:
        yield World(chosen, dist.get_rank(), size)
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise RunError("another process of this run has ended") from error
    finally:
        dist.destroy_process_group()


def is_first_on_machine() -> bool:
    """Whether this process prepares what the processes of one machine share."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _device(name: str, local_rank: int | None) -> torch.device:
    count = torch.cuda.device_count()
    if name == "auto":
        name = "cuda" if count else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RunError(f"--device must be auto, cpu, cuda or cuda:N; got {name}", 2) from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise RunError(f"--device must be auto, cpu, cuda or cuda:N; got {name}", 2)
    if local_rank is not None:
        device = torch.device("cuda", local_rank)
    index = 0 if device.index is None else device.index
    if index >= count:
        raise RunError(f"--device {device}: PyTorch finds {count} NVIDIA GPUs here", 2)
    return torch.device("cuda", index)
