"""The comparison with the float64 oracle of the tests: kernels on a device, oracle on the CPU."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pclc_fast import LossStats, pc_lc_loss

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from oracle import Case  # the tests are no package

CPU = torch.device("cpu")
MODES = ("hard", "soft", "all")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Around every power of two at which a kernel may change its tile, and odd widths whose rows are
# not aligned: 192, 668 and 1128 from the peers' bug reports, 50257 and 128256 of vocabularies.
CLASSES = (
    *(1, 2, 3, 10, 31, 32, 33, 64, 100, 127, 128, 129, 192, 200, 255, 256, 257, 511, 512, 513, 668),
    *(1000, 1023, 1024, 1025, 1128, 2047, 2048, 2049, 3072, 3073, 4095, 4096, 4097, 8191, 8192),
    *(8193, 16383, 16384, 16385, 32767, 32768, 32769, 50257, 65535, 65536, 65537, 128256, 131072),
    *(131073, 262144, 262145, 300001),
)


@dataclass
class DeviceCase(Case):
    """A case of the tests whose kernels run on ``device``."""

    device: torch.device = CPU

    def ours(self, grad_output: Tensor | float = 1.0) -> tuple[Tensor, Tensor, LossStats]:
        """Return loss, gradient and statistics of the backend, brought to the CPU."""
        leaf = self.logits.to(self.device).requires_grad_()
        weight = None if self.weight is None else self.weight.to(self.device)
        loss, stats = pc_lc_loss(
            leaf,
            self.target.to(self.device),
            weight,
            reduction=self.reduction,  # type: ignore[arg-type]
            return_stats=True,
            backend=self.backend,
            **self.options,
        )
        upstream = torch.as_tensor(grad_output, dtype=loss.dtype, device=self.device)
        (grad,) = torch.autograd.grad(loss, leaf, upstream.expand(loss.shape))
        return loss.detach().cpu(), grad.cpu(), LossStats(*(s.cpu() for s in stats))


def make_rows(classes: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows [7, K] of every case of Eq. 6, and their targets, one of them ignored.

    All hinges active, some of them (f_y just above the margin), and none.
    """
    rng = torch.Generator().manual_seed(seed + classes)
    logits = torch.randn(7, classes, generator=rng, dtype=torch.float64) * 2
    target = torch.randint(classes, (7,), generator=rng)
    target[1], target[2] = 0, classes - 1
    label = target[:, None]
    false_logits = logits.scatter(1, label, -torch.inf)
    if classes > 1:
        confident = false_logits.logsumexp(1, keepdim=True) + 5.3
        mixed = torch.tensor([False, False, True, True, False, False, True])[:, None]
        logits = torch.where(
            mixed & (torch.arange(classes) == label), confident.expand_as(logits), logits
        )
        logits[4, target[4]] += 40
    target[5] = -100
    return logits.to(dtype), target


def sweep_plan(classes: int) -> list[tuple[torch.dtype, str]]:
    """Return the dtypes and modes for one width, in the order of what is lost when time is up.

    float32 and "hard" for every width, then the other combinations in an order that turns from
    one width to the next, so that a few of them for each still cover every one in every regime.
    """
    rest = [(d, m) for m in MODES for d in DTYPES if (d, m) != (torch.float32, "hard")]
    turn = CLASSES.index(classes) * 4 % len(rest)
    return [(torch.float32, "hard"), *rest[turn:], *rest[:turn]]


def check_width(
    classes: int, plan: list[tuple[torch.dtype, str]], backend: str, device: torch.device
) -> None:
    """Check these dtypes and modes at one width.

    Raises:
        AssertionError: a loss, gradient or statistic is further from the oracle than rounding.
    """
    for number, (dtype, mode) in enumerate(plan):
        logits, target = make_rows(classes, dtype)
        rng = torch.Generator().manual_seed(classes)
        weight = torch.rand(classes, generator=rng) + 0.5
        options = {"lc_mode": mode, "ce_weight": 0.25, "lc_cap": 0.0 if mode == "soft" else 0.75}
        reduction = ("mean", "none", "sum")[(number + classes) % 3]
        case = DeviceCase(logits, target, weight, reduction, options, backend, device)
        for grad_output in (1.0, -3.0):  # the gradient from forward, and from backward
            try:
                case.check(grad_output)
            except AssertionError as error:
                where = f"{dtype}, {mode}, {reduction}, grad_output {grad_output}"
                raise AssertionError(f"{where}: {error}") from None
