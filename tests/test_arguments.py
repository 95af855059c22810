"""Bad input: each case has its own error that says what was expected and what came."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from pclc_fast import PCLCLoss, pc_lc_loss, reference_pc_lc_loss

LOGITS, TARGET = torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64)
META = torch.zeros(3, dtype=torch.int64, device="meta")
OUT_OF_RANGE = torch.tensor([[0, 1, 2], [3, 2, 9]])  # for 4 classes
PROBABILITIES = "target must hold integer class indices (uint8 or int8 to int64); got "


def number(name: str, rule: str, value: object) -> tuple[dict[str, Any], type, str]:
    """A coefficient out of its range."""
    return {name: value}, ValueError, f"{name} must be {rule}; got {value}"


def as_nested(tensor: torch.Tensor, layout: torch.layout = torch.strided) -> torch.Tensor:
    """Two tensors in one that is nested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that they are a prototype
        return torch.nested.nested_tensor([tensor, tensor], layout=layout)


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"input": [[0.0]]}, TypeError, "input must be a torch.Tensor of logits; got list"),
    ({"target": 3}, TypeError, "target must be a torch.Tensor of class indices; got int"),
    (
        {"input": LOGITS.long()},
        TypeError,
        "input must hold float16, bfloat16, float32 or float64 logits; got torch.int64",
    ),
    (
        {"input": LOGITS.to(torch.complex64)},
        TypeError,
        "input must hold float16, bfloat16, float32 or float64 logits; got torch.complex64",
    ),
    (
        {"input": LOGITS.to(torch.float8_e4m3fn)},
        TypeError,
        "input must hold float16, bfloat16, float32 or float64 logits; got torch.float8_e4m3fn",
    ),
    (
        {"target": LOGITS.softmax(1)},
        TypeError,
        PROBABILITIES + "torch.float32 (class probabilities are not supported)",
    ),
    ({"target": TARGET.bool()}, TypeError, PROBABILITIES + "torch.bool"),
    (
        {"input": LOGITS.to_sparse()},
        TypeError,
        "input and target must be dense tensors; got torch.sparse_coo and torch.strided",
    ),
    (
        {"input": torch.tensor(1.0)},
        ValueError,
        "input must have shape (K,), (N, K) or (N, K, d1, ...); got a tensor of no dimensions",
    ),
    (
        {"target": TARGET[:2]},
        ValueError,
        "target must have shape (3,) for input of shape (3, 4); got (2,)",
    ),
    (
        {"target": LOGITS.long()},
        ValueError,
        "target must have shape (3,) for input of shape (3, 4); got (3, 4)",
    ),
    (
        {"input": LOGITS[0]},
        ValueError,
        "target must have shape () for input of shape (4,); got (3,)",
    ),
    (
        {"input": torch.zeros(3, 4, 2, 2)},
        ValueError,
        "target must have shape (3, 2, 2) for input of shape (3, 4, 2, 2); got (3,)",
    ),
    (
        {"target": META},
        ValueError,
        "input and target must be on one device; got cpu and meta",
    ),
    ({"weight": [1.0] * 4}, TypeError, "weight must be a torch.Tensor or None; got list"),
    (
        {"weight": torch.ones(4, dtype=torch.int64)},
        TypeError,
        "weight must hold float16, bfloat16, float32 or float64 numbers; got torch.int64",
    ),
    (
        {"weight": torch.ones(4).to(torch.float8_e5m2)},
        TypeError,
        "weight must hold float16, bfloat16, float32 or float64 numbers; got torch.float8_e5m2",
    ),
    (
        {"weight": torch.ones(4).to_sparse()},
        TypeError,
        "weight must be a dense tensor; got torch.sparse_coo",
    ),
    (
        {"input": as_nested(LOGITS)},
        TypeError,
        "input and target must be dense tensors; got nested torch.strided and torch.strided",
    ),
    (
        {"target": as_nested(TARGET)},
        TypeError,
        "input and target must be dense tensors; got torch.strided and nested torch.strided",
    ),
    (
        {"input": as_nested(LOGITS, torch.jagged), "target": as_nested(TARGET, torch.jagged)},
        TypeError,
        "input and target must be dense tensors; got nested torch.jagged and nested torch.jagged",
    ),
    (
        {"weight": as_nested(torch.ones(4))},
        TypeError,
        "weight must be a dense tensor; got nested torch.strided",
    ),
    (
        {"weight": torch.ones(3)},
        ValueError,
        "weight must have shape (4,), one number a class; got (3,)",
    ),
    (
        {"weight": torch.ones(4, device="meta")},
        ValueError,
        "input and weight must be on one device; got cpu and meta",
    ),
    (
        {"weight": torch.tensor([1.0, -0.5, 1.0, 2.0])},
        ValueError,
        "weight must be finite and not negative; got values from -0.5 to 2.0",
    ),
    (
        {"weight": torch.tensor([1.0, math.inf, 1.0, 2.0])},
        ValueError,
        "weight must be finite and not negative; got values from 1.0 to inf",
    ),
    (
        {"weight": torch.tensor([1.0, math.nan, 1.0, 2.0])},
        ValueError,
        "weight must be finite and not negative; got values from nan to nan",
    ),
    (
        {"weight": torch.tensor([1.0, 1e300, 1.0, 2.0], dtype=torch.float64)},
        ValueError,
        "weight must be finite in float32 and not negative; got values from 1.0 to 1e+300",
    ),
    (
        {"reduction": "average"},
        ValueError,
        "reduction must be one of ('none', 'mean', 'sum'); got 'average'",
    ),
    (
        {"reduction": None},
        TypeError,
        "reduction must be one of ('none', 'mean', 'sum'); got None",
    ),
    ({"lc_mode": "max"}, ValueError, "lc_mode must be one of ('hard', 'soft', 'all'); got 'max'"),
    (
        {"lc_mode": ["hard"]},
        TypeError,
        "lc_mode must be one of ('hard', 'soft', 'all'); got ['hard']",
    ),
    number("margin", "finite and positive", 0.0),
    number("margin", "finite and positive", -0.5),
    number("margin", "finite and positive", math.inf),
    number("margin", "finite and positive", math.nan),
    number("margin", "finite and positive", 10**400),
    number("pc_weight", "finite and not negative", -1),
    number("lc_weight", "finite and not negative", -0.05),
    number("lc_weight", "finite and not negative", math.inf),
    number("ce_weight", "finite and not negative", math.nan),
    number("lc_cap", "finite and not negative", -2.0),
    (
        {"lc_cap": 1.0, "lc_mode": "soft"},
        ValueError,
        "lc_cap must be 0 with lc_mode='soft', which has no cap; got 1.0",
    ),
    ({"margin": "0.9"}, TypeError, "margin must be a number; got '0.9' of type str"),
    ({"margin": [0.9]}, TypeError, "margin must be a number; got [0.9] of type list"),
    ({"pc_weight": True}, TypeError, "pc_weight must be a number; got True of type bool"),
    (
        {"lc_weight": torch.tensor(0.5)},
        TypeError,
        "lc_weight must be a number; got tensor(0.5000) of type Tensor",
    ),
    ({"pc_mean": 1}, TypeError, "pc_mean must be True or False; got 1"),
    ({"ignore_index": 1.5}, TypeError, "ignore_index must be an integer; got 1.5"),
    ({"ignore_index": 2**64}, ValueError, f"ignore_index must fit in 64 bits; got {2**64}"),
    (
        {"label_smoothing": 0.1},
        ValueError,
        "label_smoothing must be 0: PC-LC has no smoothed form; got 0.1",
    ),
    (
        {"target": TARGET + 4},
        IndexError,
        "target 4 at position 0 is out of range: expected 0 <= target < 4",
    ),
    (
        {"input": LOGITS[0], "target": torch.tensor(7)},
        IndexError,
        "target 7 is out of range: expected 0 <= target < 4",
    ),
    (
        {"target": torch.tensor([0, -1, 0])},
        IndexError,
        "target -1 at position 1 is out of range: expected 0 <= target < 4",
    ),
]


