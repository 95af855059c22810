"""When the CUDA C++ backend can be used, and what it says where it cannot."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pclc_fast import backends, pc_lc_loss
from pclc_fast.backends import cuda, problem_arguments
from pclc_fast.dispatch import choose
from pclc_fast.options import Options

MOST = 2**31 - 2**16
COEFFICIENTS = torch.tensor([0.9, 1.0, 0.05, 0.0, 0.0], dtype=torch.float64)
built = pytest.mark.skipif(cuda._cuda is None, reason="built without nvcc")


def cuda_tensor(shape: tuple[int, ...] = (3, 4), itemsize: int = 4) -> Any:
    """As much of a tensor on a GPU as the choice looks at."""
    return SimpleNamespace(
        numel=lambda: math.prod(shape),
        element_size=lambda: itemsize,
        device=torch.device("cuda", 0),
        is_cuda=True,
        is_cpu=False,
        shape=shape,
        dim=lambda: len(shape),
    )


@pytest.fixture(autouse=True)
def fresh_answers() -> Iterator[None]:
    """What was found out about another machine is forgotten, before and after."""
    for answer in (cuda._why_no_device, cuda._ask_about, cuda._capability):
        answer.cache_clear()
    yield
    for answer in (cuda._why_no_device, cuda._ask_about, cuda._capability):
        answer.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A module and a PyTorch that have found a GPU."""
    module = SimpleNamespace(
        unavailable=lambda: "", unsupported=lambda _: "", MOST_CLASSES=MOST, WORKSPACE_BYTES=8
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(cuda, "_cuda", module)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return module


def test_it_is_the_default_on_gpus_that_it_was_measured_on(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backends()["cuda"] == (True, "")
    assert choose(cuda_tensor(), "cuda") == choose(cuda_tensor(), None) == "cuda"
    gpu.unsupported = lambda device: f"not built for device {device}"
    cuda._ask_about.cache_clear()
    assert choose(cuda_tensor(), None) == "triton"
    with pytest.raises(RuntimeError, match="'cuda' cannot run here: not built for device 0"):
        choose(cuda_tensor(), "cuda")
    gpu.unsupported = lambda _: ""
    cuda._ask_about.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    cuda._capability.cache_clear()
    assert choose(cuda_tensor(), "cuda") == "cuda"
    assert choose(cuda_tensor(), None) == "triton"


@pytest.mark.usefixtures("gpu")
def test_many_short_rows_are_triton_s() -> None:
    assert choose(cuda_tensor((2**20, 10)), None) == "cuda"  # all is launching
    assert choose(cuda_tensor((2**21, 10)), None) == "triton"
    assert choose(cuda_tensor((2**11, 8192)), None) == "triton"
    assert choose(cuda_tensor((2**11, 8192), itemsize=2), None) == "cuda"
    assert choose(cuda_tensor((2**10, 32768)), None) == "cuda"
    assert choose(cuda_tensor((16, 10, 512, 512)), None) == "triton"


def test_dynamo_takes_the_answers_of_the_compiled_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_cuda", SimpleNamespace())
    monkeypatch.setattr(cuda, "_why_no_device", os.getcwd)  # compiled too, so opaque to Dynamo
    monkeypatch.setattr(cuda, "_ask_about", os.strerror)

    @torch.compile(fullgraph=True, backend="eager")
    def count(x: torch.Tensor) -> torch.Tensor:
        return x + len(cuda.unavailable()) + len(cuda._why_not_on(1))

    assert count(torch.zeros(())) == len(os.getcwd()) + len(os.strerror(1))


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ((cuda, "_cuda", None), "it is built where CMake finds nvcc 12.8 or newer"),
        ((torch.version, "hip", "6.4"), "this PyTorch is built for AMD's"),
        ((torch.cuda, "is_available", lambda: False), "PyTorch finds none"),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_what_it_says_where_it_cannot_run(
    missing: tuple[Any, str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*missing)
    usable, said = backends()["cuda"]
    assert not usable
    assert reason in said
    with pytest.raises(RuntimeError, match="'cuda' cannot run here") as error:
        choose(cuda_tensor(), "cuda")
    assert reason in str(error.value)


def test_what_it_does_not_take(gpu: SimpleNamespace) -> None:
    with pytest.raises(RuntimeError, match="it runs on CUDA tensors; got a tensor on cpu"):
        pc_lc_loss(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), backend="cuda")
    with pytest.raises(RuntimeError, match=f"at most {gpu.MOST_CLASSES} classes"):
        choose(cuda_tensor((1, 2**31)), "cuda")
    assert choose(cuda_tensor((2**31, 4)), "cuda") == "cuda"


def test_an_old_driver_is_named(gpu: SimpleNamespace) -> None:
    gpu.unavailable = lambda: "it was built with CUDA 13.0 and the NVIDIA driver is for CUDA 12.2"
    assert backends()["cuda"] == (False, gpu.unavailable())


@built
def test_the_module_answers_without_a_gpu(tmp_path: Path) -> None:
    """In a process that no other test has touched, and that sees no GPU even where there is one."""
    script = (
        "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
        "from pclc_fast.backends import cuda\n"
        "print(cuda._cuda.unavailable())\n"
        "try: cuda._cuda.unsupported(0)\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    reason, failure = done.stdout.splitlines()
    assert reason.startswith("it runs on NVIDIA GPUs")
    assert failure.startswith("CUDA device 0: ")


def problem_of(rows: int, classes: int, reduction: str) -> tuple[int | bool, ...]:
    logits, target = torch.empty(rows, classes), torch.empty(rows, dtype=torch.int64)
    options = Options(COEFFICIENTS, -100, reduction, "hard", False)
    return problem_arguments(logits, target, None, options)


def expect_failure(beginning: str, function: Any, problem: Any, addresses: list[int]) -> None:
    if torch.cuda.is_available():
        pytest.skip("with a GPU it would run")
    with pytest.raises(RuntimeError, match=rf"{beginning}: .*\(cudaError\w+\)"):
        function(*problem, *addresses, 0, 0)


@built
@pytest.mark.parametrize(
    ("rows", "classes", "reduction", "kernel"),
    [
        (2, 3, "none", "forward_lanes"),  # the device is asked what it has room for
        (2, 1000, "none", "forward_warp"),
        (2, 5000, "none", "forward_block"),
        (2, 20_000, "none", "forward_cluster"),
        (2, 3, "sum", "forward"),  # for a counter, which all of them share
        (5000, 3, "mean", "prepare_weights"),  # started at once
    ],
)
def test_a_launch_that_fails_says_which(
    rows: int, classes: int, reduction: str, kernel: str
) -> None:
    """Nothing can start without a device, so that no address is looked at but the coefficients'."""
    expect_failure(
        f"CUDA kernel {kernel} for {rows} rows of {classes} classes",
        cuda._cuda.forward_cuda,
        problem_of(rows, classes, reduction),
        [0] * 8,
    )


@built
@pytest.mark.parametrize(("classes", "kernel"), [(3, "backward_lanes"), (1000, "backward_warp")])
def test_a_backward_that_fails_says_which(classes: int, kernel: str) -> None:
    expect_failure(
        f"CUDA kernel {kernel} for 2 rows of {classes} classes",
        cuda._cuda.backward_cuda,
        problem_of(2, classes, "sum"),
        [0, 0, 0, False, 0],
    )
