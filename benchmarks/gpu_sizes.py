"""Which sizes are measured on a GPU, and what moving their bytes once would cost."""

from __future__ import annotations

# 10, 100, 200, 1000: CIFAR-10 and -100, Tiny ImageNet, ImageNet. From 1024: powers of two around
# the changes of kernel, and the vocabularies of GPT-2 (50257, odd) and Llama 3 (128256).
CLASSES = (
    10,
    100,
    200,
    1000,
    1024,
    4096,
    8192,
    16384,
    32768,
    50257,
    65536,
    128256,
    131072,
    262144,
)
COMPILED_CLASSES = (1024, 8192, 32768, 262144)  # each costs a compilation of many seconds
FORWARD, BOTH = "forward", "forward + backward"
DIRECTIONS = (FORWARD, BOTH)

_LEAST_BYTES = 512 * 2**20  # of logits
_L2_MULTIPLE = 4  # less than a quarter of the logits can be in L2 when a pass over them begins
# Plain PyTorch holds this many float32 copies of the logits at once, at the most.
_COPIES = 8


def rows_for(classes: int, itemsize: int, l2_bytes: int, free_bytes: int) -> int:
    """Return how many rows keep the logits well above L2 and everything else in memory.

    Raises:
        ValueError: the memory does not suffice for logits above L2.
    """
    least = _L2_MULTIPLE * l2_bytes
    most = int(0.9 * free_bytes) * itemsize // (itemsize + 4 * _COPIES)
    if most < least:
        raise ValueError(
            f"logits of {_L2_MULTIPLE} times L2, {least} bytes, and the temporaries of plain "
            f"PyTorch need more than the {free_bytes} bytes that are free"
        )
    wanted = min(max(_LEAST_BYTES, least), most)
    return max(wanted // (classes * itemsize), 1)


def traffic_bytes(rows: int, classes: int, itemsize: int, direction: str) -> int:
    """Return the bytes that cannot be avoided: the logits read once, the gradient written once."""
    return rows * classes * itemsize * (2 if direction == BOTH else 1)


BYTES_FORMULA = "N * K * itemsize, read once and, for forward + backward, written once"
