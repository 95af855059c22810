"""Fixtures of the lab's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pclc_fast.lab.digits import DigitsData, digits_data
from pclc_fast.lab.models import small_cnn
from pclc_fast.lab.reproduce import CRITERIA
from pclc_fast.lab.training import train


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
    epochs = train(
        model,
        data.train_images,
        data.train_labels,
        CRITERIA["CE"],
        epochs=8,
        batch_size=64,
        lr=3e-3,
        generator=torch.Generator().manual_seed(0),
    )
    list(epochs)  # it trains as far as it is read
    return model.eval()
