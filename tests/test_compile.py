"""torch.compile, export and tracing: one graph, the same bits, no needless recompilation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.two_tensor import TwoTensor

from pclc_fast import PCLCLoss, pc_lc_loss

OPS = torch.ops.pclc_fast
COEFFICIENTS = torch.tensor([0.995, 1.0, 0.05, 0.0, 0.0], dtype=torch.float64)
OPTIONS = (COEFFICIENTS, -100, "mean", "hard", False)

pytestmark = [
    # From PyTorch itself, of its own parts.
    pytest.mark.filterwarnings("ignore:.*torch.jit.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
]


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    """One test's graphs are not another's."""
    torch._dynamo.reset()


def make_problem(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).requires_grad_()
    return logits, torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "none"}, {"return_stats": True}, {"lc_mode": "soft", "pc_mean": True}],
    ids=str,
)
def test_full_graph_has_the_same_bits(
    backend: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    logits, target = make_problem(8, 50)
    logits = logits.detach().to(dtype).requires_grad_()

    def step(logits: Tensor) -> Any:
        return pc_lc_loss(logits, target, backend=backend, **options)

    compiled, eager = torch.compile(step, fullgraph=True)(logits), step(logits)
    for got, expected in zip(*map(torch.utils._pytree.tree_leaves, (compiled, eager)), strict=True):
        assert got.equal(expected)
    loss, expected = (x[0] if options.get("return_stats") else x for x in (compiled, eager))
    for factor in (1.0, 3.0):
        (grad,) = torch.autograd.grad(loss.sum() * factor, logits, retain_graph=True)
        (eager_grad,) = torch.autograd.grad(expected.sum() * factor, logits, retain_graph=True)
        assert grad.equal(eager_grad)


def test_channels_last_images_and_dynamic_shapes(backend: str) -> None:
    compiled = torch.compile(
        lambda a, y: pc_lc_loss(a, y, backend=backend), fullgraph=True, dynamic=True
    )
    # More than 8 rows: a size below 2 or like another one would be no symbol of its own.
    for shape in ((2, 5, 3, 4), (3, 6, 5, 2), (4, 5, 2, 3)):
        logits, target = make_problem(*shape)
        logits = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
        loss = compiled(logits, target)
        assert loss.equal(pc_lc_loss(logits, target, backend=backend))
        loss.backward()


def test_assigned_coefficients_do_not_recompile(backend: str) -> None:
    """Warm-up with CE, then PC-LC, then any schedule: one graph."""
    counter = CompileCounterWithBackend("aot_eager")
    criterion = PCLCLoss(pc_weight=0.0, lc_weight=0.0, ce_weight=1.0, backend=backend)
    layer = torch.nn.Linear(6, 10)
    inputs, target = torch.randn(8, 6), torch.arange(8)

    @torch.compile(backend=counter, fullgraph=True)
    def step() -> Tensor:
        loss: Tensor = criterion(layer(inputs), target)
        return loss

    losses = set()
    for epoch in range(6):
        if epoch == 3:
            criterion.pc_weight, criterion.lc_weight, criterion.ce_weight = 1.0, 0.05, 0.0
        criterion.margin = 0.9 - 0.1 * epoch
        criterion.lc_cap = 0.1 * epoch
        loss = step()
        loss.backward()
        torch.testing.assert_close(loss, criterion(layer(inputs), target))
        losses.add(loss.item())
    assert counter.frame_count == 1
    assert len(losses) == 4  # CE knows no margin, the other epochs differ


def test_a_number_that_changes_at_the_call_is_not_stale(backend: str) -> None:
    """PyTorch recompiles for a new Python number; PCLCLoss is there to avoid that."""
    logits, target = make_problem(4, 9)
    compiled = torch.compile(
        lambda lc_weight: pc_lc_loss(logits, target, lc_weight=lc_weight, backend=backend),
        backend="aot_eager",
        fullgraph=True,
    )
    for lc_weight in (0.05, 0.1, 0.2):
        expected = pc_lc_loss(logits, target, lc_weight=lc_weight, backend=backend)
        assert compiled(lc_weight).equal(expected)


def test_errors_are_raised_from_compiled_code(backend: str) -> None:
    compiled = torch.compile(lambda a, y: pc_lc_loss(a, y, backend=backend), fullgraph=True)
    logits, _ = make_problem(2, 5)
    with pytest.raises(IndexError, match="target 5 at position 1 is out of range"):
        compiled(logits, torch.tensor([0, 5]))


def test_compiled_functorch_gradient(backend: str) -> None:
    logits, target = make_problem(4, 9)
    gradient = torch.func.grad(lambda a: pc_lc_loss(a, target, backend=backend))
    a = logits.detach()
    torch.testing.assert_close(torch.compile(gradient, fullgraph=True)(a), gradient(a))


def test_export_keeps_the_operator(backend: str) -> None:
    logits, target = make_problem(4, 9)
    program = torch.export.export(PCLCLoss(backend=backend), (logits, target))
    targets = [node.target for node in program.graph.nodes]
    assert OPS.forward.default in targets
    assert program.module()(logits, target).equal(pc_lc_loss(logits, target, backend=backend))


def test_tracing_and_fake_tensors(backend: str) -> None:
    """No kernel is handed an address that is not one."""
    logits, target = make_problem(4, 9)

    def gradient(a: Tensor) -> Tensor:
        return torch.autograd.grad(pc_lc_loss(a, target, backend=backend), a)[0]

    traced = make_fx(gradient)(logits.detach().requires_grad_())
    torch.testing.assert_close(traced(logits.detach()), gradient(logits))
    weight = torch.ones(9)  # no more read than target, under a transform too
    transformed = torch.func.grad(lambda a: pc_lc_loss(a, target, weight, backend=backend))
    traced = make_fx(transformed)(logits.detach())
    torch.testing.assert_close(traced(logits.detach()), gradient(logits))
    with FakeTensorMode():
        fake = torch.empty(4, 9, requires_grad=True)
        loss = pc_lc_loss(fake, torch.zeros(4, dtype=torch.int64))
        loss.backward()
        assert fake.grad is not None
    meta = pc_lc_loss(logits.to("meta"), target.to("meta"), reduction="none")
    assert meta.shape == (4,)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of the checks of shapes
@pytest.mark.parametrize("grad", [True, False])
def test_jit_trace_records_the_loss(backend: str, grad: bool) -> None:
    """And not the memory that a kernel, which it cannot see, wrote to."""
    logits, target = make_problem(4, 9)
    weight = torch.rand(9)
    traced = torch.jit.trace(
        lambda a, y, w: pc_lc_loss(a, y, w, backend=backend),
        (logits.detach().requires_grad_(grad), target, weight),
    )
    others, labels = logits[:3].detach().neg().requires_grad_(), target[:3]
    loss, expected = traced(others, labels, weight), pc_lc_loss(others, labels, weight)
    torch.testing.assert_close(loss, expected)
    (grad_of_traced,) = torch.autograd.grad(loss, others)
    torch.testing.assert_close(grad_of_traced, torch.autograd.grad(expected, others)[0])


def test_options_first_seen_by_a_tracer_serve_everyone(backend: str) -> None:
    """What is cached of a set of options is no fake or functorch tensor."""
    logits, target = make_problem(4, 9)

    def loss(a: Tensor, margin: float) -> Tensor:
        return pc_lc_loss(a, target, margin=margin, backend=backend)

    torch.func.hessian(loss)(logits.detach(), 0.111)
    with FakeTensorMode(allow_non_fake_inputs=True):
        pc_lc_loss(torch.empty(4, 9), torch.zeros(4, dtype=torch.int64), margin=0.222)
        criterion = PCLCLoss(margin=0.333, backend=backend)
    make_fx(lambda a: loss(a, 0.444))(logits.detach())
    with torch.inference_mode():
        loss(logits.detach(), 0.555)
    for margin in (0.111, 0.222, 0.444, 0.555):
        loss(logits, margin).backward()
    assert criterion(logits, target).equal(loss(logits, 0.333))


def test_zero_tensors_have_no_memory_to_read(backend: str) -> None:
    """PyTorch materialises them with stride 0 in both dimensions."""
    logits, target = make_problem(4, 9)
    zero = torch._efficientzerotensor((4, 9))
    expected = pc_lc_loss(torch.zeros(4, 9), target, backend=backend)
    assert pc_lc_loss(zero, target, backend=backend).equal(expected)
    loss = pc_lc_loss(logits, target, backend=backend)
    (grad,) = torch.autograd.grad(loss, logits, torch._efficientzerotensor(()))
    assert (grad == 0).all()


@pytest.mark.parametrize("grad", [True, False])
def test_views_that_are_not_their_memory(backend: str, grad: bool) -> None:
    """Negative and zero views of targets and weights are no more read as memory than logits."""
    logits = make_problem(4, 9)[0].detach().requires_grad_(grad)
    target, weight = torch.arange(4), torch.rand(9)
    zeros = torch._efficientzerotensor((4,), dtype=torch.int64)
    negative = torch._neg_view(-weight)

    def loss(y: Tensor, w: Tensor | None = None) -> Tensor:
        return pc_lc_loss(logits, y, w, reduction="sum", backend=backend)

    assert loss(target, negative).equal(loss(target, weight))
    assert loss(torch._neg_view(-target)).equal(loss(target))
    assert loss(zeros).equal(loss(torch.zeros(4, dtype=torch.int64)))
    assert loss(target, torch._efficientzerotensor((9,))) == 0


@pytest.mark.parametrize("grad", [True, False])
def test_targets_and_weights_without_memory(backend: str, grad: bool) -> None:
    """Their address is 0, which a kernel would read, or take for no weight."""
    logits, target = make_problem(4, 9)[0].detach().requires_grad_(grad), torch.arange(4)
    weight = torch.rand(9)
    expected = pc_lc_loss(logits, target, weight, backend=backend)
    for y, w in (
        (TwoTensor(target, target), weight),
        (target, TwoTensor(weight, weight)),
    ):
        torch.testing.assert_close(pc_lc_loss(logits, y, w, backend=backend).a, expected)
    with FakeTensorMode():
        fake = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(AssertionError, match="convert all Tensors to FakeTensors"):
        pc_lc_loss(logits, fake, backend=backend)


def test_the_operator_takes_any_strides(backend: str) -> None:
    logits, target = make_problem(6, 9)
    logits, target = logits.detach(), torch.stack([target, target], dim=1)[:, 0]
    arguments = (None, *OPTIONS, False, False, False, backend)
    (expected,) = OPS.forward.default(logits, target.contiguous(), *arguments)
    (loss,) = OPS.forward.default(logits.t().contiguous().t(), target, *arguments)
    assert loss.equal(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_opcheck(backend: str, dtype: torch.dtype, weighted: bool) -> None:
    logits, target = make_problem(4, 9)
    logits = logits.detach().to(dtype)
    arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
    weight = torch.rand(9, dtype=arithmetic) if weighted else None
    for flags in ((True, True, True), (True, False, False), (False, False, True)):
        torch.library.opcheck(
            OPS.forward.default, (logits, target, weight, *OPTIONS, *flags, backend)
        )
    loss, row_stats = OPS.forward.default(
        logits, target, weight, *OPTIONS, True, False, False, backend
    )
    grad, grad_output = torch.empty_like(logits), torch.full_like(loss, 2.0)
    torch.library.opcheck(
        OPS.backward.default,
        (grad, grad_output, row_stats, logits, target, weight, *OPTIONS, False, backend),
    )
