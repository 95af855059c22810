"""What only a GPU can show: streams, graphs, devices, and the host that never waits.

Values, edges and options are those of the core's tests, which run over this backend in Triton's
interpreter; here a few sizes of each regime are compared on the device itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from oracle import INTERPRETED, Case
from torch import Tensor

from pclc_fast import PCLCLoss, pc_lc_loss, reference_pc_lc_loss
from pclc_fast.dispatch import choose

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available() or INTERPRETED, reason="needs a GPU"),
    # From PyTorch itself, of its own parts.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
CLASSES = [10, 100, 1000, 4096, 10007, 16384, 50257]  # of every tile and of blocks, odd and even


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    """Tensors are made on the GPU, and errors of a launch belong to the test that launched it."""
    with torch.device("cuda"):
        yield
    torch.cuda.synchronize()


def make_problem(rows: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Rows of each case of Eq. 6 in turns, one of them ignored."""
    generator = torch.Generator("cuda").manual_seed(classes)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * 2
    target = torch.randint(classes, (rows,), generator=generator)
    logits[1::3, 0] = logits[1::3, 1:].logsumexp(dim=1) + 5.3
    logits[2::3, 0] += 40
    target[1::3], target[2::3] = 0, 0
    target[-1] = -100
    return logits.to(dtype), target


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["hard", "soft", "all"])
@pytest.mark.parametrize("classes", CLASSES)
def test_agrees_with_the_oracle(classes: int, mode: str, dtype: torch.dtype) -> None:
    logits, target = make_problem(7, classes, dtype)
    weight = torch.rand(classes) + 0.5
    for reduction in ("mean", "none"):
        options = {"lc_mode": mode, "ce_weight": 0.25}
        case = Case(logits, target, weight, reduction, options, "triton")
        case.check()
        case.check(grad_output=-3.0)


def test_many_rows_agree_with_the_oracle() -> None:
    """More than one program sums the weights, and more than one block of losses is added."""
    for rows, classes in ((1025, 1000), (300_001, 10)):
        logits, target = make_problem(rows, classes, torch.float32)
        Case(logits, target, torch.rand(classes), "mean", {}, "triton").check(2.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("mode", ["hard", "soft", "all"])
@pytest.mark.parametrize("classes", CLASSES)
def test_every_run_and_every_backward_has_the_same_bits(
    classes: int, mode: str, dtype: torch.dtype
) -> None:
    logits, target = make_problem(300, classes, dtype)
    weight = torch.rand(classes) + 0.5
    logits.requires_grad_()
    results = []
    for _ in range(3):
        loss = pc_lc_loss(logits, target, weight, lc_mode=mode, ce_weight=0.25)
        grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2)]
        results += [(loss, grad) for grad in grads]
    for loss, grad in results[1:]:
        assert loss.equal(results[0][0])
        assert grad.equal(results[0][1])


def test_it_is_chosen_and_rounds_once() -> None:
    logits, target = make_problem(6, 100, torch.float32)
    assert choose(logits, None) == "triton"
    for dtype in (torch.bfloat16, torch.float16):
        stored = logits.to(dtype)
        _, grad, _ = Case(stored, target, backend="triton").ours()
        _, wide, _ = Case(stored.float(), target, backend="triton").ours()
        assert grad.equal(wide.to(dtype))


def test_the_host_never_waits() -> None:
    logits, target = make_problem(2000, 100, torch.float32)
    weight = torch.rand(100)
    logits.requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for reduction in ("mean", "sum", "none"):
            loss, _ = pc_lc_loss(logits, target, weight, reduction=reduction, return_stats=True)
            (loss.sum() * 3.0).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("rows", [64, 2000])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_graph_capture(rows: int, scale: float) -> None:
    """A replay gives what eager mode gives for the logits that are there then."""
    logits, target = make_problem(rows, 100, torch.bfloat16)
    logits.requires_grad_()
    criterion = PCLCLoss()

    def step() -> tuple[Tensor, Tensor]:
        loss = criterion(logits, target)
        return loss, torch.autograd.grad(loss * scale, logits)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles, and warms the allocator up
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grad = step()
    for seed in range(3):
        with torch.no_grad():
            logits.copy_(make_problem(rows, 100, torch.bfloat16)[0].roll(seed, dims=0))
        graph.replay()
        expected_loss, expected_grad = step()
        assert loss.equal(expected_loss)
        assert grad.equal(expected_grad)


