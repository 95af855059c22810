"""When the Triton backend is chosen and what it says where it cannot run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from oracle import INTERPRETED

from pclc_fast import backends, pc_lc_loss
from pclc_fast.backends import cuda, triton
from pclc_fast.dispatch import _warn_once, can_run, choose


def cuda_tensor(shape: tuple[int, ...] = (3, 4)) -> Any:
    """As much of a tensor on a GPU as the choice looks at."""
    return SimpleNamespace(
        numel=lambda: math.prod(shape),
        element_size=lambda: 4,
        device=torch.device("cuda", 0),
        is_cuda=True,
        is_cpu=False,
        shape=shape,
        dim=lambda: len(shape),
    )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton, "_has_triton", True)
    monkeypatch.setattr(cuda, "_cuda", None)  # built without nvcc
    monkeypatch.setattr(cuda, "_capability", lambda _: torch.cuda.get_device_capability(0))


@pytest.mark.usefixtures("gpu")
def test_triton_serves_gpus() -> None:
    assert choose(cuda_tensor(), None) == "triton"
    assert choose(cuda_tensor(), "triton") == "triton"
    assert choose(cuda_tensor(), "reference") == "reference"
    assert backends()["triton"] == (True, "")


def test_cpu_tensors_stay_with_the_compiled_kernels() -> None:
    """Under TRITON_INTERPRET=1 too."""
    if backends()["native"].usable:
        assert choose(torch.zeros(3, 4), None) == "native"
    assert can_run("triton", torch.zeros(3, 4)) == INTERPRETED


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ((triton, "_has_triton", False), "Triton is not installed; pip install triton"),
        ((torch.version, "hip", "6.4"), "this PyTorch is built for AMD's"),
        ((torch.cuda, "get_device_capability", lambda _: (7, 5)), "8.0 or more; cuda:0 has 7.5"),
    ],
)
def test_without_it_the_reference_runs_and_one_warning_says_why(
    missing: tuple[Any, str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*missing)
    _warn_once.cache_clear()
    with pytest.warns(RuntimeWarning, match="slower PyTorch reference") as caught:
        assert choose(cuda_tensor(), None) == "reference"
    assert len(caught) == 1
    assert reason in str(caught[0].message)
    assert choose(cuda_tensor(), None) == "reference"
    with pytest.raises(RuntimeError, match="'triton' cannot run here") as error:
        choose(cuda_tensor(), "triton")
    assert reason in str(error.value)


@pytest.mark.usefixtures("gpu")
def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    usable, reason = backends()["triton"]
    assert not usable
    assert "PyTorch finds none" in reason


@pytest.mark.usefixtures("gpu")
def test_what_it_does_not_take() -> None:
    with pytest.raises(RuntimeError, match="it runs on CUDA tensors; got a tensor on cpu"):
        pc_lc_loss(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), backend="triton")
    with pytest.raises(RuntimeError, match="at most 2147418112 classes"):
        choose(cuda_tensor((1, 2**31)), "triton")
    assert choose(cuda_tensor((2**31, 4)), "triton") == "triton"
