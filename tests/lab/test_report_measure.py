"""What a report measures: slopes, ranks, samples, results put together; what it says is missing."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from report_documents import result
from torch import nn

from pclc_fast.lab import cli
from pclc_fast.lab.attacks import save_result
from pclc_fast.lab.report.document import identifiers
from pclc_fast.lab.report.embedding import embedding
from pclc_fast.lab.report.evaluations import together
from pclc_fast.lab.report.gradients import slopes, summary
from pclc_fast.lab.report.images import data_uri, samples
from pclc_fast.lab.report.ranks import ranks
from pclc_fast.lab.report.results import attacked
from pclc_fast.lab.train_config import TrainConfig


def test_slopes_of_a_linear_model() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(300, 1, 2, 2), torch.arange(300) % 3
    logits = model(images).detach()
    found = slopes(model, images, labels)
    for i in (0, 1, 2, 299):
        y = int(labels[i])
        j = max((k for k in range(3) if k != y), key=lambda k: float(logits[i, k]))
        difference = (model[1].weight[y] - model[1].weight[j]).detach()  # type: ignore[index]
        assert found.lead[i].item() == pytest.approx(float(logits[i, y] - logits[i, j]), abs=1e-6)
        assert found.l2[i].item() == pytest.approx(difference.norm().item(), rel=1e-5)
        assert found.l1[i].item() == pytest.approx(difference.abs().sum().item(), rel=1e-5)
    right = found.lead > 0
    margin = summary(found)["margin"]
    expected = (found.lead[right] / found.l1[right]).mean().item()
    assert (margin["mean"], margin["images"]) == (pytest.approx(expected), 300)
    before = images.clone()
    in_place = slopes(nn.Sequential(nn.Threshold(0.5, 0.0, inplace=True), model), images, labels)
    assert images.equal(before)
    assert in_place.l1.shape == (300,)


@pytest.mark.parametrize(("count", "spread", "first"), [(9, 0.0, 1), (2, 1.0, 1), (9, 1.0, 2)])
def test_features_that_cannot_be_placed(count: int, spread: float, first: int) -> None:
    class Dead:
        def features(self, images: torch.Tensor) -> torch.Tensor:
            return spread * images.flatten(first)

    images, labels = torch.rand(count, 1, 2, 2), torch.zeros(count, dtype=torch.int64)
    assert embedding(Dead(), images, labels, images[:1], labels[:1], 0.3) is None


def test_ranks_count_each_image_once() -> None:
    found = result(epsilons=(0.1, 0.2))
    (sweep,) = (s for s in ranks(found) if s["attack"] == "fgsm")
    first, second = (found.cell("fgsm", epsilon) for epsilon in (0.1, 0.2))
    assert first is not None
    assert second is not None
    newly = set(second.fooled) - set(first.fooled)
    clean, one, two = sweep["steps"]
    assert (clean["newly"], one["newly"], two["newly"]) == (0, len(first.fooled), len(newly))
    names = ("rank 2", "rank 3", "rank 4", "rank 5", "beyond")
    assert sum(two[name] for name in names) == pytest.approx(1)
    order = dict(zip(second.fooled, second.rank, strict=True))
    assert two["rank 2"] == sum(order[i] == 2 for i in newly) / len(newly)
    left = found.clean.correct - len(newly | set(first.fooled))
    assert two["accuracy"] == left / found.clean.images


def test_gradients_by_attack_and_step() -> None:
    (first, *_) = attacked(result(), [])["attacks"]
    shares = [(g["step"], g["taken"], g["zero"], g["vanishing"]) for g in first["gradients"]]
    assert shares == [(1, 80, 2 / 80, 4 / 80), (2, 60, 0, 12 / 60)]  # of two epsilons


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_the_image(channels: int) -> None:
    image = torch.rand(channels, 5, 7)
    uri = data_uri(image)
    assert uri.startswith("data:image/png;base64,")
    shown = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert shown.mode == {1: "L", 3: "RGB"}[channels]
    assert shown.size == (7, 5)
    pixels = torch.tensor(list(shown.tobytes())).reshape(5, 7, channels).permute(2, 0, 1)
    assert pixels.equal(image.mul(255).round().int())


def test_samples_are_of_every_class() -> None:
    found = result(classes=10, images=200)
    chosen = samples(found, torch.rand(200, 1, 4, 4), [f"class-{k}" for k in range(10)])
    assert len(chosen) == 12
    assert {s["label"] for s in chosen} == set(range(10))
    assert all(found.images.label[s["position"]] == s["label"] for s in chosen)


def test_results_of_one_preset_have_different_names() -> None:
    found = together([result(), result(seed=1), dataclasses.replace(result(), preset="released")])
    assert found.preset == "released, paper, paper 2"
    keys = [attack.key for attack in found.attacks]
    assert len(set(keys)) == len(keys) == 9
    topics = [assumption.topic for assumption in found.assumptions]
    assert len(set(topics)) == len(topics) > 2


def test_results_in_another_norm_are_left_out_and_named() -> None:
    main, other = result(), dataclasses.replace(result(), preset="released", norm="L2")
    (caution,) = together([other, main]).cautions[len(main.cautions) :]
    assert caution.message.startswith("What released found in L2 on 60 images is not in this")


def test_results_of_the_same_images_count_together() -> None:
    paper = result(seed=1)
    strong = dataclasses.replace(result(seed=2), preset="strong")
    whole = together([strong, paper])
    assert whole.preset == "paper, strong"
    assert [a.key for a in whole.attacks][::3] == ["paper: fgsm", "strong: fgsm"]
    for epsilon in (0.1, 0.2):
        fooled = {
            i for r in (paper, strong) for c in r.cells if c.within(epsilon) for i in c.fooled
        }
        assert whole.worst_case(epsilon).correct == len(paper.images.correct - fooled)
    assert whole.adversarial is not None
    assert paper.adversarial is not None
    assert strong.adversarial is not None
    positions = set(paper.adversarial.position.tolist()) | set(strong.adversarial.position.tolist())
    assert whole.adversarial.position.tolist() == sorted(positions)
    other = dataclasses.replace(result(images=50), preset="strong")
    assert together([other, paper]).cells == paper.cells  # the one with more images
    fields = attacked(whole, [])
    assert {a["paper"] for a in fields["attacks"]} == {"fgsm", "pgd", None}


@pytest.mark.parametrize("settings", [{"loss": "margin"}, {"loss": "ce", "rescaled": True}])
def test_an_attack_of_another_loss_is_not_the_papers(settings: dict[str, object]) -> None:
    found = result()
    other = [dataclasses.replace(a, settings=settings) for a in found.attacks]
    assert {a["paper"] for a in attacked(found, [])["attacks"]} == {"fgsm", "pgd", None}
    changed = attacked(dataclasses.replace(found, attacks=other), [])
    assert {a["paper"] for a in changed["attacks"]} == {None}


def test_names_are_short_and_different() -> None:
    folders = [Path("/a/b/ce/seed-0"), Path("/a/b/pclc/seed-0"), Path("/a/b/pclc/seed-1")]
    assert identifiers(folders) == ["ce/seed-0", "pclc/seed-0", "pclc/seed-1"]
    assert identifiers([Path("/a/b/ce")]) == ["ce"]


def begin_run(folder: Path) -> None:
    folder.mkdir()
    config = TrainConfig(model="small-cnn", epochs=2, bf16="off", compile="off", out=folder)
    (folder / "config.json").write_text(json.dumps(config.to_json()), encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.5, "seconds": 1.0}\n{"epo')


def test_a_run_killed_while_it_trains(tmp_path: Path) -> None:
    begin_run(tmp_path / "run")
    assert cli.run(["report", str(tmp_path / "run")]) == 0
    document = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    (run,) = document["runs"]
    assert "pclc train --resume" in run["missing"]["gradients"]
    assert run["missing"]["attacked"].startswith("not attacked yet: pclc attack")
    assert (run["training"]["epochs_done"], run["training"]["epochs_planned"]) == (1, 4)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "No attack is finished" in page


def test_a_result_without_a_run_and_one_cut_short(tmp_path: Path) -> None:
    save_result(tmp_path, result())
    begin_run(tmp_path / "seed-1")
    (tmp_path / "seed-1" / "attacks" / "strong" / "attacks.parts").mkdir(parents=True)
    out = tmp_path / "out"
    folders = [str(tmp_path), str(tmp_path / "seed-1")]
    assert cli.run(["report", *folders, "--out", str(out)]) == 0
    document = json.loads((out / "report.json").read_text(encoding="utf-8"))
    alone, cut = document["runs"]
    assert alone["attacked"]["images"] == 60
    assert "say which model it is by --model" in alone["missing"]["audit"]
    assert "the attack is not finished" in cut["missing"]["attacked"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("{0}/nowhere", "is not a folder"),
        ("{0}", "holds neither a run of pclc train nor a result of pclc attack"),
        ("{0} --images 0", "--images must be at least 1; got 0"),
        ("{0} --model a:b", "--model, --weights and --data go together"),
    ],
)
def test_what_cannot_be_reported(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", *arguments.format(tmp_path).split()]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    begin_run(tmp_path / "run")
    (tmp_path / "run" / "attacks.json").write_text("{", encoding="utf-8")
    assert cli.run(["report", str(tmp_path / "run")]) == 0
    document = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert "attacks.json cannot be used" in document["runs"][0]["missing"]["attacked"]
