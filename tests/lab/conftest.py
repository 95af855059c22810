"""Fixtures of the lab's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from train_command import train

from pclc_fast.lab.digits import DigitsData, digits_data
from pclc_fast.lab.models import small_cnn


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """What the lab does to itself: batches of digits only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def data() -> DigitsData:
    return digits_data()


@pytest.fixture(scope="package")
def undefended(data: DigitsData) -> nn.Module:
    """A network trained with CE until it knows the digits."""
    model = small_cnn(seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    shuffle = torch.Generator().manual_seed(0)
    for _ in range(8):
        order = torch.randperm(len(data.train_labels), generator=shuffle)
        for batch in order.split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(data.train_images[batch]), data.train_labels[batch]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="package")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2 + 2 epochs that nothing disturbed, to be copied and not changed."""
    folder = tmp_path_factory.mktemp("finished")
    warm_ups = ["--warm-ups", str(folder / "warm-ups")]
    assert train("--epochs", "2", "--out", str(folder / "run"), *warm_ups) == 0
    return folder / "run"
