"""When the CUDA C++ backend can be used, and what it says where it cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pclc_fast import backends, pc_lc_loss
from pclc_fast.backends import cuda
from pclc_fast.dispatch import choose

MOST = 2**31 - 2**16
built = pytest.mark.skipif(cuda._cuda is None, reason="built without nvcc")


def cuda_tensor(shape: tuple[int, ...] = (3, 4)) -> Any:
    """As much of a tensor on a GPU as the choice looks at."""
    return SimpleNamespace(
        device=torch.device("cuda", 0),
        is_cuda=True,
        is_cpu=False,
        shape=shape,
        dim=lambda: len(shape),
    )


@pytest.fixture(autouse=True)
def fresh_answers() -> Iterator[None]:
    """What was found out about another machine is forgotten, before and after."""
    for answer in (cuda._why_no_device, cuda._why_not_on):
        answer.cache_clear()
    yield
    for answer in (cuda._why_no_device, cuda._why_not_on):
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


def test_it_runs_where_it_is_asked_for_and_is_not_the_default(gpu: SimpleNamespace) -> None:
    assert backends()["cuda"] == (True, "")
    assert choose(cuda_tensor(), "cuda") == "cuda"
    assert choose(cuda_tensor(), None) != "cuda"
    gpu.unsupported = lambda device: f"not built for device {device}"
    cuda._why_not_on.cache_clear()
    with pytest.raises(RuntimeError, match="'cuda' cannot run here: not built for device 0"):
        choose(cuda_tensor(), "cuda")


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
    assert "cudaGetDevice" in failure or "cudaSetDevice" in failure


@built
def test_a_call_that_fails_says_which() -> None:
    """Without a device nothing can start: the error is Python's and names where it happened."""
    if torch.cuda.is_available():
        pytest.skip("with a GPU nothing fails")
    from pclc_fast.options import make_options

    options = make_options(
        ignore_index=-100, reduction="sum", margin=0.9, pc_weight=1.0, lc_weight=0.0,
        lc_cap=0.0, lc_mode="hard", pc_mean=False, ce_weight=0.0, label_smoothing=0.0,
    )  # fmt: skip
    logits, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    problem = cuda._problem(logits, target, None, options)
    with pytest.raises(RuntimeError, match=r"cuda[A-Z]\w+: .*\(cudaError\w+\)"):
        cuda._cuda.forward_cuda(*problem, *[0] * 8, 0, 0)
