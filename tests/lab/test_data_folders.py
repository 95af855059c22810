"""Data sets made of image files, and the cache of what was decoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from written_images import RNG, decoded, picture, shapes

from pclc_fast.lab import cli
from pclc_fast.lab.data import DataError, load_dataset

WNIDS = ("n03", "n01", "n02")  # in no order, as published


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Tiny ImageNet's folders as published, with 3 classes and images of 64 x 64."""
    folder = tmp_path / "root" / "tiny-imagenet-200"
    for wnid in WNIDS:
        for i in range(4):
            mode = "L" if (wnid, i) == ("n01", 2) else "RGB"  # some are grey
            picture(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (64, 64), mode)
        boxes = "".join(f"{wnid}_{i}.JPEG\t0\t0\t9\t9\n" for i in range(4))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(boxes)
    lines = []
    for i in range(7):
        picture(folder / "val" / "images" / f"val_{i}.JPEG", (64, 64))
        lines.append(f"val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    picture(folder / "test" / "images" / "test_0.JPEG", (64, 64))  # has no label
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text("n01\tgoldfish, Carassius auratus\n")
    return folder


def test_tiny_imagenet(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = load_dataset("tiny-imagenet-200", root=tiny.parent)
    assert (data.name, data.shape) == ("tiny-imagenet-200", (3, 64, 64))
    assert data.class_names == ("n01", "n02", "n03")
    assert data.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert data.test_labels.tolist() == [2, 0, 1, 2, 0, 1, 2]
    for n, (wnid, i) in enumerate((w, i) for w in data.class_names for i in range(4)):
        path = tiny / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
        assert data.train_images[n].equal(decoded(path))
    for i in range(7):
        assert data.test_images[i].equal(decoded(tiny / "val" / "images" / f"val_{i}.JPEG"))
    cache = tiny.parent / "cache" / "tiny-imagenet-200.safetensors"
    said = capsys.readouterr().err
    assert said.startswith("tiny-imagenet-200 decoded in ")
    assert said.endswith(f" s, kept in {cache}\n")
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_tiny_imagenet_by_its_path(tiny: Path) -> None:
    by_name = load_dataset("tiny-imagenet-200", root=tiny.parent)
    assert load_dataset(str(tiny), root=tiny.parent).sha256 == by_name.sha256
    assert load_dataset(str(tiny), root=tiny.parent, image_size=8).shape == (3, 8, 8)


def test_more_images_than_a_thread_takes_at_a_time(tmp_path: Path) -> None:
    """They come back in the order of their names, whichever thread is first."""
    for i in range(150):
        picture(tmp_path / "train" / "a" / f"{i:03}.png", (4, 4))
    picture(tmp_path / "val" / "a" / "0.png", (4, 4))
    data = load_dataset(str(tmp_path), root=tmp_path)
    for i in range(150):
        assert data.train_images[i].equal(decoded(tmp_path / "train" / "a" / f"{i:03}.png"))


def spoil(tiny: Path, how: str) -> str:
    """Spoil the folder; return what the message must hold."""
    annotations, image = tiny / "val" / "val_annotations.txt", tiny / "train/n02/images/n02_1.JPEG"
    text = annotations.read_text()
    if how == "half an image":
        image.write_bytes(image.read_bytes()[:300])
        return f"{image} is damaged: "
    if how == "an empty image":
        image.write_bytes(b"")
        return f"{image} is damaged: it is no image"
    if how == "a page":
        image.write_bytes(b"<html>not found</html>")
        return f"{image} is damaged: it is no image"
    if how == "another size":
        picture(image, (64, 63))
        return (
            f"{image} is 64 x 63, but {tiny}/train/n01/images/n01_0.JPEG is 64 x 64: --image-size"
        )
    if how == "no class":
        shutil.rmtree(tiny / "train" / "n02")
        return f"{tiny}/train/n02/images is missing"
    if how == "an empty class":
        for path in image.parent.iterdir():
            path.unlink()
        return f"{image.parent} has no images"
    if how == "no annotations":
        annotations.unlink()
        return f"{annotations} is missing"
    if how == "a line less":
        annotations.write_text(text.split("\n", 1)[1])
        return (
            f"{annotations} is damaged: 1 images have no line, one is {tiny}/val/images/val_0.JPEG"
        )
    if how == "a line more":
        annotations.write_text(text + "val_7.JPEG\tn01\t0\t0\t1\t1\n")
        return f"{tiny}/val/images/val_7.JPEG is missing, but {annotations} lists it"
    if how == "a line twice":
        annotations.write_text(text + text[: text.index("\n") + 1])
        return f"{annotations} is damaged: it lists an image twice"
    if how == "another class":
        annotations.write_text(text.replace("n02", "n09", 1))
        return f"{annotations} is damaged: line 3 names no class of wnids.txt: 'val_2.JPEG"
    if how == "no tabs":
        annotations.write_text(text.replace("\t", " "))
        return f"{annotations} is damaged: line 1 names no class of wnids.txt"
    if how == "no text":
        annotations.write_bytes(b"\xff\xfe\x00")
        return f"{annotations} is damaged: it is no text in UTF-8"
    assert how == "no names"
    (tiny / "wnids.txt").write_text("\n")
    return f"{tiny}/wnids.txt is damaged: it is empty"


@pytest.mark.parametrize(
    "how",
    [
        "half an image",
        "an empty image",
        "a page",
        "another size",
        "no class",
        "an empty class",
        "no annotations",
        "a line less",
        "a line more",
        "a line twice",
        "another class",
        "no tabs",
        "no text",
        "no names",
    ],
)
def test_a_spoiled_tiny_imagenet(how: str, tiny: Path) -> None:
    load_dataset("tiny-imagenet-200", root=tiny.parent)  # a cache does not hide it
    message = spoil(tiny, how)
    with pytest.raises(DataError) as caught:
        load_dataset("tiny-imagenet-200", root=tiny.parent)
    assert message in str(caught.value)


@pytest.mark.parametrize("test", ["test", "val"])
def test_an_image_folder(test: str, tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes", test=test)
    picture(folder / "train" / "circle" / "deeper" / "9.JPG")
    (folder / "train" / "circle" / "notes.txt").write_text("not an image")
    (folder / "train" / "circle" / "._0.png").write_text("not an image either")
    (folder / "train" / ".hidden").mkdir()
    (folder / "README").write_text("")
    data = load_dataset(str(folder), root=tmp_path)
    assert (data.name, data.shape, data.class_names) == (
        "shapes",
        (3, 12, 10),
        ("circle", "square"),
    )
    assert data.train_labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.train_images[3].equal(decoded(folder / "train" / "circle" / "deeper" / "9.JPG"))
    assert data.test_images[2].equal(decoded(folder / test / "square" / "0.png"))


def test_the_test_folder_comes_before_val(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes")
    shutil.copytree(folder / "train", folder / "val")
    assert len(load_dataset(str(folder), root=tmp_path).test_labels) == 4


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes", mode="L")
    data = load_dataset(str(folder), root=tmp_path)
    assert data.shape == (1, 12, 10)
    assert data.test_images[3].equal(decoded(folder / "test" / "square" / "1.png")[:1])
    picture(folder / "test" / "square" / "1.png")
    data = load_dataset(str(folder), root=tmp_path)  # one colour image and all have three
    assert data.shape == (3, 12, 10)
    assert data.train_images[0].equal(decoded(folder / "train" / "circle" / "0.png"))


def test_images_of_several_sizes(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes")
    odd = folder / "test" / "circle" / "1.png"
    picture(odd, (20, 30))
    with pytest.raises(DataError, match="--image-size N brings all images to N x N") as caught:
        load_dataset(str(folder), root=tmp_path)
    first = folder / "train" / "circle" / "0.png"
    assert str(caught.value).startswith(f"{odd} is 20 x 30, but {first} is 12 x 10: ")
    for path in (folder / "test").rglob("*.png"):  # a size of their own
        picture(path, (20, 30))
    with pytest.raises(DataError, match=f"is 20 x 30, but {first} is 12 x 10: --image-size N"):
        load_dataset(str(folder), root=tmp_path)
    data = load_dataset(str(folder), root=tmp_path, image_size=8)
    assert data.shape == (3, 8, 8)
    expected = Image.open(odd).resize((8, 8), Image.Resampling.BILINEAR)
    assert data.test_images[1].permute(1, 2, 0).numpy().tolist() == np.array(expected).tolist()
    assert load_dataset(str(folder), root=tmp_path, image_size=4).shape == (3, 4, 4)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK", "1"])
def test_other_kinds_of_pixels(mode: str, tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes")
    path = folder / "train" / "circle" / "3.tif"
    picture(path, mode=mode)
    assert load_dataset(str(folder), root=tmp_path).train_images[3].equal(decoded(path))


def test_a_link_to_nothing(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes")
    link = folder / "train" / "square" / "9.png"
    link.symlink_to("gone.png")
    with pytest.raises(DataError) as caught:
        load_dataset(str(folder), root=tmp_path)
    message = f"{link} links to gone.png, which is not there: mend or remove the link"
    assert str(caught.value) == message
    picture(link.with_name("gone.png"))
    assert len(load_dataset(str(folder), root=tmp_path).train_labels) == 8


def test_sixteen_bits_are_refused(tmp_path: Path) -> None:
    folder = shapes(tmp_path / "shapes", mode="L")
    path = folder / "train" / "square" / "0.png"
    Image.fromarray(RNG.integers(0, 65536, (12, 10), dtype=np.uint16)).save(path)
    with pytest.raises(
        DataError, match=r"square/0\.png has .* kind I;16, not 8 bits .* or remove it"
    ):
        load_dataset(str(folder), root=tmp_path)


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("train", "shapes/train is missing, the folder with a folder of training images for each"),
        ("test", "shapes/test is missing, and so is shapes/val: test images are needed"),
        ("test/circle", "shapes/train/circle is there, but shapes/test/circle is not"),
        ("train/circle", "shapes/test/circle is there, but shapes/train/circle is not"),
        ("train/*", "shapes/train has no folders: it must have one for each class"),
        ("train/circle/*", "shapes/train/circle has no images, which are .bmp, "),
    ],
)
def test_incomplete_folders(
    remove: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shapes(Path("shapes"))
    for path in list(folder.glob(remove)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError) as caught:
        load_dataset("shapes")
    assert message in str(caught.value)


def test_pclc_train_says_what_is_wrong_with_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes(Path("shapes"), mode="L")
    for options, message in (
        (["--data", "nosuch"], "--data must be one of digits, mnist, kmnist, fashion-mnist, "),
        (["--data", "mnist"], "data/MNIST/raw/train-images-idx3-ubyte is missing, and so is"),
        (["--data", "mnist", "--image-size", "32"], "--image-size is for image files; those of"),
        (["--data", "digits", "--model", "nosuch"], "--model: it must be one of small-cnn, lenet5"),
        (["--data", "shapes", "--model", "vgg13"], "--model: vgg13 needs images of at least 32 x"),
    ):
        assert cli.run(["train", *options]) in (1, 2)
        said = capsys.readouterr().err
        assert f"pclc: {message}" in said
        assert not Path("runs").exists()


def test_pclc_train_takes_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shapes(Path("shapes"), mode="L")
    options = ["--epochs", "1", "--image-size", "12", "--augmentation", "released"]
    assert cli.run(["train", "--data", "shapes", *options]) == 0
    assert "shapes: 6 training and 4 test images of 1x12x12, 2 classes" in capsys.readouterr().err
    assert Path("runs/shapes-lenet5-pclc/model.safetensors").exists()
