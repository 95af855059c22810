"""Readers of single files, on small ones written as they are published, and on damaged ones."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from written_arrays import Array, Written, pixels

from pclc_fast.lab.data import DataError, load_dataset


def idx(values: Array) -> bytes:
    """The format's own description: two zeros, the type, the number of sizes, the sizes, values."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.tobytes()


def write_mnist(root: Path, folder: str = "MNIST", *, packed: bool = False) -> Written:
    written = Written(20, 10, (1, 28, 28), 10)
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    for part, images, labels in zip(("train", "t10k"), written.images, written.labels, strict=True):
        for name, values in (
            (f"{part}-images-idx3-ubyte", images[:, 0]),
            (f"{part}-labels-idx1-ubyte", labels.astype(np.uint8)),
        ):
            if packed:
                (raw / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (raw / name).write_bytes(idx(values))
    return written


@pytest.mark.parametrize(
    ("name", "folder", "class_name"),
    [
        ("mnist", "MNIST", "9"),
        ("kmnist", "KMNIST", "wo"),
        ("fashion-mnist", "FashionMNIST", "Ankle boot"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_idx(name: str, folder: str, class_name: str, packed: bool, tmp_path: Path) -> None:
    written = write_mnist(tmp_path, folder, packed=packed)
    data = load_dataset(name, root=tmp_path)
    written.assert_read(data)
    assert (data.name, data.shape, data.classes) == (name, (1, 28, 28), 10)
    assert data.class_names[9] == class_name
    assert data.brightest == 255
    values = written.images[0].astype(np.float64) / 255
    assert data.mean == pytest.approx([values.mean()], rel=1e-12)
    assert data.std == pytest.approx([values.std()], rel=1e-12)


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    raw = tmp_path / "MNIST" / "raw"
    before = load_dataset("mnist", root=tmp_path).sha256
    for file in list(raw.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load_dataset("mnist", root=tmp_path).sha256 == before
    file = raw / "t10k-images-idx3-ubyte"
    content = bytearray(gzip.decompress((raw / f"{file.name}.gz").read_bytes()))
    content[-1] ^= 1
    file.write_bytes(content)
    assert load_dataset("mnist", root=tmp_path).sha256 != before


def cut(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize(
    ("file", "damage", "why"),
    [
        ("train-images-idx3-ubyte", cut, "15695 bytes, where its beginning promises 15696"),
        ("train-images-idx3-ubyte", lambda c: c + b"x", "15697 bytes, where its beginning"),
        ("t10k-labels-idx1-ubyte", cut, "17 bytes, where its beginning promises 18"),
        ("t10k-labels-idx1-ubyte", lambda c: b"\x1f\x8b" + c[2:], "it begins with 1f8b0801, not"),
        ("train-labels-idx1-ubyte", lambda _: b"", "it begins with nothing, not 00000801"),
        ("train-labels-idx1-ubyte", lambda c: c[:6], "6 bytes, where its beginning promises"),
        ("t10k-images-idx3-ubyte", lambda c: c.replace(b"\x08\x03", b"\x08\x01", 1), "it begins"),
    ],
)
def test_damaged_idx(file: str, damage: Callable[[bytes], bytes], why: str, tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_dataset("mnist", root=tmp_path)
    assert str(caught.value).startswith(f"{path} is damaged: {why}")
    assert str(caught.value).endswith("Remove it and get it again")


@pytest.mark.parametrize("damage", [cut, lambda c: b"PK" + c[2:], lambda c: c[:20] + c[21:]])
def test_damaged_gz(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged: "):
        load_dataset("mnist", root=tmp_path)


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.zeros(19, dtype=np.uint8)))
    with pytest.raises(DataError, match="mnist: 20 training images, but 19 labels") as caught:
        load_dataset("mnist", root=tmp_path)
    advice = f"in {labels.parent} do not fit together: remove them and get them again"
    assert str(caught.value).endswith(advice)
    labels.write_bytes(idx(np.full(20, 10, dtype=np.uint8)))
    with pytest.raises(DataError, match="the training labels go from 10 to 10, but there are 10"):
        load_dataset("mnist", root=tmp_path)
    images = labels.with_name("train-images-idx3-ubyte")
    images.write_bytes(idx(pixels(20, 27, 28)))
    labels.write_bytes(idx(np.zeros(20, dtype=np.uint8)))
    with pytest.raises(DataError, match="training images are 1x27x28, the test images 1x28x28"):
        load_dataset("mnist", root=tmp_path)
    images.write_bytes(idx(pixels(0, 28, 28)))
    labels.write_bytes(idx(np.zeros(0, dtype=np.uint8)))
    with pytest.raises(DataError, match="mnist: there are no training images"):
        load_dataset("mnist", root=tmp_path)


def test_a_channel_without_contrast_stays_as_it_is(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    black = np.zeros((20, 28, 28), dtype=np.uint8)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(idx(black))
    data = load_dataset("mnist", root=tmp_path)
    assert (data.mean, data.std) == ((0.0,), (1.0,))


def test_svhn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = Written(20, 11, (3, 32, 32), 10)
    for part, images, labels in zip(("train", "test"), written.images, written.labels, strict=True):
        content = {
            "X": images.transpose(2, 3, 1, 0),
            "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8),
        }
        savemat(tmp_path / f"{part}_32x32.mat", content, do_compression=True)
    data = load_dataset("svhn", root=tmp_path)
    written.assert_read(data)
    assert data.classes == 10
    assert "svhn decoded in " in capsys.readouterr().err
    written.assert_read(load_dataset("svhn", root=tmp_path))
    assert capsys.readouterr().err == ""  # from the cache


@pytest.mark.parametrize("damage", ["cut", "text", "no labels", "letters", "grey", "packed badly"])
def test_damaged_svhn(damage: str, tmp_path: Path) -> None:
    content = {"X": pixels(32, 32, 3, 20), "y": np.ones((20, 1), dtype=np.uint8)}
    for part in ("train", "test"):
        savemat(tmp_path / f"{part}_32x32.mat", content, do_compression=True)
    path = tmp_path / "test_32x32.mat"
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_bytes(b"not found\n")
    elif damage == "no labels":
        savemat(path, {"X": content["X"]})
    elif damage == "letters":
        savemat(path, {**content, "y": np.full((20, 1), "a", dtype=object)})
    elif damage == "grey":
        savemat(path, {**content, "X": pixels(32, 32, 20)})
    else:
        path.write_bytes(whole[:1000] + bytes(500) + whole[1500:])
    with pytest.raises(DataError, match=r"test_32x32\.mat is damaged: "):
        load_dataset("svhn", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("mnist", "MNIST/raw/train-images-idx3-ubyte is missing, and so is the same with .gz"),
        ("kmnist", "KMNIST/raw/train-images-idx3-ubyte is missing"),
        ("fashion-mnist", "FashionMNIST/raw/train-images-idx3-ubyte is missing"),
        ("cifar10", "cifar-10-batches-py is missing, and so is nowhere/cifar-10-batches-bin"),
        ("cifar100", "cifar-100-python is missing"),
        ("svhn", "train_32x32.mat is missing"),
        ("tiny-imagenet-200", "tiny-imagenet-200/wnids.txt is missing"),
    ],
)
def test_missing_files(
    name: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_dataset(name, root=Path("nowhere"))
    assert str(caught.value).startswith(f"nowhere/{missing}")
    assert "--root, now nowhere, must be the folder that holds it; " in str(caught.value)
    assert ("get http" if name.startswith("tiny") else "--download") in str(caught.value)


def test_files_beside_where_they_belong(tmp_path: Path) -> None:
    (tmp_path / "MNIST").mkdir()
    write_mnist(tmp_path, "MNIST/..")  # beside where they belong
    with pytest.raises(DataError, match="train-images-idx3-ubyte is missing"):
        load_dataset("mnist", root=tmp_path)
