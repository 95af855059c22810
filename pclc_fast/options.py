"""The options of the loss: checked once, then carried as one value."""

from __future__ import annotations

import array
import functools
import math
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

# The order in which the coefficients are stored, here and in csrc/pclc.h.
COEFFICIENTS = ("margin", "pc_weight", "lc_weight", "lc_cap", "ce_weight")
REDUCTIONS = ("none", "mean", "sum")
LC_MODES = ("hard", "soft", "all")


class Options(NamedTuple):
    """Checked options of ``pc_lc_loss``.

    The coefficients come twice. Kernels read them from ``coefficients``, a float64 tensor on the
    CPU, so that a compiled graph holds a place for them and not their values; the reference reads
    ``numbers``.
    """

    coefficients: Tensor
    ignore_index: int
    reduction: str
    lc_mode: str
    pc_mean: bool
    numbers: tuple[float, ...] = ()

    def operands(self) -> tuple[Tensor, int, str, str, bool]:
        """What the operators take, in their order."""
        return self.coefficients, self.ignore_index, self.reduction, self.lc_mode, self.pc_mean

    def keywords(self) -> dict[str, Any]:
        """The same options as keyword arguments of ``reference_loss``."""
        return {
            **dict(zip(COEFFICIENTS, self.numbers, strict=True)),
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "lc_mode": self.lc_mode,
            "pc_mean": self.pc_mean,
        }


def make_options(
    *,
    ignore_index: int,
    reduction: str,
    margin: float,
    pc_weight: float,
    lc_weight: float,
    lc_cap: float,
    lc_mode: str,
    pc_mean: bool,
    ce_weight: float,
    label_smoothing: float,
) -> Options:
    """Check every option; raise TypeError or ValueError for the first that is wrong."""
    numbers = (margin, pc_weight, lc_weight, lc_cap, ce_weight)
    rest = (lc_mode, pc_mean, ignore_index, reduction, label_smoothing)
    try:  # Dynamo cannot look into a cache
        cached = None if torch.compiler.is_compiling() else _cached_options(*numbers, *rest)
    except TypeError:  # an unhashable option, which the check names
        cached = None
    return cached or _checked_options(*numbers, *rest)


def _checked_options(
    margin: float,
    pc_weight: float,
    lc_weight: float,
    lc_cap: float,
    ce_weight: float,
    lc_mode: str,
    pc_mean: bool,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Options:
    numbers = (margin, pc_weight, lc_weight, lc_cap, ce_weight)
    for name, value in zip(COEFFICIENTS, numbers, strict=True):
        check_coefficient(name, value)
    check_coefficient("label_smoothing", label_smoothing)
    if label_smoothing != 0:
        raise ValueError(
            f"label_smoothing must be 0: PC-LC has no smoothed form; got {label_smoothing}"
        )
    _check_choice("lc_mode", lc_mode, LC_MODES)
    _check_choice("reduction", reduction, REDUCTIONS)
    check_cap(lc_mode, lc_cap)
    check_flag("pc_mean", pc_mean)
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral):
        raise TypeError(f"ignore_index must be an integer; got {ignore_index!r}")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index must fit in 64 bits; got {ignore_index}")
    floats = tuple(float(value) for value in numbers)
    return Options(_as_tensor(floats), int(ignore_index), reduction, lc_mode, pc_mean, floats)


def _as_tensor(numbers: tuple[float, ...]) -> Tensor:
    """A tensor that is kept must be a real one, whatever its first caller is being traced by.

    torch.tensor gives functorch's and FakeTensorMode's own tensors where those are active; memory
    that is there already is only wrapped.
    """
    if torch.compiler.is_compiling():
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")
    return torch.frombuffer(array.array("d", numbers), dtype=torch.float64)


@functools.lru_cache(maxsize=256, typed=True)
def _cached_options(*arguments: object) -> Options:
    with torch.inference_mode(False):  # the tensor outlives the mode of its first caller
        return _checked_options(*arguments)  # type: ignore[arg-type]


def check_coefficient(name: str, value: object) -> None:
    """Raise unless ``value`` is a finite number >= 0, and > 0 for the margin."""
    if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
        raise TypeError(f"{name} must be a number; got {value!r} of type {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:  # an integer that is larger than any float
        number = math.inf
    if name == "margin" and not 0 < number < math.inf:
        raise ValueError(f"margin must be finite and positive; got {value}")
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be finite and not negative; got {value}")


def check_flag(name: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}")


def check_cap(lc_mode: str, lc_cap: float) -> None:
    """Raise where the cap of the logit constraint would be silently without effect."""
    if lc_mode == "soft" and lc_cap != 0:
        raise ValueError(f"lc_cap must be 0 with lc_mode='soft', which has no cap; got {lc_cap}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {choices}; got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}; got {value!r}")
