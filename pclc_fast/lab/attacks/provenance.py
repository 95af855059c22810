"""What was evaluated, with what: names, hashes, versions, memory."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .network import Model
from .result import Subject


def model_subject(model: Model, classes: int, substitute: Model | None = None) -> Subject:
    """Describe a model, and the one that transfer attacks are crafted on."""
    facts: dict[str, Any] = {"classes": classes}
    if isinstance(model, nn.Module):
        facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    if substitute is not None:
        facts["substitute"] = _weights(substitute) or _name(substitute)
    return Subject(_name(model), _weights(model), facts)


def data_subject(images: Tensor, labels: Tensor) -> Subject:
    """Describe the images that are evaluated and their labels."""
    sha256 = digest([("images", images), ("labels", labels)])
    return Subject("images", sha256, {"images": len(images), "shape": list(images.shape[1:])})


def digest(tensors: Iterable[tuple[str, Any]]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and contents."""
    total = hashlib.sha256()
    for name, tensor in tensors:
        if isinstance(tensor, Tensor):
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            total.update(
                tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
            )
    return total.hexdigest()


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU, or of the whole process where there is none."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _weights(model: Model) -> str | None:
    """A bare callable has none to hash."""
    return digest(model.state_dict().items()) if isinstance(model, nn.Module) else None


def _name(model: Model) -> str:
    if isinstance(model, nn.Module):
        return type(model).__name__
    return str(getattr(model, "__qualname__", type(model).__name__))
