"""The autograd function: each way that PyTorch can ask for a derivative."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from oracle import INTERPRETED
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint

from pclc_fast import PCLCLoss, pc_lc_loss, reference_pc_lc_loss

# Making the first dual tensor loads TorchScript, which warns of its own deprecation.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
# Around a vector lane of rows, and around the blocks of the row kernel.
ROWS, CLASSES = 9, [7, 31, 33, 65, 2047, 2049, 5001]
if INTERPRETED:
    # Rows that share a program; one a program; backward by blocks; forward too, of float64.
    ROWS, CLASSES = 7, [7, 257, 2049, 5001]


@pytest.fixture
def logits() -> Tensor:
    """Rows of each case of Eq. 6 at margin 0.7: all active, mixed, none."""
    rows = torch.randn(6, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows[2, 2] += 4.0
    rows[3, 3] += 3.4
    rows[4, 4] += 30.0
    return rows.requires_grad_()


@pytest.fixture
def target() -> Tensor:
    return torch.arange(6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("mode", ["hard", "soft", "all"])
def test_first_and_second_derivatives(
    backend: str, logits: Tensor, target: Tensor, mode: str, reduction: str
) -> None:
    """No tolerance for nondeterminism: all ways to one gradient agree to the last bit."""
    options: dict[str, Any] = {"lc_mode": mode, "reduction": reduction, "ce_weight": 0.2}

    def loss(a: Tensor) -> Tensor:
        return pc_lc_loss(a, target, margin=0.7, backend=backend, **options)

    # Fast mode: one direction instead of every entry.
    keywords = {"nondet_tol": 0.0, "fast_mode": INTERPRETED}
    assert gradcheck(loss, (logits,), check_forward_ad=True, **keywords)
    assert gradgradcheck(loss, (logits,), **keywords)


def test_functorch_transforms(backend: str, logits: Tensor, target: Tensor) -> None:
    """grad, vmap, jvp, jacrev over jacfwd, and vmap over grad give what the reference gives."""

    def ours(a: Tensor, y: Tensor = target) -> Tensor:
        return pc_lc_loss(a, y, margin=0.7, backend=backend)

    def oracle(a: Tensor, y: Tensor = target) -> Tensor:
        return reference_pc_lc_loss(a, y, margin=0.7)

    a = logits.detach()
    func = torch.func
    for transform in (func.grad, func.hessian, func.jacrev, func.jacfwd):
        torch.testing.assert_close(transform(ours)(a), transform(oracle)(a))
        assert transform(ours)(a).abs().sum() > 0
    per_row = func.vmap(func.grad(ours))(a, target)
    torch.testing.assert_close(per_row, func.vmap(func.grad(oracle))(a, target))
    tangent = torch.linspace(-1, 1, a.numel(), dtype=a.dtype).reshape(a.shape)
    value, derivative = func.jvp(ours, (a,), (tangent,))
    torch.testing.assert_close(value, ours(a))
    torch.testing.assert_close(derivative, (func.grad(oracle)(a) * tangent).sum())


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_batched_gradients(backend: str, logits: Tensor, target: Tensor, reduction: str) -> None:
    """is_grads_batched, and by it jacobian(vectorize=True), batch by another vmap."""
    loss = pc_lc_loss(logits, target, margin=0.7, reduction=reduction, backend=backend)
    batch = torch.linspace(-1, 1, 3 * loss.numel(), dtype=loss.dtype).reshape(3, *loss.shape)
    kept = {"retain_graph": True}
    (grads,) = torch.autograd.grad(loss, logits, batch, is_grads_batched=True, **kept)
    for grad, upstream in zip(grads, batch, strict=True):
        torch.testing.assert_close(grad, torch.autograd.grad(loss, logits, upstream, **kept)[0])


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_forward_mode(backend: str, logits: Tensor, target: Tensor, grad_enabled: bool) -> None:
    """A tangent is not lost, and neither is one that meets the loss only in backward."""
    tangent = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
    (grad,) = torch.autograd.grad(pc_lc_loss(logits, target, backend=backend), logits)
    with forward_ad.dual_level(), torch.set_grad_enabled(grad_enabled):
        dual = forward_ad.make_dual(logits.detach(), tangent)
        loss = pc_lc_loss(dual, target, backend=backend)
        derivative = forward_ad.unpack_dual(loss).tangent
        assert derivative is not None
        torch.testing.assert_close(derivative, (grad * tangent).sum())
    loss = pc_lc_loss(logits, target, backend=backend)
    with forward_ad.dual_level():
        upstream = forward_ad.make_dual(torch.ones_like(loss), torch.full_like(loss, 3.0))
        (dual_grad,) = torch.autograd.grad(loss, logits, upstream)
        torch.testing.assert_close(forward_ad.unpack_dual(dual_grad).tangent, 3.0 * grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("mode", ["hard", "soft", "all"])
@pytest.mark.parametrize("classes", CLASSES)
def test_every_backward_has_the_same_bits(
    backend: str, classes: int, mode: str, dtype: torch.dtype
) -> None:
    """The buffer from forward and what later calls recompute cannot be told apart."""
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(ROWS, classes, generator=generator) * 3).to(dtype).requires_grad_()
    target = torch.randint(classes, (ROWS,), generator=generator)
    with torch.no_grad():
        logits[:3, target[:3]] += 9
    loss = pc_lc_loss(logits, target, lc_mode=mode, ce_weight=0.3, backend=backend)
    grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(3)]
    assert grads[0].equal(grads[1])
    assert grads[0].equal(grads[2])
    assert grads[0].data_ptr() != grads[1].data_ptr()


def test_retained_graph_after_the_first_gradient_was_overwritten(backend: str) -> None:
    logits = torch.randn(4, 10, requires_grad=True)
    loss = pc_lc_loss(logits, torch.arange(4), backend=backend)
    loss.backward(retain_graph=True)
    assert logits.grad is not None
    first = logits.grad.clone()
    logits.grad.zero_()
    loss.backward()
    assert logits.grad.equal(first)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_logits_overwritten_between_forward_and_recomputation(backend: str) -> None:
    """A stale gradient would be silent; autograd's version check refuses it."""
    leaf = torch.randn(4, 10, requires_grad=True)
    logits = leaf * 1.0
    loss = pc_lc_loss(logits, torch.arange(4), backend=backend)
    with torch.no_grad():
        logits.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaf, torch.tensor(2.0))


