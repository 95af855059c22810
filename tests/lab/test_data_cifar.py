"""The readers of CIFAR-10 and CIFAR-100, whose published files are pickles."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_arrays import Array, Written, pixels

from pclc_fast.lab.data import DataError, load_dataset

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


@pytest.mark.parametrize(("name", "file"), [("cifar10", "data_batch_3"), ("cifar100", "meta")])
def test_one_file_is_missing(name: str, file: str, tmp_path: Path) -> None:
    _, first = write_cifar_python(tmp_path, name, as_published)
    first.with_name(file).unlink()
    with pytest.raises(DataError, match=f"{file} is missing"):
        load_dataset(name, root=tmp_path)
