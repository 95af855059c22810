"""More than 2^31 elements: every offset is 64 bits wide."""

from __future__ import annotations

import pytest
import torch
from oracle import INTERPRETED

from pclc_fast import pc_lc_loss

ROWS, CLASSES = 65537, 32769  # 2^31 + 98,305 elements, 4.3 GB in bfloat16
NEEDED = 3 * ROWS * CLASSES * 2


def available_memory() -> int:
    """Bytes that can be allocated without swapping; 0 where that is not known."""
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return 0


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="would take days in Triton's interpreter")
@pytest.mark.skipif(available_memory() < NEEDED, reason=f"needs {NEEDED >> 30} GiB of memory")
def test_more_than_two_to_the_31_elements(backend: str) -> None:
    """The first and the last rows are what they are on their own."""
    pattern = torch.randn(7, CLASSES, generator=torch.Generator().manual_seed(0)).bfloat16()
    logits = torch.empty(ROWS, CLASSES, dtype=torch.bfloat16)
    for begin in range(0, ROWS, 7):
        logits[begin : begin + 7] = pattern[: min(7, ROWS - begin)]
    target = torch.arange(ROWS) % 7
    rows = torch.tensor([0, 1, 65530, ROWS - 1])
    logits.requires_grad_()
    pc_lc_loss(logits, target, reduction="sum", backend=backend).backward()
    assert logits.grad is not None
    few = logits.detach()[rows].requires_grad_()
    pc_lc_loss(few, target[rows], reduction="sum", backend=backend).backward()
    assert few.grad is not None
    assert logits.grad[rows].equal(few.grad)