def test_grad_outputs_of_every_kind(backend: str) -> None:
    """A number, stride 0, reversed and non-contiguous rows, another branch, and none at all."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 50, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(50, (2, 3), generator=generator)
    rows = logits.reshape(2, 3, 50).movedim(-1, 1)

    def ours() -> Tensor:
        return pc_lc_loss(rows, target, reduction="none", backend=backend)

    oracle = reference_pc_lc_loss(rows, target, reduction="none")
    upstream = torch.randn(3, 2, generator=generator, dtype=torch.float64)
    for grad_output in (
        torch.ones(1, 1, dtype=torch.float64).expand(2, 3),
        upstream.t(),
        upstream.t().flip(0),
        torch.zeros(2, 3, dtype=torch.float64),
    ):
        (expected,) = torch.autograd.grad(oracle, logits, grad_output, retain_graph=True)
        (grad,) = torch.autograd.grad(ours(), logits, grad_output, retain_graph=True)
        torch.testing.assert_close(grad, expected)
    (summed,) = torch.autograd.grad(ours().sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad(oracle.sum(), logits, retain_graph=True)
    torch.testing.assert_close(summed, expected)
    loss = pc_lc_loss(logits, target.reshape(-1), backend=backend)
    (both,) = torch.autograd.grad(loss + loss * loss, logits)
    (one,) = torch.autograd.grad(pc_lc_loss(logits, target.reshape(-1), backend=backend), logits)
    torch.testing.assert_close(both, (1 + 2 * loss.detach()) * one)
    _, stats = pc_lc_loss(logits, target.reshape(-1), return_stats=True, backend=backend)
    unused = torch.autograd.grad(
        (logits * 0).sum() + stats.logit_gap.sum(), logits, retain_graph=True
    )
    assert (unused[0] == 0).all()


def test_without_a_gradient(backend: str) -> None:
    """no_grad, inference mode and frozen logits: the same loss, nothing to differentiate."""
    logits, target = torch.randn(5, 9), torch.arange(5)
    expected = pc_lc_loss(logits.clone().requires_grad_(), target, backend=backend)
    assert expected.requires_grad
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            loss = pc_lc_loss(logits.clone().requires_grad_(), target, backend=backend)
        assert loss.equal(expected)
        assert not loss.requires_grad
    frozen = pc_lc_loss(logits, target, backend=backend)
    assert frozen.equal(expected)
    assert not frozen.requires_grad
    trained = logits.clone().requires_grad_()  # after the same options were used in inference mode
    pc_lc_loss(trained, target, margin=0.123, backend=backend).backward()


def test_weight_takes_no_gradient(backend: str) -> None:
    weight = torch.ones(9, requires_grad=True)
    logits = torch.randn(5, 9, requires_grad=True)
    pc_lc_loss(logits, torch.arange(5), weight, backend=backend).backward()
    assert weight.grad is None
    assert logits.grad is not None


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(backend: str, use_reentrant: bool) -> None:
    inputs = torch.randn(8, 6)
    matrix = torch.randn(6, 12, requires_grad=True)

    def step(matrix: Tensor) -> Tensor:
        return pc_lc_loss(inputs @ matrix, torch.arange(8), backend=backend)

    (expected,) = torch.autograd.grad(step(matrix), matrix)
    checkpoint(step, matrix, use_reentrant=use_reentrant).backward()
    assert matrix.grad is not None
    assert matrix.grad.equal(expected)


def test_grad_scaler_and_autocast(backend: str) -> None:
    """float16 logits of an autocast region train under a loss scale of 65536."""
    layer = torch.nn.Linear(8, 5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    inputs, target = torch.randn(8, 8), torch.randint(5, (8,))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            logits = layer(inputs)
            loss = pc_lc_loss(logits, target, backend=backend)
        assert logits.dtype == torch.float16
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_gradient_accumulation(backend: str) -> None:
    """The gradient handed over is accumulated into, and belongs to the caller from then on."""
    logits = torch.randn(4, 10, requires_grad=True)
    target = torch.arange(4)
    (once,) = torch.autograd.grad(pc_lc_loss(logits, target, backend=backend), logits)
    for _ in range(3):
        pc_lc_loss(logits, target, backend=backend).backward()
    torch.testing.assert_close(logits.grad, 3 * once)


def test_module(backend: str) -> None:
    """Options are attributes, weight is a buffer, copies and pickles keep both."""
    weight = torch.rand(10)
    criterion = PCLCLoss(weight, margin=0.9, lc_mode="all", backend=backend)
    logits, target = torch.randn(4, 10), torch.arange(4)
    expected = pc_lc_loss(logits, target, weight, margin=0.9, lc_mode="all", backend=backend)
    assert criterion(logits, target).equal(expected)
    for twin in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert twin(logits, target).equal(expected)
        assert repr(twin) == repr(criterion)
    assert criterion.label_smoothing == 0.0  # as nn.CrossEntropyLoss has it
    criterion.label_smoothing = 0  # what it is may be assigned
    assert list(criterion.state_dict()) == ["weight"]
    assert criterion.double().weight.dtype == torch.float64  # type: ignore[union-attr]
    assert PCLCLoss.margin is PCLCLoss.__dict__["margin"]  # which help() and mock.autospec ask for
    for name, value in {
        "margin": 0.5,
        "pc_weight": 2.0,
        "lc_weight": 0.3,
        "lc_cap": 0.1,
        "ce_weight": 0.7,
        "ignore_index": 3,
        "reduction": "sum",
        "lc_mode": "hard",
        "pc_mean": True,
    }.items():
        setattr(criterion, name, value)
        assert getattr(criterion, name) == value
    options = {"margin": 0.5, "pc_weight": 2.0, "lc_weight": 0.3, "lc_cap": 0.1}
    expected = pc_lc_loss(
        logits, target, weight, **options, ce_weight=0.7, ignore_index=3, reduction="sum",
        pc_mean=True, backend=backend,
    )  # fmt: skip
    assert criterion(logits, target).equal(expected)
    _, stats = PCLCLoss(return_stats=True)(logits, target)
    assert stats.correct.equal(logits.argmax(dim=1) == target)


def test_assigning_between_forward_and_backward_changes_nothing_begun(backend: str) -> None:
    criterion = PCLCLoss(backend=backend)
    logits = torch.randn(4, 10, requires_grad=True)
    (expected,) = torch.autograd.grad(criterion(logits, torch.arange(4)) * 2, logits)
    loss = criterion(logits, torch.arange(4)) * 2
    criterion.margin, criterion.lc_weight = 0.1, 3.0
    assert torch.autograd.grad(loss, logits)[0].equal(expected)
