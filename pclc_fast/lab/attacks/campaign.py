"""The attacks of a preset, one after the other, each on the images it is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .engine import rank_of
from .network import equal_parts
from .piece import Piece, Subjects, attack_piece
from .pieces import Pieces
from .preset import Preset, Spec
from .result import Adversarial, Cell, Counts, Norm
from .tracing import answered_with_nan, trace


class Watch(Protocol):
    """Is told how an evaluation goes."""

    def begin(self, total: int) -> None:
        """``total`` times an image will be attacked, or left out because it is fooled already."""

    def advance(self, images: int, doing: str) -> None:
        """So many of them are done."""

    def finished(self, line: str) -> None:
        """An attack is finished at an epsilon."""


class Silent:
    """Watches nothing."""

    def begin(self, total: int) -> None:
        pass

    def advance(self, images: int, doing: str) -> None:
        pass

    def finished(self, line: str) -> None:
        pass


class Stop(NamedTuple):
    """One attack at one epsilon; None: it has no budget."""

    spec: Spec
    epsilon: float | None
    norm: Norm

    @property
    def name(self) -> str:
        return self.spec.key if self.epsilon is None else f"{self.spec.key} at {self.epsilon:g}"


def schedule(
    preset: Preset, eps: Sequence[float] | None, norm: Norm
) -> tuple[list[Stop], list[float]]:
    """What runs, the smallest epsilon first, and the epsilons.

    Raises:
        ValueError: none were asked for, and an attack has none of its own; or the other way round.
    """
    bounded = [spec for spec in preset.specs if spec.has_budget]
    bare = [s.key for s in bounded if not s.epsilons or (s.norm is None and norm != "Linf")]
    if eps is None and bare:
        raise ValueError(f"eps must be given: {', '.join(bare)} has none of its own in {norm}")
    if eps is not None and not bounded:
        free = ", ".join(spec.key for spec in preset.specs)
        raise ValueError(
            f"{free} looks for the nearest image that fools, however far, so an epsilon would say "
            "nothing: leave eps out (None), or add an attack that has a budget"
        )
    epsilons = sorted(set().union(*(s.epsilons for s in bounded)) if eps is None else eps)
    stops = [
        Stop(spec, epsilon, spec.norm or norm)
        for epsilon in epsilons
        for spec in bounded
        if eps is not None or epsilon in spec.epsilons
    ]
    stops += [Stop(s, None, s.norm or norm) for s in preset.specs if not s.has_budget]
    return stops, epsilons


class Campaign:
    """Runs the stops of a schedule and keeps account of what stands."""

    def __init__(
        self, subjects: Subjects, preset: Preset, norm: Norm, pieces: Pieces, watch: Watch
    ) -> None:
        self._subjects, self._preset, self._norm = subjects, preset, norm
        self._pieces, self._watch = pieces, watch
        self._correct = subjects.logits.argmax(dim=1) == subjects.labels
        self._fooled = torch.zeros_like(self._correct)  # within a budget, by anything so far
        self._by_attack: dict[str, Tensor] = {}
        self.lost_looks = 0  # at attacked images, that the model answered with NaN
        self.seconds_before = 0.0  # that the pieces took which an earlier evaluation left
        self._order = {spec.key: number for number, spec in enumerate(preset.specs)}
        self._kept: list[tuple[Piece, Tensor, float, int]] = []  # which lines of it are the first

    def run(self, stops: list[Stop]) -> list[Cell]:
        """Run them all."""
        self._watch.begin(len(stops) * len(self._correct))
        return [self._run(stop) for stop in stops]

    def adversarial(self) -> Adversarial:
        """The first image that fooled within a budget, for each image that was fooled."""
        images = [piece.images[lines] for piece, lines, _, _ in self._kept]
        counts = torch.tensor([len(lines) for _, lines, _, _ in self._kept], dtype=torch.int64)
        epsilons = torch.tensor([e for _, _, e, _ in self._kept], dtype=torch.float64)
        attacks = torch.tensor([a for *_, a in self._kept], dtype=torch.int64)
        none = self._subjects.images[:0].cpu()
        position = _joined([piece.fooled[lines] for piece, lines, _, _ in self._kept])
        order = position.argsort()
        return Adversarial(
            torch.cat([none, *images])[order],
            position[order],
            epsilons.repeat_interleave(counts)[order],
            _joined([piece.predicted[lines] for piece, lines, _, _ in self._kept])[order],
            attacks.repeat_interleave(counts)[order],
        )

    def _standing(self, spec: Spec) -> Tensor:
        """The positions that an attack is to be tried on: [n], int64."""
        left = self._correct.clone()
        if self._preset.cumulative:
            left &= ~self._fooled
        if self._preset.carry and spec.key in self._by_attack:
            left &= ~self._by_attack[spec.key]
        return left.nonzero().squeeze(1)

    def _run(self, stop: Stop) -> Cell:
        lines = self._standing(stop.spec)
        parts = equal_parts(lines, self._subjects.network.together) if len(lines) else ()
        done = []
        for number, part in enumerate(parts):
            done.append(self._piece(stop, part, number))
            self._watch.advance(len(part), stop.name)
        self._watch.advance(len(self._correct) - len(lines), stop.name)
        cell = _cell(stop, done, self._subjects)
        self._account(stop, done)
        seconds = f"{cell.seconds:.1f} s"
        self._watch.finished(
            f"{stop.name}: {len(cell.fooled)} of {len(lines)} fooled in {seconds}"
            + (f", {int((self._correct & ~self._fooled).sum())} stand" if stop.epsilon else "")
        )
        return cell

    def _piece(self, stop: Stop, lines: Tensor, number: int) -> Piece:
        name = f"{stop.spec.key}-{'free' if stop.epsilon is None else stop.epsilon!r}-{number:04d}"
        kept = self._pieces.get(name)
        if kept is not None and kept.attempted.equal(lines.cpu()):
            self.seconds_before += kept.costs()["seconds"]
            return kept
        piece = attack_piece(self._subjects, lines, stop.spec, stop.norm, stop.epsilon)
        self._pieces.put(name, piece)
        return piece

    def _account(self, stop: Stop, pieces: list[Piece]) -> None:
        own = self._by_attack.setdefault(stop.spec.key, torch.zeros_like(self._correct))
        for piece in pieces:
            self.lost_looks += answered_with_nan(piece.sums)
            positions = piece.fooled.to(own.device)
            own[positions] = True
            if stop.epsilon is not None and stop.norm == self._norm:
                is_new = ~self._fooled[positions]
                self._fooled[positions] = True
                lines = is_new.nonzero().squeeze(1).cpu()
                self._kept.append((piece, lines, stop.epsilon, self._order[stop.spec.key]))


def _cell(stop: Stop, pieces: list[Piece], subjects: Subjects) -> Cell:
    fooled = _joined([piece.fooled for piece in pieces])
    predicted = _joined([piece.predicted for piece in pieces])
    costs = [piece.costs() for piece in pieces]
    total = {name: sum(cost[name] for cost in costs) for name in (costs[0] if costs else {})}
    sums = torch.stack([piece.sums for piece in pieces]).sum(dim=0) if pieces else None
    ranks = rank_of(subjects.logits.cpu()[fooled], predicted)
    return Cell(
        attack=stop.spec.key,
        norm=stop.norm,
        epsilon=stop.epsilon,
        attempted=_joined([piece.attempted for piece in pieces]).tolist(),
        fooled=fooled.tolist(),
        predicted=predicted.tolist(),
        rank=ranks.tolist(),
        step=_joined([piece.step for piece in pieces]).tolist(),
        distance=[float(f"{d:.8g}") for piece in pieces for d in piece.distance.tolist()],
        rejected=int(total.get("rejected", 0)),
        counts=Counts(
            *(int(total.get(name, 0)) for name in Counts.__dataclass_fields__),
        ),
        trace=trace(sums),
        seconds=round(total.get("seconds", 0.0), 3),
    )


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0, dtype=torch.int64), *parts])
