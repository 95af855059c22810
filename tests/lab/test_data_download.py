"""--download, with this machine in the place of those that torchvision fetches from."""

from __future__ import annotations

import functools
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_data_cifar import as_published, write_cifar_python
from test_data_files import write_mnist

from pclc_fast.lab.data import DataError, load, load_dataset

datasets = pytest.importorskip("torchvision", reason="it fetches").datasets
md5 = datasets.utils.calculate_md5
Serve = Callable[[Path], str]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Makes a folder a site, whose address it returns."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(_Quiet, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_mnist(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_mnist(tmp_path / "there", packed=True)
    raw = tmp_path / "there" / "MNIST" / "raw"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [serve(raw)])
    resources = [(file.name, md5(file)) for file in raw.iterdir()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    written.assert_read(load_dataset("mnist", root=tmp_path / "here", download=True))
    shutil.rmtree(raw)  # what is there is not fetched again
    written.assert_read(load_dataset("mnist", root=tmp_path / "here", download=True))
    monkeypatch.setattr(datasets.MNIST, "mirrors", ["http://127.0.0.1:1/"])  # nobody answers
    with pytest.raises(DataError, match=r"mnist could not be downloaded to .*: "):
        load_dataset("mnist", root=tmp_path / "elsewhere", download=True)


def test_cifar10(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, file = write_cifar_python(tmp_path / "there", "cifar10", as_published)
    archive = tmp_path / "cifar-10-python.tar.gz"
    shutil.make_archive(str(archive)[:-7], "gztar", file.parent.parent)
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{serve(tmp_path)}{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    written.assert_read(load_dataset("cifar10", root=tmp_path / "here", download=True))
    archive.write_bytes(b"something else")
    with pytest.raises(DataError, match="cifar10 could not be downloaded to "):
        load_dataset("cifar10", root=tmp_path / "elsewhere", download=True)


def test_svhn(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "there"
    there.mkdir()
    split_list = {}
    for split in ("train", "test"):
        file = there / f"{split}_32x32.mat"
        file.write_bytes(b"no matrix")
        split_list[split] = [f"{serve(there)}{file.name}", file.name, md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    with pytest.raises(DataError, match=r"here/train_32x32\.mat is damaged"):
        load_dataset("svhn", root=tmp_path / "here", download=True)


def test_what_cannot_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--download cannot fetch it: get http.* and unpack it"):
        load_dataset("tiny-imagenet-200", root=tmp_path, download=True)


def test_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match="--download needs torchvision: pip install torchvision"):
        load_dataset("svhn", root=tmp_path, download=True)


def test_nothing_is_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "fetch", lambda *_: pytest.fail("it was"))
    with pytest.raises(DataError, match="is missing"):
        load_dataset("mnist", root=tmp_path)
