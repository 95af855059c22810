"""The functions that are measured on a GPU, bound to their data."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pclc_fast import backends, pc_lc_loss

from .forms import FORMS, MARGIN, Loss
from .gpu_record import release_memory
from .gpu_sizes import BOTH, rows_for
from .gpu_timing import Call

CROSS_ENTROPY = "F.cross_entropy"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


def usable_backends(device: torch.device) -> tuple[list[str], dict[str, str]]:
    """Return the backends of the loss that run on the device, and why the others do not.

    The reference is not among them: it is what the others are compared with.
    """
    usable, reasons = [], {}
    for name, status in backends().items():
        if name == "reference":
            continue
        if not status.usable:
            reasons[name] = status.reason
            continue
        try:
            pc_lc_loss(
                torch.zeros(1, 2, device=device),
                torch.zeros(1, dtype=torch.int64, device=device),
                backend=name,
            )
            usable.append(name)
        except Exception as error:
            if "cannot run here" in str(error):
                reasons[name] = str(error)
            else:  # a failure, which every check and measurement is to show
                usable.append(name)
    return usable, reasons


def ours(backend: str, **options: Any) -> Loss:
    """Return the public function on one backend."""

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        value: Tensor = pc_lc_loss(logits, target, backend=backend, **options)
        return value

    return loss


def tripled(loss: Loss) -> Loss:
    """Return three times the loss, so that grad_output is not the free case of 1."""
    return lambda logits, target: 3 * loss(logits, target)


def eager_functions() -> dict[str, Loss]:
    """Return what the loss is compared with in eager mode."""
    return {
        **{f"eager {name}": form for name, form in FORMS.items()},
        CROSS_ENTROPY: F.cross_entropy,
    }


def make_logits(rows: int, classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return logits of which every false class is active, as in most of training; [N, K]."""
    torch.manual_seed(rows + classes)
    return torch.randn(rows, classes, dtype=dtype, device=device)


def make_target(rows: int, classes: int, device: torch.device) -> Tensor:
    return torch.randint(classes, (rows,), device=device)


def make_large(classes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return logits well above L2, which want a gradient, and their targets."""
    release_memory()
    free, _ = torch.cuda.mem_get_info(device)
    l2_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    rows = rows_for(classes, dtype.itemsize, l2_bytes, free)
    logits = make_logits(rows, classes, dtype, device)
    return logits.requires_grad_(), make_target(rows, classes, device)


def make_mixed_(logits: Tensor, target: Tensor, chunk_elements: int = 2**25) -> None:
    """Change the logits [N, K], K > 3, so that Eq. 6 is mixed in every row, a chunk at a time.

    f_y passes the margin by a fifth of what is left, three false classes share nearly all of that,
    and these three alone are active: with logits of any dtype, rounding cannot move a row away.
    """
    classes = logits.shape[1]
    chunk_rows = max(chunk_elements // classes, 1)
    true_prob = MARGIN + 0.2 * (1 - MARGIN)
    rest = math.log((1 - true_prob) / true_prob)  # the true logit is 0
    step = 1 + torch.arange(3, device=logits.device) * (classes // 4)
    shares = torch.tensor([0.31, 0.32, 0.33], device=logits.device).log()
    for part, label in zip(
        logits.split(chunk_rows),
        target[:, None].split(chunk_rows),
        strict=True,
    ):
        values = part.float().log_softmax(1) + (math.log(0.04) + rest)
        values.scatter_(1, (label + step) % classes, (shares + rest).expand(len(label), 3))
        part.copy_(values.scatter_(1, label, 0.0))


def bind(loss: Loss, logits: Tensor, target: Tensor, direction: str) -> Call:
    """Return the call to time; ``logits`` must want a gradient."""

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(logits, target), logits)

    @torch.no_grad()
    def forward() -> Tensor:
        return loss(logits, target)

    return both if direction == BOTH else forward


def copy_call(source: Tensor) -> Call:
    """Return a copy into a buffer that is there already: as many bytes as forward + backward."""
    source = source.detach()
    destination = torch.ones_like(source)
    return lambda: destination.copy_(source)
