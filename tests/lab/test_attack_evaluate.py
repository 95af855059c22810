"""An evaluation as a whole: what it counts, what it refuses, how it goes on after it was killed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick_attacks import QUICK
from torch import Tensor, nn

from pclc_fast.lab.attacks import Preset, Result, Spec, evaluate, load_result, save_result
from pclc_fast.lab.attacks.balls import distances
from pclc_fast.lab.attacks.pieces import PiecesInFolder
from pclc_fast.lab.attacks.presets import find_preset
from pclc_fast.lab.digits import DigitsData
from pclc_fast.lab.models import small_cnn

EPSILONS = [0.05, 0.1]


@pytest.fixture(scope="module")
def shown(data: DigitsData) -> tuple[Tensor, Tensor]:
    return data.test_images[:150], data.test_labels[:150]


@pytest.fixture(scope="module")
def result(undefended: nn.Module, shown: tuple[Tensor, Tensor]) -> Result:
    return evaluate(undefended, *shown, eps=EPSILONS, preset=QUICK)


def test_every_stored_image_is_what_it_is_said_to_be(
    result: Result, undefended: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    kept = result.adversarial
    assert kept is not None
    assert len(kept.images) == 150 - result.worst_case(0.1).correct - (150 - result.clean.correct)
    clean = shown[0][kept.position]
    assert kept.images.dtype == torch.float32
    assert kept.images.min() >= 0
    assert kept.images.max() <= 1
    assert (distances("Linf", kept.images, clean) <= kept.epsilon).all()
    predicted = undefended(kept.images).argmax(dim=1)
    assert predicted.equal(kept.predicted)
    assert (predicted != shown[1][kept.position]).all()
    minimum = result.minimum_epsilon()
    assert [minimum[i] for i in kept.position.tolist()] == kept.epsilon.tolist()


def test_the_cells_add_up(
    result: Result, undefended: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    with torch.no_grad():
        logits = undefended(shown[0])
    order = logits.argsort(dim=1, descending=True)
    correct = set((logits.argmax(dim=1) == shown[1]).nonzero()[:, 0].tolist())
    assert result.images.correct == correct
    standing = correct
    for cell in result.cells:
        assert set(cell.attempted) == standing
        assert set(cell.fooled) <= standing
        standing = standing - set(cell.fooled)
        for image, predicted, rank in zip(cell.fooled, cell.predicted, cell.rank, strict=True):
            assert order[image, rank - 1] == predicted
            assert rank >= 2
        assert all(d <= cell.epsilon for d in cell.distance)  # type: ignore[operator]
        assert cell.counts.forwards <= cell.counts.naive_forwards + 3 * len(cell.fooled)
        assert cell.rejected == 0
    assert len(standing) == result.worst_case(0.1).correct
    assert [key for key, _ in result.cumulative_shares(0.1)] == ["fgsm", "pgd", "mt", "square"]
    assert result.cumulative_shares(0.1)[-1][1] == result.worst_case(0.1)
    classes = result.per_class(0.1)
    assert sum(share.correct for share in classes.values()) == result.worst_case(0.1).correct
    assert sum(share.images for share in classes.values()) == 150
    low, high = result.worst_case(0.05).wilson_95
    assert low < result.worst_case(0.05).accuracy < high


def test_survivors_alone_give_the_answer_that_all_images_give(
    result: Result, undefended: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    apart = dataclasses.replace(QUICK, cumulative=False, carry=False)
    whole = evaluate(undefended, *shown, eps=EPSILONS, preset=apart)
    assert whole.minimum_epsilon() == result.minimum_epsilon()
    cost, economic = (sum(c.counts.forwards for c in r.cells) for r in (whole, result))
    assert economic < cost
    for cell in whole.cells:
        alone = whole.alone(cell)
        assert alone is not None
        assert alone.correct == whole.clean.correct - len(cell.fooled)
    assert result.alone(result.cells[-1]) is None


def test_the_same_seed_repeats_exactly_whatever_the_batch(
    result: Result, undefended: nn.Module, shown: tuple[Tensor, Tensor]
) -> None:
    def again(**options: Any) -> Result:
        return evaluate(undefended, *shown, eps=EPSILONS, preset=QUICK, **options)

    def found(result: Result) -> list[Any]:
        return [(c.attempted, c.fooled, c.predicted, c.step, c.distance) for c in result.cells]

    same = again(batch_size=np.int64(64), seed=np.int64(0))
    assert found(same) == found(result)
    assert type(same.seed) is type(same.batch_size) is int  # as JSON needs them
    other = again(seed=1)
    assert found(other) != found(result)


def test_a_result_survives_the_disk(result: Result, tmp_path: Path) -> None:
    save_result(tmp_path, result)
    back = load_result(tmp_path)
    assert back == result
    assert back.adversarial is not None
    assert result.adversarial is not None
    for a, b in zip(back.adversarial, result.adversarial, strict=True):
        assert a.equal(b)
    document = json.loads((tmp_path / "attacks.json").read_text(encoding="utf-8"))
    assert document["summary"]["worst_case"][0]["correct"] == result.worst_case(0.05).correct
    images = (tmp_path / "adversarial.safetensors").read_bytes()
    moved = back.adversarial._replace(position=back.adversarial.position + 1)
    save_result(tmp_path, dataclasses.replace(result, adversarial=moved))
    with pytest.raises(ValueError, match=r"safetensors cannot be used: its images are not those"):
        load_result(tmp_path)
    (tmp_path / "adversarial.safetensors").write_bytes(images)
    for name, value in (("seed", "0"), ("epsilons", ["a"]), ("images", []), ("cells", None)):
        (tmp_path / "attacks.json").write_text(json.dumps({**document, name: value}))
        with pytest.raises(ValueError, match=r"attacks\.json cannot be used"):
            load_result(tmp_path)
    document["cells"][0]["fooled"][0] = 1000
    (tmp_path / "attacks.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"attacks\.json cannot be used: list index out of range"):
        load_result(tmp_path)
    save_result(tmp_path, result)
    (tmp_path / "adversarial.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"adversarial\.safetensors cannot be used"):
        load_result(tmp_path)
    (tmp_path / "attacks.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="not of the format pclc-attacks-1"):
        load_result(tmp_path)


class Interrupt:
    """A watch that pulls the plug after so many batches."""

    def __init__(self, after: int) -> None:
        self.left = after

    def begin(self, total: int) -> None:
        pass

    def finished(self, line: str) -> None:
        pass

    def advance(self, images: int, doing: str) -> None:  # noqa: ARG002
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_what_was_finished_is_not_done_again(
    undefended: nn.Module, data: DigitsData, tmp_path: Path
) -> None:
    after = 9
    looked = 0

    class Counting(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            nonlocal looked
            looked += len(images)
            return undefended(images)

    images, labels = data.test_images[:60], data.test_labels[:60]
    options: dict[str, Any] = {"eps": EPSILONS, "preset": QUICK, "batch_size": 20}
    model = Counting().eval()
    whole = evaluate(model, images, labels, **options)
    cost, looked = looked, 0
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            model,
            images,
            labels,
            pieces=PiecesInFolder(tmp_path),
            watch=Interrupt(after),
            **options,
        )
    first, looked = looked, 0
    pieces = PiecesInFolder(tmp_path)
    assert 1 < pieces.count() <= after
    resumed = evaluate(model, images, labels, pieces=pieces, **options)
    checks = looked + first - cost  # the clean images and what is asked of the model beforehand
    assert 0 < checks < 400
    for a, b in zip(resumed.cells, whole.cells, strict=True):
        assert dataclasses.replace(a, seconds=0) == dataclasses.replace(b, seconds=0)
    assert resumed.seconds > sum(cell.seconds for cell in resumed.cells)
    assert resumed.adversarial is not None
    assert whole.adversarial is not None
    assert resumed.adversarial.images.equal(whole.adversarial.images)
    with pytest.raises(ValueError, match="beginning of another evaluation: seed differ"):
        evaluate(model, images, labels, pieces=pieces, seed=1, **options)
    damaged = next(pieces.path.glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"{damaged.name} cannot be used"):
        evaluate(model, images, labels, pieces=pieces, **options)


def test_with_another_substitute_it_does_not_go_on(
    undefended: nn.Module, data: DigitsData, tmp_path: Path
) -> None:
    images, labels = data.test_images[:20], data.test_labels[:20]
    options = {"method": "pgd", "steps": 2, "step_size": 0.1}
    preset = Preset("p", (Spec("t", "transfer", "transfer", options),))

    def attacked(substitute: nn.Module) -> Result:
        pieces = PiecesInFolder(tmp_path)
        return evaluate(
            undefended, images, labels, eps=0.1, preset=preset, substitute=substitute, pieces=pieces
        )

    result = attacked(small_cnn(seed=1).eval())
    assert len(result.model.facts["substitute"]) == 64
    with pytest.raises(ValueError, match="beginning of another evaluation: substitute differ"):
        attacked(small_cnn(seed=2).eval())


def test_a_preset_brings_its_own_budgets(undefended: nn.Module, data: DigitsData) -> None:
    images, labels = data.test_images[:40], data.test_labels[:40]
    paper = find_preset("paper", (1, 8, 8), 10)
    few = tuple(spec for spec in paper.specs if spec.key in ("fgsm", "cw-100"))
    few = tuple(
        dataclasses.replace(
            s, settings={**s.settings, "first_c": 1.0, "search_steps": 2, "lr": 0.05}
        )
        if s.key == "cw-100"
        else s
        for s in few
    )
    result = evaluate(
        undefended, images, labels, eps=None, preset=dataclasses.replace(paper, specs=few)
    )
    assert result.epsilons == [0.1, 0.2, 0.3]
    free = result.cell("cw-100", None)
    assert free is not None
    assert free.norm == "L2"
    assert len(free.fooled) > 20
    assert len(free.distance) == len(free.fooled)
    # What is fooled without a budget, in another norm, says nothing about a budget.
    assert result.worst_case(0.1).correct == result.clean.correct - len(result.cells[0].fooled)
    free_only = dataclasses.replace(paper, specs=few[1:])
    alone = evaluate(undefended, images, labels, eps=None, preset=free_only)
    assert alone.epsilons == []
    assert alone.cells[0].distance == free.distance


def test_neither_images_nor_model_are_touched(undefended: nn.Module, data: DigitsData) -> None:
    images = data.test_images[:20].clone().requires_grad_()
    undefended.zero_grad()
    evaluate(undefended, images, data.test_labels[:20], eps=0.1, preset=QUICK)
    assert images.equal(data.test_images[:20])
    assert images.grad is None
    assert all(parameter.grad is None for parameter in undefended.parameters())
    assert all(parameter.requires_grad for parameter in undefended.parameters())


def test_in_l2_too(undefended: nn.Module, data: DigitsData) -> None:
    images, labels = data.test_images[:60], data.test_labels[:60]
    with pytest.warns(UserWarning, match="square does not run: it is defined for Linf only"):
        result = evaluate(undefended, images, labels, eps=[0.2, 0.4], norm="L2", preset=QUICK)
    kept = result.adversarial
    assert kept is not None
    assert 0 < len(kept.images) < 60
    assert (distances("L2", kept.images, images[kept.position]) <= kept.epsilon).all()
