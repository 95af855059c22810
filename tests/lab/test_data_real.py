"""The readers on real files, where these are at hand."""

from __future__ import annotations

import runpy
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pclc_fast.lab.data import load_dataset

TOOL = Path(__file__).parents[3] / "shared" / "tools" / "get_data.py"
pytestmark = [
    pytest.mark.skipif(not TOOL.exists(), reason=f"no real data: {TOOL} is not there"),
    pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason=f"{TOOL} needs Python 3.11.4"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("mnist", "tiny-imagenet-slice"):
            patch.setattr(sys, "argv", [str(TOOL), name, str(folder)])
            runpy.run_path(str(TOOL), run_name="__main__")
    return folder


def test_mnist(root: Path) -> None:
    data = load_dataset("mnist", root=root)
    assert data.train_images.shape == (60000, 1, 28, 28)
    assert data.test_images.shape == (10000, 1, 28, 28)
    # What is widely known of it.
    assert data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert torch.bincount(data.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949
    ]  # fmt: skip
    assert data.mean == pytest.approx([0.1307], abs=5e-5)
    assert data.std == pytest.approx([0.3081], abs=5e-5)


def test_mnist_is_what_torchvision_reads(root: Path) -> None:
    datasets = pytest.importorskip("torchvision").datasets
    data = load_dataset("mnist", root=root)
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = datasets.MNIST(root, train=train)
        assert images[:, 0].equal(theirs.data)
        assert labels.equal(theirs.targets)
        assert len(theirs.classes) == data.classes


def test_tiny_imagenet(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_dataset("tiny-imagenet-200", root=root)
    assert "kept in" in capsys.readouterr().err
    assert data.train_images.shape == (5000, 3, 64, 64)
    assert data.test_images.shape == (1000, 3, 64, 64)
    assert data.classes == 200
    assert torch.bincount(data.train_labels).tolist() == [25] * 200
    assert torch.bincount(data.test_labels).tolist() == [5] * 200
    assert data.class_names[0] == "n01443537"
    folder = root / "tiny-imagenet-200"
    line = (folder / "val" / "val_annotations.txt").read_text().splitlines()[17].split("\t")
    assert data.class_names[data.test_labels[17]] == line[1]
    image = Image.open(folder / "val" / "images" / line[0]).convert("RGB")
    assert data.test_images[17].permute(1, 2, 0).numpy().tolist() == np.array(image).tolist()
    # As published for the whole of it, which this is a part of.
    assert data.mean == pytest.approx([0.4802, 0.4481, 0.3975], abs=0.01)
    assert data.std == pytest.approx([0.2770, 0.2691, 0.2821], abs=0.01)
    again = load_dataset("tiny-imagenet-200", root=root)
    assert capsys.readouterr().err == ""
    assert again.sha256 == data.sha256
    assert again.train_images.equal(data.train_images)
