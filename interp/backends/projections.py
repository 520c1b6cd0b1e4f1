"""How blocks read their residual stream in a family that has no row, as far as a run of the model shows it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeVar

from torch import Tensor, nn

from interp.backends.families import Reads, Tap
from interp.backends.heads import LAYOUTS, Heads, values_of
from interp.backends.watching import Seen, close, is_matrix
from interp.shape import Shape

_Option = TypeVar("_Option")


def find_reads(
    blocks: nn.ModuleList, attn_out: Tap, parallel: bool, heads: Heads, shape: Shape, seen: Seen
) -> Reads | None:
    """What reads the stream in every block, and through which norm; None if anything of it was not found.

    Args:
        attn_out: Where what attention adds is, from the block.
        heads: With what attention weighs in every block, and what comes of it.
    """
    every = [
        _Block(block, attn_out, parallel, values, z, shape, seen)
        for block, values, z in zip(blocks, heads.values, heads.z)
    ]
    names = list(every[0].parts)

    def first(holds: Callable[[_Block, _Option], bool], options: Iterable[_Option]) -> _Option | None:
        return next((option for option in options if all(holds(block, option) for block in every)), None)

    way = first(_Block.projects, _ways(names))
    last = first(_Block.ends_in, names)
    if way is None or last is None:
        return None
    attn_norm = first(lambda block, norm: block.passes(norm, block.stream, way[0][0]), ["", *names])
    through = first(lambda block, pair: block.passes(pair[0], block.middle, pair[1]), _through(every[0], names))
    if attn_norm is None or through is None:
        return None
    if not all(block.is_read_by([*way[0], attn_norm, *through]) for block in every):
        return None
    direct = last == attn_out.path
    return Reads(
        way[0], through[1], out=last if direct else "", inner_out="" if direct else last, attn_norm=attn_norm,
        mlp_norm=through[0], layout=way[1], scaling=heads.scaling,
    )  # fmt: skip


def _ways(names: Sequence[str]) -> Iterable[tuple[tuple[str, ...], str]]:
    """Ways in which queries, keys and values may be made: by one matrix, or by three whose names tell."""
    yield from product([(name,) for name in names], LAYOUTS)
    called = lambda letter: [name for name in names if name.rpartition(".")[2].startswith(letter)]
    yield from product(product(called("q"), called("k"), called("v")), LAYOUTS[:1])


def _through(block: "_Block", names: Sequence[str]) -> Iterable[tuple[str, str]]:
    """Norms, or at last none, and modules that may be what the MLP begins with: the outermost first."""
    outside = [name for name in names if "att" not in name]
    yield from product([*(name for name in names if block.norms_middle(name)), ""], outside)


@dataclass(frozen=True)
class _Block:
    """One block, with the values that its attention weighs, and what comes of them."""

    block: nn.Module
    attn_out: Tap
    parallel: bool
    values: Tensor
    z: Tensor
    shape: Shape
    seen: Seen

    @cached_property
    def parts(self) -> dict[str, nn.Module]:
        """The modules that were called, by path."""
        inside = self.block.named_modules()
        return {name: part for name, part in inside if name and part in self.seen.entered and part in self.seen.left}

    @cached_property
    def stream(self) -> Tensor:
        """What enters the block."""
        return self.seen.entered[self.block]

    @cached_property
    def middle(self) -> Tensor:
        """What the MLP reads, before its norm."""
        added = self.seen.left[self.parts[self.attn_out.path]] * self.attn_out.scale
        return self.stream if self.parallel else self.stream + added

    def projects(self, way: tuple[tuple[str, ...], str]) -> bool:
        """Whether some matrices are given the same, and make queries, keys and the values that attention weighs."""
        names, layout = way
        if not all(name in self.parts and is_matrix(self.parts[name]) for name in names):
            return False
        parts = [self.parts[name] for name in names]
        given, made = [self.seen.entered[part] for part in parts], [self.seen.left[part] for part in parts]
        n, n_kv, d = self.shape.n_heads, self.shape.n_kv_heads, self.shape.d_head
        sizes = [(n + 2 * n_kv) * d] if len(names) == 1 else [n * d, n_kv * d, n_kv * d]
        if [x.shape[-1] for x in made] != sizes or any(not close(x, given[0]) for x in given):
            return False
        values = values_of(made[-1], layout, self.shape)
        return values is not None and close(values, self.values)

    def ends_in(self, name: str) -> bool:
        """Whether a module is attention's last matrix: what it returns is added, or enters the norm that adds it."""
        part, end = self.parts.get(name), self.parts[self.attn_out.path]
        if part is None or not is_matrix(part) or not close(self.seen.entered[part], self.z):
            return False
        return part is end or (not is_matrix(end) and close(self.seen.left[part], self.seen.entered[end]))

    def passes(self, norm: str, stream: Tensor, reader: str) -> bool:
        """Whether a module is given a stream as a norm makes it; or, without a norm, as it is."""
        if reader not in self.parts or reader == norm:
            return False
        given = self.seen.entered[self.parts[reader]]
        if not norm:
            return close(given, stream)
        return self._is_norm(norm, stream) and close(given, self.seen.left[self.parts[norm]])

    def norms_middle(self, name: str) -> bool:
        """Whether a module may be the norm through which the MLP reads."""
        return self._is_norm(name, self.middle)

    def _is_norm(self, name: str, stream: Tensor) -> bool:
        """Whether a module is given a stream, returns as much, and has no matrix in it."""
        part = self.parts.get(name)
        if part is None or any(is_matrix(inside) for inside in part.modules()):
            return False
        return close(self.seen.entered[part], stream) and self.seen.left[part].shape == stream.shape

    def is_read_by(self, readers: Sequence[str]) -> bool:
        """Whether nothing is given one of the two streams but some modules and what is inside them."""
        inside = tuple(f"{name}." for name in readers if name)
        streams = (self.stream, self.middle)
        others = [part for name, part in self.parts.items() if name not in readers and not name.startswith(inside)]
        leaves = [part for part in others if next(part.children(), None) is None]
        return not any(close(self.seen.entered[part], x) for part in leaves for x in streams)