def test_there_are_many_cases() -> None:
    assert len({message for _, _, message in BAD}) >= 25


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"input": LOGITS, "target": TARGET, **change}
    for function in (pc_lc_loss, reference_pc_lc_loss):
        with pytest.raises(error) as raised:
            function(**arguments)
        assert type(raised.value) is error
        assert str(raised.value) == message


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [case for case in BAD if not {"input", "target", "weight"} & set(case[0])],
)
def test_the_module_checks_when_it_is_made_and_when_assigned(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        PCLCLoss(**change)
    assert str(raised.value) == message
    if len(change) == 1:
        criterion = PCLCLoss()
        before = repr(criterion)
        ((name, value),) = change.items()
        with pytest.raises(error) as raised:
            setattr(criterion, name, value)
        assert str(raised.value) == message
        assert repr(criterion) == before  # nothing half assigned


def test_backend_errors() -> None:
    with pytest.raises(
        ValueError, match=r"backend must be one of .*'reference'.* or None; got 'x'"
    ):
        pc_lc_loss(LOGITS, TARGET, backend="x")
    with pytest.raises(ValueError, match="got 3"):
        pc_lc_loss(LOGITS, TARGET, backend=3)  # type: ignore[call-overload]
    with pytest.raises(RuntimeError, match="'native' cannot run here: it runs on CPU tensors"):
        pc_lc_loss(LOGITS.to("meta"), META, backend="native")


def test_how_to_call_is_checked_too() -> None:
    """At a call, and when the module is made."""
    message = "return_stats must be True or False; got 'no'"
    for function in (pc_lc_loss, reference_pc_lc_loss):
        with pytest.raises(TypeError, match=message):
            function(LOGITS, TARGET, return_stats="no")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=message):
        PCLCLoss(return_stats="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="backend must be one of"):
        PCLCLoss(backend="x")


def test_an_error_is_told_once() -> None:
    with pytest.raises(TypeError) as raised:
        pc_lc_loss(LOGITS, TARGET, margin="0.9")  # type: ignore[call-overload]
    assert raised.value.__context__ is None


def test_positional_options_are_refused() -> None:
    """F.cross_entropy's fourth argument is something else."""
    with pytest.raises(TypeError):
        pc_lc_loss(LOGITS, TARGET, None, -100)  # type: ignore[call-overload]


def test_what_is_like_a_number_is_taken() -> None:
    """NumPy's scalars and whole numbers are numbers; label_smoothing=0 may stay at a call site."""
    numpy = pytest.importorskip("numpy")
    expected = pc_lc_loss(LOGITS, TARGET, margin=0.5, ignore_index=3)
    options = {"margin": numpy.float32(0.5), "ignore_index": numpy.int64(3), "pc_weight": 1}
    assert pc_lc_loss(LOGITS, TARGET, **options, label_smoothing=0) == expected


def test_a_default_device_does_not_matter(backend: str) -> None:
    """Everything is where the logits are: outputs, gradient, and what an error looks at."""
    logits, target = torch.randn(3, 4), torch.tensor([0, 3, 1])

    def outcome(reduction: str) -> list[torch.Tensor]:
        leaf = logits.clone().requires_grad_()
        options = {"reduction": reduction, "backend": backend, "lc_cap": 0.625}
        loss, stats = pc_lc_loss(leaf, target, return_stats=True, **options)
        frozen = pc_lc_loss(logits, target, **options)
        loss.sum().mul(2).backward(retain_graph=True)
        loss.sum().backward()
        return [loss.detach(), frozen, *stats, leaf.grad]

    for reduction in ("mean", "none"):
        with torch.device("meta"):
            elsewhere = outcome(reduction)
        for got, expected in zip(elsewhere, outcome(reduction), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
    with torch.device("meta"), pytest.raises(IndexError, match=r"target 9 at position \(1, 2\)"):
        pc_lc_loss(torch.zeros(2, 4, 3, device="cpu"), OUT_OF_RANGE, backend=backend)
