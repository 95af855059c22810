"""What an evaluation refuses, and what it says of models and data that make its result doubtful."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from quick_attacks import PGD, QUICK
from torch import Tensor, nn

from pclc_fast.lab.attacks import Preset, Spec, attack_images, evaluate, piece
from pclc_fast.lab.attacks.engine import Found, Task


def flat(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes)).eval()


def one(*attacks: str, has_budget: bool = True, **settings: Any) -> Preset:
    """A preset of attacks that all have the same settings."""
    return Preset("p", tuple(Spec(a, a, a, settings, has_budget=has_budget) for a in attacks))


IMAGES, LABELS = torch.full((8, 1, 2, 2), 0.5), torch.zeros(8, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": IMAGES * 255}, ValueError, r"in \[0, 1\]; got values from 127.5 to 127.5"),
        ({"images": IMAGES * 2.0000002}, ValueError, "got values from 1.000000119"),
        ({"images": IMAGES - 1}, ValueError, "normalisation belongs inside the model"),
        ({"images": IMAGES * torch.nan}, ValueError, "got values from nan"),
        ({"images": IMAGES.byte()}, TypeError, r"float32 tensor.*uint8 \(divide by 255\)"),
        ({"images": IMAGES.double()}, TypeError, "got torch.float64"),
        ({"images": IMAGES.numpy()}, TypeError, "got ndarray"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, ValueError, "not empty"),
        ({"labels": LABELS + 3}, ValueError, "labels must be from 0 to 2.*label 0 is 3"),
        ({"labels": LABELS - 1}, ValueError, "label 0 is -1"),
        ({"labels": LABELS[:4]}, ValueError, "one for each of 8 images"),
        ({"labels": LABELS.float()}, TypeError, "integers; got torch.float32"),
        ({"eps": 8}, ValueError, "8 of 255 is 8 / 255"),
        ({"eps": -0.1}, ValueError, "not negative"),
        ({"eps": []}, ValueError, "one or more different numbers"),
        ({"eps": [0.1, 0.1]}, ValueError, "one or more different numbers"),
        ({"eps": float("nan")}, ValueError, "finite"),
        ({"norm": "L1"}, ValueError, "norm must be Linf or L2; got 'L1'"),
        ({"preset": "weak"}, ValueError, "preset must be one of strong, paper, released; got weak"),
        ({"eps": "0.1"}, TypeError, "a number or a list of numbers; got '0.1'"),
        ({"eps": (0.1, None)}, TypeError, "a number or a list of numbers"),
        ({"eps": torch.full((9,), 0.1)}, ValueError, "attack_images takes one for each image"),
        ({"eps": None}, ValueError, "eps must be given: fgsm, pgd, mt, square has none of its own"),
        ({"eps": None, "norm": "L2", "preset": "released"}, ValueError, "none of its own in L2"),
        ({"seed": -1}, ValueError, "seed must be an integer from 0"),
        ({"seed": 0.5}, ValueError, "seed must be an integer from 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer, at least 1; got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be an integer, at least 1; got 2.5"),
        ({"preset": Preset("none", ())}, ValueError, "must have attacks"),
        ({"preset": one("fgsm", "fgsm")}, ValueError, "different keys; got .'fgsm', 'fgsm'."),
        ({"preset": one("pdg")}, ValueError, "the attack must be one of fgsm, .*; got pdg"),
        ({"preset": one("fgsm", loss="none")}, ValueError, "the loss must be one of .*; got none"),
        ({"preset": one("pgd", steps=3)}, TypeError, "settings of pgd: missing .*step_size"),
        ({"preset": one("fgsm", steps=3)}, TypeError, "settings of fgsm: .*unexpected .*steps"),
        ({"preset": one("square", queries=0)}, ValueError, "queries of square must be .* 1; got 0"),
        ({"preset": one("pgd", steps=3, step_size=-0.1)}, ValueError, "step_size .* above 0"),
        ({"preset": one("pgd", steps=3, step_size=torch.nan)}, ValueError, "above 0.*got nan"),
        ({"preset": one("pgd", steps=3, step_size="1")}, ValueError, "above 0.*got '1'"),
        ({"preset": one("fgsm", iterate="Any")}, ValueError, "be any or last; got 'Any'"),
        ({"preset": one("transfer", method="PGD", **PGD)}, ValueError, "be pgd or mim; got 'PGD'"),
        ({"preset": one("apgd", steps=3, targets=-1)}, ValueError, "targets .* least 0; got -1"),
        ({"preset": one("mim", **PGD, decay=-1)}, ValueError, "decay .* not negative.*got -1"),
        ({"preset": one("fgsm", has_budget=False)}, ValueError, "nearest .* leave eps out"),
    ],
)
def test_what_makes_no_sense(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"images": IMAGES, "labels": LABELS, "eps": 0.1, "preset": QUICK, **change}
    with pytest.raises(error, match=message):
        evaluate(flat(), given.pop("images"), given.pop("labels"), **given)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (flat().train(), r"train mode.*Call model.eval\(\) first"),
        (nn.Sequential(flat(), nn.BatchNorm1d(3).train()), "train mode"),
        (lambda x: x.flatten(1)[:, :2] * torch.nan, "logits of 8 of 8 clean images are NaN"),
        (lambda x: x.flatten(1)[:, :2] / 0, r"NaN or \+inf"),
        (lambda x: x.sum(), r"must give logits \[B, classes\] for B images; got \[\]"),
        (lambda x: x.flatten(1)[:4], r"for B images; got \[4, 4\] for \d"),
        (lambda x: (x.flatten(1), None), r"for B images; got tuple for \d"),
        (lambda x: x.flatten(1)[:, :1], "at least 2 classes apart; it has 1"),
        (lambda x: (x > 0.4).flatten(1).float(), "cannot be differentiated"),
        (lambda x: flat()(x.detach()), "cannot be differentiated"),
        (flat().double(), r"cannot take float32 images \[8, 1, 2, 2\], .*dtype"),
        (nn.Sequential(nn.Conv2d(3, 3, 2), nn.Flatten()).eval(), "cannot take .* 3 channels"),
        (lambda x: x[:, [0, 1]].flatten(1), r"cannot take .* of which at most 256 .* index 1"),
        (lambda x: x.tolist()[8], "cannot take .*list index"),
    ],
)
def test_models_that_cannot_be_evaluated(model: Any, message: str) -> None:
    if isinstance(model, nn.Sequential) and len(model) == 2 and "BatchNorm" in str(model):
        model.training = False
    with pytest.raises(ValueError, match=message):
        evaluate(model, IMAGES, LABELS, eps=0.1, preset=QUICK)


@pytest.mark.parametrize("batch_size", [3, 256])  # several batches, or one that is filled up
def test_a_model_that_gives_more_than_logits(batch_size: int) -> None:
    def model(images: Tensor) -> Any:
        return {"logits": images.flatten(1)}

    with pytest.raises(ValueError, match=r"for B images; got dict"):
        evaluate(model, IMAGES[:6], LABELS[:6], eps=0.1, preset=QUICK, batch_size=batch_size)


def test_nothing_can_be_attacked_where_nothing_is_differentiated() -> None:
    with (
        torch.inference_mode(),
        pytest.raises(ValueError, match=r"call this outside of torch.inference_mode"),
    ):
        evaluate(flat(), IMAGES, LABELS, eps=0.1, preset=QUICK)


def test_a_model_that_normalises_in_place_is_evaluated_as_any_other() -> None:
    images, model = torch.rand(8, 1, 2, 2), flat()
    before, labels = images.clone(), model((images - 0.5) / 0.1).argmax(dim=1)
    results = [
        evaluate(m, images, labels, eps=0.05, preset=QUICK)
        for m in (lambda x: model(x.sub_(0.5).div_(0.1)), lambda x: model((x - 0.5) / 0.1))
    ]
    assert images.equal(before)
    assert results[0].minimum_epsilon() == results[1].minimum_epsilon()


def cautions_of(model: Any, labels: Tensor = LABELS, **options: Any) -> dict[str, str]:
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(8, 1, 2, 2, generator=rng)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        result = evaluate(model, images, labels, eps=0.1, preset=QUICK, **options)
    found = {caution.code: caution.message for caution in result.cautions}
    assert [str(w.message) for w in noted] == [f"{c}: {m}" for c, m in found.items()]
    return found


def test_what_changes_the_meaning_of_a_result_is_said() -> None:
    model = flat()
    right = model(torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))).argmax(dim=1)
    assert cautions_of(model, right) == {}
    softmax = cautions_of(lambda x: model(x).softmax(dim=1), right)
    assert "accuracy comes out too high" in softmax["softmax"]
    noisy = cautions_of(lambda x: model(x) + torch.randn(len(x), 3), right)
    assert "answers differently when it is asked again" in noisy["random-forward"]
    mixing = cautions_of(lambda x: model(x) - 9 * model(x).mean(dim=0), right)
    assert "depends on the others in the batch" in mixing["batch-dependent"]
    assert "no more than by guessing" in cautions_of(model, (right + 1) % 3)["clean-accuracy"]
    log_softmax = cautions_of(lambda x: model(x).log_softmax(dim=1), right)
    assert log_softmax == {}  # these are logits


def test_attacks_that_do_not_fit_are_left_out_and_said() -> None:
    images = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = flat(classes=2)
    labels = model(images).argmax(dim=1)
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        result = evaluate(model, images, labels, eps=0.1)
    assert "apgd-t does not run: its loss dlr needs 4 classes" in " ".join(
        str(warning.message) for warning in noted
    )
    keys = {attack.key for attack in result.attacks}
    assert "multi-targeted" in keys
    assert not {"apgd-t", "apgd-dlr"} & keys
    only = Preset("only", (Spec("t", "transfer", "transfer", {"method": "pgd", **PGD}),))
    with pytest.raises(ValueError, match="t cannot be run: it needs a substitute model"):
        evaluate(model, images, labels, eps=0.1, preset=only)
    with pytest.raises(ValueError, match=r"substitute must give logits \[N, 2\]"):
        evaluate(model, images, labels, eps=0.1, preset=only, substitute=flat(3))


def test_an_image_that_breaks_the_model_is_not_fooled_by_that() -> None:
    """Logits that are NaN have an argmax too."""

    def model(images: Tensor) -> Tensor:
        total = images.flatten(1).sum(dim=1, keepdim=True)
        broken = torch.where(total > 2.1, torch.nan, 0.0)
        return torch.cat([total * 0 + 1, -total, -total], dim=1) + broken

    with pytest.warns(UserWarning, match="nan-logits: .* the accuracy may come out too high"):
        result = evaluate(model, IMAGES, LABELS, eps=0.3, preset=QUICK)
    assert [caution.code for caution in result.cautions] == ["nan-logits"]
    assert result.worst_case(0.3).correct == 8


def test_a_success_that_is_not_repeated_does_not_count() -> None:
    """What was misclassified once, in training noise, is looked at again before it is stored."""
    calls = 0

    def model(images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        flip = -1.0 if calls == 8 else 1.0  # in the middle of the attack
        x = images.flatten(1)
        return flip * torch.stack([x[:, 0] + 5, x[:, 1], x[:, 2]], dim=1)

    only = Preset("only", (Spec("pgd", "PGD", "pgd", PGD),))
    result = evaluate(model, IMAGES, LABELS, eps=0.1, preset=only)
    assert result.cells[0].rejected == 8
    assert result.worst_case(0.1).correct == 8


@pytest.mark.parametrize(
    ("at", "moved"), [(0.5, 0.7), (0.95, 1.05), (0.05, -0.05), (0.5, torch.nan)]
)
def test_what_leaves_the_budget_or_the_pixels_does_not_count(
    monkeypatch: pytest.MonkeyPatch, at: float, moved: float
) -> None:
    """An attack that does what none may: too far, out of [0, 1], no number."""

    def astray(_spec: Spec, task: Task) -> Found:
        found, images = Found.nothing(task, 1), torch.full_like(task.images, moved)
        return found._replace(fooled=~found.fooled, images=images, step=found.step + 1)

    def model(images: Tensor) -> Tensor:
        apart = (images.flatten(1).nan_to_num(2.0).mean(dim=1) - at).abs()
        return torch.stack([apart * 0 + 0.02, apart], dim=1)

    images, only = torch.full_like(IMAGES, at), Preset("p", (Spec("pgd", "PGD", "pgd", PGD),))
    assert evaluate(model, images, LABELS, eps=0.15, preset=only).worst_case(0.15).correct == 0
    monkeypatch.setattr(piece, "run", astray)
    result = evaluate(model, images, LABELS, eps=0.15, preset=only)
    assert result.cells[0].rejected == 8
    assert result.worst_case(0.15).correct == 8


def test_what_carlini_and_wagner_never_fool_is_not_rejected() -> None:
    def model(images: Tensor) -> Tensor:
        zero = images.flatten(1).sum(dim=1) * 0
        return torch.stack([zero + 2, zero, zero], dim=1)

    settings = {"steps": 5, "lr": 0.01, "search_steps": 2}
    spec = Spec("cw", "C&W", "cw", settings, norm="L2", has_budget=False)
    result = evaluate(model, IMAGES, LABELS, eps=None, preset=Preset("cw", (spec,)))
    assert (result.cells[0].fooled, result.cells[0].rejected) == ([], 0)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_no_more_than_a_batch_goes_through_the_model(batch_size: int) -> None:
    """Not even where the attempts at one image are more."""
    sizes: list[int] = []

    def model(images: Tensor) -> Tensor:
        sizes.append(len(images))
        x = images.flatten(1)
        return torch.stack([x[:, i] + 0.2 * (i == 0) for i in range(4)], dim=1)

    result = evaluate(model, IMAGES, LABELS, eps=[0.05, 0.3], batch_size=batch_size)
    assert max(sizes) == batch_size
    assert (result.worst_case(0.05).correct, result.worst_case(0.3).correct) == (8, 0)


def test_images_of_one_s_own_are_checked_as_well() -> None:
    model, wider = flat(), flat(classes=4)
    options: dict[str, Any] = {"epsilon": 0.1, "method": "pgd", **PGD}
    with pytest.raises(ValueError, match=r"substitute must give logits \[N, 3\]"):
        attack_images(model, IMAGES, LABELS, "transfer", substitute=wider, **options)
    with pytest.raises(ValueError, match="train mode"):
        attack_images(model, IMAGES, LABELS, "transfer", substitute=flat().train(), **options)
    found = attack_images(model, IMAGES, LABELS.to(torch.uint16), "fgsm", epsilon=0.1)
    assert found.fooled.equal(attack_images(model, IMAGES, LABELS, "fgsm", epsilon=0.1).fooled)
    with torch.inference_mode():
        frozen = IMAGES + 0.1
    with pytest.raises(ValueError, match=r"under torch.inference_mode.*images.clone"):
        attack_images(model, frozen, LABELS, "fgsm", epsilon=0.1)


def test_where_every_image_is_wrong_there_is_nothing_to_attack() -> None:
    model = flat()
    wrong = (model(IMAGES).argmax(dim=1) + 1) % 3
    with pytest.warns(UserWarning, match="no more than by guessing"):
        result = evaluate(model, IMAGES, wrong, eps=0.1, preset=QUICK)
    assert result.clean.correct == result.worst_case(0.1).correct == 0
    assert result.minimum_epsilon() == [0.0] * 8
    assert all(cell.attempted == [] for cell in result.cells)
    assert result.adversarial is not None
    assert result.adversarial.images.shape == (0, 1, 2, 2)