def test_side_stream() -> None:
    """Launches follow what the current stream still has to do."""
    logits, target = make_problem(512, 4096, torch.float32)
    expected = pc_lc_loss(logits, target)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(logits)
        torch.cuda._sleep(50_000_000)
        late.copy_(logits)
        loss = pc_lc_loss(late, target)
    stream.synchronize()
    assert loss.equal(expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_device_of_the_logits_and_not_the_current_one() -> None:
    logits, target = make_problem(64, 100, torch.float32)
    expected = pc_lc_loss(logits, target)
    other = logits.to("cuda:1").requires_grad_()
    with torch.cuda.device(0):
        loss = pc_lc_loss(other, target.to("cuda:1"))
        (grad,) = torch.autograd.grad(loss * 2, other)
        assert torch.cuda.current_device() == 0
    assert loss.device == grad.device == other.device
    assert loss.cpu().equal(expected.cpu())


def test_grad_scaler_and_autocast() -> None:
    layer = torch.nn.Linear(8, 5)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cuda", init_scale=65536.0)
    inputs, target = torch.randn(16, 8), torch.randint(5, (16,))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.float16):
            logits = layer(inputs)
            loss = pc_lc_loss(logits, target)
        assert logits.dtype == torch.float16
        assert loss.dtype == torch.float32
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_full_graph_has_the_same_bits() -> None:
    logits, target = make_problem(64, 100, torch.bfloat16)
    logits.requires_grad_()
    criterion = PCLCLoss(lc_mode="soft")
    compiled = torch.compile(lambda a: criterion(a, target), fullgraph=True)
    loss, expected = compiled(logits), criterion(logits, target)
    assert loss.equal(expected)
    for factor in (1.0, 3.0):
        grads = [
            torch.autograd.grad(x * factor, logits, retain_graph=True)[0] for x in (loss, expected)
        ]
        assert grads[0].equal(grads[1])


def test_one_compilation_serves_all_coefficients_and_numbers_of_rows() -> None:
    from pclc_fast.backends.triton_kernels import backward_kernel, forward_kernel

    def compiled() -> int:
        return sum(
            len(kernel.device_caches[torch.cuda.current_device()][0])
            for kernel in (forward_kernel, backward_kernel)
        )

    def step(rows: int, **options: float) -> None:
        leaf = torch.randn(rows, 48, requires_grad=True)
        loss = pc_lc_loss(leaf, torch.zeros(rows, dtype=torch.int64), reduction="sum", **options)
        (loss * 2).backward()

    step(16, margin=0.9, ce_weight=0.5)
    before = compiled()
    for rows in (1, 2, 17, 32, 4000):
        for coefficient in (0.0, 1.0, 0.3):
            step(rows, margin=0.5, pc_weight=coefficient, ce_weight=coefficient)
            step(rows, lc_cap=coefficient, lc_weight=1.0)
    assert compiled() == before


def test_targets_out_of_range_are_nan_and_an_error_in_debug_mode() -> None:
    logits, target = make_problem(5, 10, torch.float32)
    target[1] = 2**40
    loss = pc_lc_loss(logits, target, reduction="none")
    reference = reference_pc_lc_loss(logits, target, reduction="none")
    assert loss.isnan().tolist() == reference.isnan().tolist() == [False, True, False, False, False]
    script = """
import os, torch
os.environ["PCLC_FAST_DEBUG"] = "1"
from pclc_fast import pc_lc_loss
target = torch.tensor([0, 12], device="cuda")
for requires_grad in (False, True):
    try:
        pc_lc_loss(torch.zeros(2, 10, device="cuda", requires_grad=requires_grad), target)
    except IndexError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    message = "target 12 at position 1 is out of range: expected 0 <= target < 10"
    assert done.stdout.splitlines() == [message, message]


@pytest.mark.slow
@pytest.mark.parametrize("strided", [False, True])
def test_more_than_two_to_the_31_elements(strided: bool) -> None:
    """The first and the last rows are what they are on their own."""
    rows, classes = 65537, 32769
    if torch.cuda.mem_get_info()[0] < 5 * rows * classes * 2:
        pytest.skip("needs 21 GB of device memory")
    width = classes + 3 if strided else classes
    logits = torch.empty(rows, width, dtype=torch.bfloat16).normal_()[:, :classes]
    logits.requires_grad_()
    target = torch.arange(rows) % classes
    few = torch.tensor([0, 1, 65530, rows - 1])
    loss = pc_lc_loss(logits, target, reduction="sum")
    (grad,) = torch.autograd.grad(loss * 2, logits)
    alone = logits.detach()[few].requires_grad_()
    (expected,) = torch.autograd.grad(pc_lc_loss(alone, target[few], reduction="sum") * 2, alone)
    assert grad[few].equal(expected)
