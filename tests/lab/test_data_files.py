"""Readers of single files, on small ones written as they are published, and on damaged ones."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from pclc_fast.lab.data import DataError, ImageData, load_dataset

RNG = np.random.default_rng(0)
Array = np.ndarray[Any, np.dtype[Any]]


def pixels(*shape: int) -> Array:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def idx(values: Array) -> bytes:
    """The format's own description: two zeros, the type, the number of sizes, the sizes, values."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.tobytes()


class Written:
    """What a test wrote: arrays [N, C, H, W] and labels, of training and test."""

    def __init__(self, train: int, test: int, shape: tuple[int, int, int], classes: int) -> None:
        self.images = pixels(train, *shape), pixels(test, *shape)
        # The last class is there, so that one label too many would be noticed.
        self.labels = tuple(np.arange(n)[::-1] % classes for n in (train, test))

    def assert_read(self, data: ImageData) -> None:
        read = (data.train_images, data.test_images), (data.train_labels, data.test_labels)
        for found, expected in zip(read[0], self.images, strict=True):
            assert found.dtype == torch.uint8
            assert np.array_equal(found.numpy(), expected)
        for found, expected in zip(read[1], self.labels, strict=True):
            assert found.dtype == torch.int64
            assert np.array_equal(found.numpy(), expected)


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
        ("train-labels-idx1-ubyte", lambda _: b"", "it begins with , not 00000801"),
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
    with pytest.raises(DataError, match="mnist: 20 training images, but 19 labels"):
        load_dataset("mnist", root=tmp_path)
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


CIFAR_NAMES = {"cifar10": "label_names", "cifar100": "fine_label_names"}


def write_cifar_python(
    root: Path, name: str, dump: Callable[[dict[str, Any]], bytes]
) -> tuple[Written, Path]:
    """The Python version; returns the first training file, too."""
    classes, many = (10, 5) if name == "cifar10" else (100, 1)
    written = Written(100, 100, (3, 32, 32), classes)
    folder = root / ("cifar-10-batches-py" if name == "cifar10" else "cifar-100-python")
    folder.mkdir(parents=True)
    names = [f"class {i}" for i in range(classes)]
    meta = "batches.meta" if name == "cifar10" else "meta"
    (folder / meta).write_bytes(dump({CIFAR_NAMES[name]: names, "num_vis": 3072}))
    files = [f"data_batch_{i}" for i in range(1, 6)] if many == 5 else ["train"]
    files.append("test_batch" if name == "cifar10" else "test")
    images = [*np.split(written.images[0], many), written.images[1]]
    labels = [*np.split(written.labels[0], many), written.labels[1]]
    for file, some, numbers in zip(files, images, labels, strict=True):
        batch = {"data": some.reshape(len(some), -1), "filenames": ["a.png"] * len(some)}
        if name == "cifar10":
            batch |= {"batch_label": file, "labels": numbers.tolist()}
        else:
            batch |= {"fine_labels": numbers.tolist(), "coarse_labels": [0] * len(some)}
        (folder / file).write_bytes(dump(batch))
    return written, folder / files[0]


def today(protocol: int) -> Callable[[dict[str, Any]], bytes]:
    return lambda content: pickle.dumps(content, protocol=protocol)


def bytes_for_keys(content: dict[str, Any]) -> bytes:
    """As Python 3 wrote again what it had read with encoding="bytes"."""
    return pickle.dumps({key.encode(): value for key, value in content.items()}, protocol=2)


def as_published(content: dict[str, Any]) -> bytes:
    """Opcode by opcode what Python 2's cPickle wrote: texts and the array's bytes are its str."""

    def text(value: bytes) -> bytes:
        if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        return b"T" + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        if value < 0:
            return b"J" + value.to_bytes(4, "little", signed=True)
        return b"K" + bytes([value]) if value < 256 else b"M" + value.to_bytes(2, "little")

    def array(value: Array) -> bytes:
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + number(-1) * 2 + b"K\x00tb"
        shape = number(value.shape[0]) + number(value.shape[1]) + b"\x86"
        return empty + b"(K\x01" + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"

    def any_of(value: Any) -> bytes:
        if isinstance(value, np.ndarray):
            return array(value)
        if isinstance(value, list):
            return b"](" + b"".join(map(any_of, value)) + b"e"
        return number(value) if isinstance(value, int) else text(value.encode())

    items = b"".join(text(key.encode()) + any_of(value) for key, value in content.items())
    return b"\x80\x02}(" + items + b"u."


