"""What a GPU asks for beyond right values: graphs, streams, no waiting, the same bits each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from pclc_fast import PCLCLoss, pc_lc_loss

from .gpu_edges import Check, loss_and_grad, require, same_bits
from .gpu_oracle import make_rows
from .gpu_record import NotHereError
from .gpu_timing import capture

# Rows that share a program, and so many that their weights are summed by a launch of its own; a
# tile in registers; block by block.
SHAPES = ((300, 10), (3000, 10), (300, 1000), (64, 50257))
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_HALF_A_SECOND = 1_000_000_000  # cycles of a GPU's clock, more or less


def _data(shape: tuple[int, int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits and targets on the current GPU, with rows of every case of Eq. 6."""
    rows, classes = shape
    logits, target = make_rows(classes, dtype, seed)
    times = -(-rows // len(target))
    return logits.repeat(times, 1)[:rows].cuda(), target.repeat(times)[:rows].cuda()


def graph_capture(backend: str, device: torch.device) -> None:
    """Forward + backward in a CUDA graph, replayed on new data, gives the eager call's bits."""
    with torch.cuda.device(device):
        for shape in SHAPES:
            for dtype in DTYPES:
                for factor in (1.0, 3.0):  # a grad_output of 1 and another
                    _compare_graph(backend, shape, dtype, factor)


def _compare_graph(backend: str, shape: tuple[int, int], dtype: torch.dtype, factor: float) -> None:
    logits, target = _data(shape, dtype)
    logits.requires_grad_()

    def step() -> tuple[Tensor, Tensor]:
        loss = factor * pc_lc_loss(logits, target, backend=backend)
        return loss.detach(), torch.autograd.grad(loss, logits)[0]

    graph, (loss, grad) = capture(step)
    for seed in (1, 2):
        fresh, labels = _data(shape, dtype, seed)
        with torch.no_grad():
            logits.copy_(fresh)
            target.copy_(labels)
        graph.replay()
        expected_loss, expected_grad = step()
        where = f"{shape}, {dtype}, {factor} times the loss, replay {seed}"
        require(same_bits(loss, expected_loss), f"loss of {where}")
        require(same_bits(grad, expected_grad), f"gradient of {where}")


def side_stream(backend: str, device: torch.device) -> None:
    """On another stream the kernels wait for the data of that stream and for nothing else.

    The logits come to be at the end of a long wait on a stream: a kernel that runs anywhere else
    reads what was in that memory before.
    """
    with torch.cuda.device(device):
        for shape in SHAPES:
            ready, target = _data(shape, torch.float32)
            expected_loss, expected_grad = loss_and_grad(ready, target, backend)
            logits = torch.full_like(ready, float("nan"))
            torch.cuda.synchronize()
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                torch.cuda._sleep(_HALF_A_SECOND // 10)
                logits.copy_(ready)
                loss, grad = loss_and_grad(logits, target, backend)
            stream.synchronize()
            require(same_bits(loss, expected_loss), f"loss of {shape}")
            require(same_bits(grad, expected_grad), f"gradient of {shape}")


@contextmanager
def _synchronising_is_an_error() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def no_synchronisation(backend: str, device: torch.device) -> None:
    """The host is back from forward and backward while the device has not begun.

    PyTorch's own check knows PyTorch's calls; a device that is kept busy shows every other wait.
    """
    with torch.cuda.device(device):
        for shape in SHAPES:
            for dtype in DTYPES:
                logits, target = _data(shape, dtype)
                logits.requires_grad_()
                weight = torch.rand(shape[1], device=device)

                def step(
                    logits: Tensor = logits, target: Tensor = target, weight: Tensor = weight
                ) -> None:
                    for factor in (1.0, 3.0):
                        loss, _ = pc_lc_loss(
                            logits, target, weight, return_stats=True, backend=backend
                        )
                        torch.autograd.grad(factor * loss, logits)

                step()  # compiles, and fills the allocator's cache
                torch.cuda.synchronize()
                begun = torch.cuda.Event()
                torch.cuda._sleep(_HALF_A_SECOND)
                begun.record()
                with _synchronising_is_an_error():
                    step()
                waited = begun.query()
                torch.cuda.synchronize()
                require(not waited, f"{shape}, {dtype}: the host waited for the device")


def repeatability(backend: str, device: torch.device) -> None:
    """Five runs, with another stream busy beside them, give the same bits."""
    with torch.cuda.device(device):
        beside = torch.cuda.Stream()
        noise = torch.randn(1024, 1024, device=device)
        for shape in (*SHAPES, (70_001, 10), (5000, 1000)):
            for dtype in DTYPES:
                logits, target = _data(shape, dtype)
                weight = torch.rand(shape[1], device=device)
                beside.wait_stream(torch.cuda.current_stream())
                first: tuple[Tensor, Tensor] | None = None
                for _ in range(5):
                    with torch.cuda.stream(beside):
                        for _ in range(20):
                            torch.mm(noise, noise)
                    run = loss_and_grad(logits, target, backend, 3.0, weight=weight)
                    first = first or run
                    require(same_bits(run[0], first[0]), f"loss of {shape}, {dtype}")
                    require(same_bits(run[1], first[1]), f"gradient of {shape}, {dtype}")
                beside.synchronize()


def gradient_paths_agree(backend: str, device: torch.device) -> None:
    """Forward's gradient, and what backward computes for 1 and for a power of two: the same bits.

    With weights that no order adds alike, and in rows of which forward and backward take tiles of
    their own: where the two divide by another sum of weights, it shows.
    """
    with torch.cuda.device(device):
        for shape in (*SHAPES, (300, 8192), (1500, 16384)):
            weight = torch.rand(shape[1], device=device) + 0.5
            for dtype in (torch.float32, torch.bfloat16, torch.float64):
                logits, target = _data(shape, dtype)
                logits.requires_grad_()
                loss = pc_lc_loss(logits, target, weight, backend=backend)
                one, again, two = (
                    torch.autograd.grad(factor * loss, logits, retain_graph=True)[0]
                    for factor in (1, 1, 2)
                )
                require(same_bits(one, again), f"{shape}, {dtype}, the second backward")
                # A subnormal number loses a bit when it is halved, so these stay out.
                normal = one.abs() > 4 * torch.finfo(dtype).smallest_normal
                require(torch.equal(two[normal], 2 * one[normal]), f"{shape}, {dtype}, for 2")


def beyond_32_bits(backend: str, device: torch.device) -> None:
    """The rows past element 2^31 are what they are alone."""
    classes, last = 32_768, 5
    rows = 2**31 // classes + last
    free, _ = torch.cuda.mem_get_info(device)
    needed = 2 * rows * classes * 2 + 2**30
    if free < needed:
        raise NotHereError(f"it needs {needed} bytes of memory; {free} are free")
    logits = torch.zeros(rows, classes, dtype=torch.bfloat16, device=device)
    logits[-last:] = torch.randn(last, classes, device=device)
    target = torch.arange(rows, device=device) % classes
    alone, alone_grad = loss_and_grad(
        logits[-last:].clone(), target[-last:].clone(), backend, reduction="none"
    )
    loss, grad = loss_and_grad(logits, target, backend, reduction="none")
    require(same_bits(loss[-last:], alone), "losses past element 2^31")
    require(same_bits(grad[-last:], alone_grad), "gradients past element 2^31")
    del loss, grad
    _, grad = loss_and_grad(logits, target, backend, 3.0 * rows, reduction="mean")
    _, expected = loss_and_grad(logits[-last:].clone(), target[-last:].clone(), backend, 3.0 * last)
    torch.testing.assert_close(grad[-last:], expected, rtol=0.02, atol=0.0)


def second_device(backend: str, device: torch.device) -> None:
    """A tensor on a GPU that is not the current one."""
    if torch.cuda.device_count() < 2:
        raise NotHereError("there is one GPU")
    other = torch.device("cuda", ((device.index or 0) + 1) % torch.cuda.device_count())
    logits, target = _data(SHAPES[2], torch.float32)
    expected_loss, expected_grad = loss_and_grad(logits, target, backend)
    loss, grad = loss_and_grad(logits.to(other), target.to(other), backend)
    require(loss.device == grad.device == other, f"the device of loss and gradient is {other}")
    torch.testing.assert_close(loss.to(device), expected_loss)
    torch.testing.assert_close(grad.to(device), expected_grad)


def compiled(backend: str, device: torch.device) -> None:
    """torch.compile(fullgraph=True), with a module before the loss."""
    with torch.cuda.device(device):
        torch.manual_seed(0)
        model = torch.nn.Linear(64, 1000, device=device)
        inputs = torch.randn(32, 64, device=device)
        target = torch.randint(1000, (32,), device=device)
        criterion = PCLCLoss(backend=backend)

        def step() -> Tensor:
            loss: Tensor = criterion(model(inputs), target)
            return loss

        results = []
        for function in (step, torch.compile(step, fullgraph=True)):
            model.zero_grad()
            loss = function()
            loss.backward()
            results.append((loss.detach(), model.weight.grad.clone()))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def mixed_precision(backend: str, device: torch.device) -> None:
    """Autocast to float16 and a GradScaler: finite gradients near those of float32."""
    with torch.cuda.device(device):
        torch.manual_seed(0)
        model = torch.nn.Linear(64, 200, device=device)
        inputs = torch.randn(32, 64, device=device)
        target = torch.randint(200, (32,), device=device)
        pc_lc_loss(model(inputs), target, backend=backend).backward()
        expected = model.weight.grad.clone()
        model.zero_grad()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(init_scale=1024.0)
        with torch.autocast("cuda", torch.float16):
            loss = pc_lc_loss(model(inputs), target, backend=backend)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scale = expected.abs().max().item()
        torch.testing.assert_close(model.weight.grad, expected, rtol=0.0, atol=0.01 * scale)
        scaler.step(optimizer)
        scaler.update()
        require(scaler.get_scale() == 1024.0, "the scaler found gradients that are not finite")


DEVICE_CHECKS: dict[str, Check] = {
    "CUDA graph of forward + backward on new data": graph_capture,
    "a side stream": side_stream,
    "no synchronisation with the host": no_synchronisation,
    "the same bits in every run": repeatability,
    "forward's and backward's gradients agree bit by bit": gradient_paths_agree,
    "more than 2^31 elements": beyond_32_bits,
    "a second GPU": second_device,
    "torch.compile(fullgraph=True)": compiled,
    "autocast and GradScaler": mixed_precision,
}
