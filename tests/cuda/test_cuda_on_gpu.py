"""The CUDA C++ backend on a real GPU: values in every regime, bits, graphs, no waiting host.

Without a GPU the same kernels run on an emulated one (tests/cuda/test_kernels.cpp).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from oracle import INTERPRETED, Case
from torch import Tensor

from pclc_fast import backends, pc_lc_loss

pytestmark = pytest.mark.skipif(
    not backends()["cuda"].usable or INTERPRETED, reason="needs a GPU and a build with nvcc"
)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Lanes, warps, blocks in registers and in shared memory, clusters, and what none of them holds.
CLASSES = [10, 100, 200, 1000, 2000, 4099, 16384, 20000, 50257, 131072, 262145]

loss_on_cuda = partial(pc_lc_loss, backend="cuda")


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
    logits, target = make_problem(5, classes, dtype)
    weight = torch.rand(classes) + 0.5
    for reduction in ("mean", "none"):
        options = {"lc_mode": mode, "ce_weight": 0.25}
        case = Case(logits, target, weight, reduction, options, "cuda")
        case.check()
        case.check(grad_output=-3.0)


def test_many_rows_agree_with_the_oracle() -> None:
    """The weights are summed by a launch of their own, and blocks take rows in turns."""
    for rows, classes in ((1025, 1000), (300_001, 10)):
        logits, target = make_problem(rows, classes, torch.float32)
        Case(logits, target, torch.rand(classes), "mean", {}, "cuda").check(2.0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", CLASSES)
def test_every_run_and_every_backward_has_the_same_bits(classes: int, dtype: torch.dtype) -> None:
    logits, target = make_problem(100, classes, dtype)
    logits.requires_grad_()
    for mode in ("hard", "soft", "all"):
        results = []
        for _ in range(2):
            loss = loss_on_cuda(logits, target, lc_mode=mode, ce_weight=0.25)
            grads = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2)]
            results += [(loss, grad) for grad in grads]
        for loss, grad in results[1:]:
            assert loss.equal(results[0][0])
            assert grad.equal(results[0][1])


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_the_host_never_waits() -> None:
    logits, target = make_problem(2000, 100, torch.float32)
    logits.requires_grad_()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for reduction in ("mean", "sum", "none"):
            loss, _ = loss_on_cuda(logits, target, reduction=reduction, return_stats=True)
            (loss.sum() * 3.0).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning")
@pytest.mark.parametrize("rows", [64, 2000])
@pytest.mark.parametrize("classes", [100, 5000, 40_000])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_graph_capture(rows: int, classes: int, scale: float) -> None:
    """A replay gives what eager mode gives for the logits that are there then."""
    logits, target = make_problem(rows, classes, torch.bfloat16)
    logits.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        loss = loss_on_cuda(logits, target)
        return loss, torch.autograd.grad(loss * scale, logits)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # loads the kernels
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grad = step()
    for seed in range(3):
        with torch.no_grad():
            logits.copy_(logits.roll(seed, dims=0))
        graph.replay()
        expected_loss, expected_grad = step()
        assert loss.equal(expected_loss)
        assert grad.equal(expected_grad)


def test_two_streams_at_a_time() -> None:
    """Calls that run beside each other do not share the counter of blocks."""
    problems = [make_problem(3000, 64 + i, torch.float32) for i in range(2)]
    expected = [loss_on_cuda(*problem) for problem in problems]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    results = []
    for _ in range(20):
        for stream, problem, loss in zip(streams, problems, expected, strict=True):
            with torch.cuda.stream(stream):
                results.append((loss_on_cuda(*problem), loss))
    torch.cuda.synchronize()
    for again, loss in results:
        assert again.equal(loss)


def test_targets_out_of_range_are_nan() -> None:
    for classes in CLASSES:
        logits, target = make_problem(5, classes, torch.float32)
        target[1] = 2**40
        loss = loss_on_cuda(logits, target, reduction="none")
        assert loss.isnan().tolist() == [False, True, False, False, False]
