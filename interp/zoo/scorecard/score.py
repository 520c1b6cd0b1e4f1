"""Score every method: in sections, each of which can be run alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from interp.backends import load
from interp.model import Model
from interp.progress import Progress, bar
from interp.zoo import compiled
from interp.zoo.handset import HANDSET
from interp.zoo.scorecard import edges, embedded, planted
from interp.zoo.scorecard.rows import Row

_SMALL = ("induction", "copying", "histogram")


@dataclass(frozen=True)
class Size:
    """How much is tried.

    Attributes:
        known: Models of which every edge is known; None for all.
        pairs: Prompt pairs of each task of the embedded model.
        draws: Tries without an effect.
    """

    known: tuple[str, ...] | None = None
    pairs: int = 64
    draws: int = 200


SMALL = Size(_SMALL, 8, 4)


def _edges(model: Model, size: Size, seed: int) -> Iterator[Row]:
    for name, make in HANDSET.items():
        if size.known is None or name in size.known:
            yield from edges.rows(make(), seed)
    for name, program in compiled.PROGRAMS.items():
        if size.known is None or name in size.known:
            yield from edges.rows(compiled.known(program(), seed=seed), seed)


def _estimates(model: Model, size: Size, seed: int) -> Iterator[Row]:
    yield from embedded.edges(model)
    yield from embedded.nodes(model, size.pairs, seed)


def _planted(model: Model, size: Size, seed: int) -> Iterator[Row]:
    yield from planted.directions(seed)
    yield from planted.decodable_or_used(seed)
    yield from planted.repair(seed)


def _nulls(model: Model, size: Size, seed: int) -> Iterator[Row]:
    yield from planted.stars(model, size.pairs, size.draws, seed)
    yield from planted.probes(model, size.draws, seed)


def _concepts(model: Model, size: Size, seed: int) -> Iterator[Row]:
    yield from embedded.concepts(model, seed)


def _sums(model: Model, size: Size, seed: int) -> Iterator[Row]:
    yield from embedded.sums(model, min(size.pairs, 16), seed)
    yield from embedded.directions_agree(model, size.pairs, seed)


SECTIONS: Mapping[str, Callable[[Model, Size, int], Iterator[Row]]] = {
    "edges": _edges, "estimates": _estimates, "planted": _planted,
    "concepts": _concepts, "nulls": _nulls, "sums": _sums,
}  # fmt: skip


def score(size: Size = Size(), seed: int = 0, progress: Progress = None) -> list[Row]:
    """Every method against every known answer; about three minutes on two cores, a small size in one."""
    model = load()
    rows: list[Row] = []
    with bar(len(SECTIONS), "sections", progress) as advance:
        for section in SECTIONS.values():
            rows += section(model, size, seed)
            advance(1)
    return rows