def test_the_published_form_is_a_pickle() -> None:
    content = {"data": pixels(2, 3072), "labels": [1, 2], "batch_label": "x"}
    read = pickle.loads(as_published(content), encoding="latin-1")
    assert np.array_equal(read.pop("data"), content.pop("data"))
    assert read == content


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    "dump", [as_published, bytes_for_keys, today(0), today(2), today(4), today(5)]
)
def test_cifar_python(name: str, dump: Callable[[dict[str, Any]], bytes], tmp_path: Path) -> None:
    written, _ = write_cifar_python(tmp_path, name, dump)
    data = load_dataset(name, root=tmp_path)
    written.assert_read(data)
    assert data.class_names[3] == "class 3"
    for channel in range(3):
        values = written.images[0][:, channel] / 255
        assert data.mean[channel] == pytest.approx(values.mean(), rel=1e-12)
        assert data.std[channel] == pytest.approx(values.std(), rel=1e-12)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_binary_holds_the_same(name: str, tmp_path: Path) -> None:
    written, file = write_cifar_python(tmp_path / "python", name, as_published)
    folder = tmp_path / ("cifar-10-batches-bin" if name == "cifar10" else "cifar-100-binary")
    folder.mkdir()
    tens = name == "cifar10"
    names = "".join(f"class {i}\n" for i in range(10 if tens else 100))
    (folder / ("batches.meta.txt" if tens else "fine_label_names.txt")).write_text(names + "\n")

    def records(images: Array, labels: Array) -> bytes:
        before = labels[:, None] if tens else np.stack([labels * 0 + 7, labels], axis=1)
        return np.hstack([before.astype(np.uint8), images.reshape(len(images), -1)]).tobytes()

    many = 5 if tens else 1
    files = [f"data_batch_{i}.bin" for i in range(1, 6)] if tens else ["train.bin"]
    parts = zip(np.split(written.images[0], many), np.split(written.labels[0], many), strict=True)
    for file_name, part in zip(files, parts, strict=True):
        (folder / file_name).write_bytes(records(*part))
    test = folder / ("test_batch.bin" if tens else "test.bin")
    test.write_bytes(records(written.images[1], written.labels[1]))
    data = load_dataset(name, root=tmp_path)
    written.assert_read(data)
    assert data.sha256 == load_dataset(name, root=file.parent.parent).sha256
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"\.bin is damaged: .* bytes are not a number of images"):
        load_dataset(name, root=tmp_path)


class Evil:
    """Writes itself as a call."""

    woken = False

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


@pytest.mark.parametrize(
    ("evil", "named"),
    [
        (Evil(setattr, Evil, "woken", True), "builtins.setattr"),
        (Evil(eval, "1"), "builtins.eval"),
        (Evil(np.frombuffer, b"12"), "numpy.frombuffer"),
        (Evil(Path, "x"), "pathlib.Path"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_calls_nothing(evil: Evil, named: str, protocol: int, tmp_path: Path) -> None:
    _, file = write_cifar_python(tmp_path, "cifar10", as_published)
    file.write_bytes(
        pickle.dumps({"data": evil, "labels": []}, protocol=protocol, fix_imports=False)
    )
    with pytest.raises(DataError, match=rf"data_batch_1 is damaged: .*wants to call {named}"):
        load_dataset("cifar10", root=tmp_path)
    assert not Evil.woken


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "EOFError"),
        (as_published({"data": pixels(2, 3072), "labels": [0, 1]})[:-9], "[A-Za-z]+Error: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "UnpicklingError"),
        (pickle.dumps([1, 2]), "it holds a list, not a dict"),
        (pickle.dumps({"labels": [1]}), "it has no array of bytes named data"),
        (pickle.dumps({"data": pixels(2, 3071), "labels": [0, 1]}), "it has no array of bytes"),
        (
            pickle.dumps({"data": pixels(2, 3072).astype(float)}),
            "ValueError: an array of f8, not of bytes",
        ),
        (pickle.dumps({"data": pixels(2, 3072), "labels": [1]}), "2 images, but 1 labels"),
        (pickle.dumps({"data": pixels(2, 3072), "labels": ["a", 1]}), "it has no list of labels"),
        (pickle.dumps({"data": pixels(2, 3072), "labels": [0, 10]}), None),
    ],
)
def test_damaged_cifar(content: bytes, why: str | None, tmp_path: Path) -> None:
    _, file = write_cifar_python(tmp_path, "cifar10", as_published)
    file.write_bytes(content)
    expected = (
        r"training labels go from 0 to 10" if why is None else f"data_batch_1 is damaged: {why}"
    )
    with pytest.raises(DataError, match=expected):
        load_dataset("cifar10", root=tmp_path)


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


@pytest.mark.parametrize("damage", ["cut", "text", "no labels", "grey", "packed badly"])
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


@pytest.mark.parametrize(("name", "file"), [("cifar10", "data_batch_3"), ("cifar100", "meta")])
def test_one_file_is_missing(name: str, file: str, tmp_path: Path) -> None:
    _, first = write_cifar_python(tmp_path, name, as_published)
    first.with_name(file).unlink()
    with pytest.raises(DataError, match=f"{file} is missing"):
        load_dataset(name, root=tmp_path)
    (tmp_path / "MNIST").mkdir()
    write_mnist(tmp_path, "MNIST/..")  # beside where they belong
    with pytest.raises(DataError, match="train-images-idx3-ubyte is missing"):
        load_dataset("mnist", root=tmp_path)
