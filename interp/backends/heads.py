"""How the heads of a model can be seen whose family has no row: through transformers' interface, or at its modules.

What is seen through the interface must be what the model works with. Of attention that is written out, `z` must be the
values at the first position, and a pattern must make `z` of the values everywhere.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.attention import Watch, watched
from interp.backends.families import ATTENTION_KINDS, Tap
from interp.backends.watching import Seen, close, is_matrix, run
from interp.locks import lock_of
from interp.shape import Shape

NOT_A_SOFTMAX = "attention spelled out as a softmax of scores gives other logits"


@dataclass(frozen=True)
class Heads:
    """What was found.

    Attributes:
        path: Of the module that calls transformers' attention interface in every block, once; None if there is none.
        taps: Where kinds of site are, if not there.
        lacks: Kinds that cannot be had, and why.
        values: What attention weighs in each block, (batch, kv_head, pos, d), if it was found.
        z: What comes of it, (batch, pos, features).
        scaling: What products of queries and keys are multiplied by, if that was found.
    """

    path: str | None = None
    taps: Mapping[str, Tap] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    values: tuple[Tensor, ...] = ()
    z: tuple[Tensor, ...] = ()
    scaling: float | None = None


def find_heads(module: nn.Module, blocks: nn.ModuleList, attn_out: Tap | None, shape: Shape, seen: Seen) -> Heads:
    """How the heads of every block can be seen.

    Args:
        attn_out: Where attention's output is, if it was found.
        seen: A run of the model.
    """
    calls: Counter[nn.Module] = Counter()
    values, z = {}, {}  # type: dict[nn.Module, Tensor], dict[nn.Module, Tensor]
    watches = {part: _noting(part, calls, values, z) for block in blocks for part in block.modules()}
    try:
        with lock_of(module), watched(module, watches):
            run(module)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever it raises, it does not work with our attention
        calls.clear()
    if not calls:
        return Heads() if attn_out is None else _at_modules(blocks, attn_out.path, shape, seen)
    paths = {tuple((name, calls[part]) for name, part in block.named_modules() if calls[part]) for block in blocks}
    if len(paths) > 1 or [count for _, count in next(iter(paths))] != [1]:
        why = "not every block calls transformers' attention interface once"
        return Heads(lacks=dict.fromkeys(ATTENTION_KINDS, why))
    ((path, _),) = next(iter(paths))
    attentions = [block.get_submodule(path) for block in blocks]
    alike = spelled_out(module, attentions, seen.logits)
    lacks = {} if alike else {"scores": NOT_A_SOFTMAX, "pattern": NOT_A_SOFTMAX}
    return Heads(path, lacks=lacks, values=tuple(values[x] for x in attentions), z=tuple(z[x] for x in attentions))


def _noting(
    part: nn.Module, calls: Counter[nn.Module], values: dict[nn.Module, Tensor], z: dict[nn.Module, Tensor]
) -> Watch:
    def weighed(value: Tensor) -> Tensor:
        calls[part] += 1
        values[part] = value.transpose(1, 2)
        return value

    def left(value: Tensor) -> Tensor:
        z[part] = value.flatten(2)
        return value

    return Watch({"v": weighed, "z": left})


def spelled_out(module: nn.Module, attentions: list[nn.Module], wanted: Tensor) -> bool:
    """Whether a model's attention is the softmax of scores that we compute where these are asked for."""
    watch = Watch({"scores": lambda scores: scores, "pattern": lambda pattern: pattern})
    try:
        with lock_of(module), watched(module, dict.fromkeys(attentions, watch)):
            logits = run(module)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False
    return close(logits, wanted)


def _at_modules(blocks: nn.ModuleList, out: str, shape: Shape, seen: Seen) -> Heads:
    """Heads of attention that is written out: `z` enters its last matrix; a pattern may leave a dropout."""
    inside = [name for name, _ in blocks[0].named_modules() if name.startswith(out.rpartition(".")[0] + ".")]
    every = [_Attention(dict(block.named_modules()), out, shape, seen) for block in blocks]
    ways = product(inside, LAYOUTS)
    made = next((way for way in ways if all(attention.begins_with(*way) for attention in every)), None)
    if made is None:
        return Heads()
    values = tuple(attention.values(*made) for attention in every)
    z = tuple(seen.entered[attention.parts[out]] for attention in every)
    taps = {"z": Tap(out, "input", heads=True)} | ({"v": Tap(made[0], heads=True)} if every[0].alone(made[0]) else {})
    pattern = next((name for name in inside if all(attention.weighs(name, *made) for attention in every)), None)
    if pattern is None:
        return Heads(None, taps, values=values, z=z)  # type: ignore[arg-type]
    taps["pattern"] = Tap(pattern)
    trials = product(inside, inside, (1.0, shape.d_head**-0.5))
    found = next((trial for trial in trials if all(attention.scores(*trial, pattern) for attention in every)), None)
    if found is None:
        return Heads(None, taps, values=values, z=z)  # type: ignore[arg-type]
    q, k, scaling = found
    taps |= {"q": Tap(q, heads=True), "k": Tap(k, heads=True)}
    return Heads(None, taps, values=values, z=z, scaling=scaling)  # type: ignore[arg-type]


LAYOUTS = ("part head d", "head part d")  # the order of q, k, v, head and feature in what one matrix for all returns


def values_of(made: Tensor, layout: str, shape: Shape) -> Float[Tensor, "batch kv_head pos d"] | None:
    """The values in what a matrix returns, for them alone or for queries and keys, too; None if its size is another."""
    n, n_kv, d = shape.n_heads, shape.n_kv_heads, shape.d_head
    if made.ndim != 3 or made.shape[-1] not in (n_kv * d, (n + 2 * n_kv) * d):
        return None
    if made.shape[-1] == n_kv * d or layout == "part head d":
        return rearrange(made[..., -n_kv * d :], "batch pos (head d) -> batch head pos d", d=d)
    if n != n_kv:
        return None
    return rearrange(made, f"batch pos ({layout}) -> part batch head pos d", part=3, d=d)[-1]


@dataclass(frozen=True)
class _Attention:
    """The attention of one block whose last matrix is at a path."""

    parts: Mapping[str, nn.Module]
    out: str
    shape: Shape
    seen: Seen

    def begins_with(self, made: str, layout: str) -> bool:
        """Whether `z` is, at the first position, which sees itself alone, the values in what a module returns."""
        values, z = self.values(made, layout), self._of(self.seen.entered, self.out)
        if values is None or z is None:
            return False
        return close(rearrange(self._for_queries(values)[:, :, 0], "batch head d -> batch (head d)"), z[:, 0])

    def weighs(self, pattern: str, made: str, layout: str) -> bool:
        """Whether what one module returns weighs the values in what another returns, and makes `z` of them."""
        weights, values, z = self._pattern(pattern), self.values(made, layout), self._of(self.seen.entered, self.out)
        if weights is None or values is None or z is None:
            return False
        return close(rearrange(weights @ self._for_queries(values), "batch head pos d -> batch pos (head d)"), z)

    def scores(self, q: str, k: str, scaling: float, pattern: str) -> bool:
        """Whether what two modules return are the queries and the keys of a pattern."""
        weights, queries, keys = self._pattern(pattern), self._heads(q), self._heads(k)
        if weights is None or queries is None or keys is None or queries.shape[1] != self.shape.n_heads:
            return False
        if keys.shape[1] != self.shape.n_kv_heads:
            return False
        scores = queries @ self._for_queries(keys).mT * scaling
        return close(scores.masked_fill(weights == 0, -torch.inf).softmax(-1), weights)

    def values(self, name: str, layout: str) -> Tensor | None:
        """The values in what a matrix returns."""
        made = self._of(self.seen.left, name)
        return None if made is None or not is_matrix(self.parts[name]) else values_of(made, layout, self.shape)

    def alone(self, name: str) -> bool:
        """Whether a matrix makes values and nothing else."""
        return self.seen.left[self.parts[name]].shape[-1] == self.shape.n_kv_heads * self.shape.d_head

    def _heads(self, name: str) -> Tensor | None:
        made, d = self._of(self.seen.left, name), self.shape.d_head
        if made is None or made.ndim != 3 or made.shape[-1] % d or not is_matrix(self.parts[name]):
            return None
        return rearrange(made, "batch pos (head d) -> batch head pos d", d=d)

    def _pattern(self, name: str) -> Tensor | None:
        made = self._of(self.seen.left, name)
        whole = made is not None and made.ndim == 4 and made.shape[1] == self.shape.n_heads
        return made if whole else None

    def _for_queries(self, kept: Tensor) -> Tensor:
        return kept.repeat_interleave(self.shape.n_heads // self.shape.n_kv_heads, dim=1)

    def _of(self, tensors: Mapping[nn.Module, Tensor], name: str) -> Tensor | None:
        part = self.parts.get(name)
        return None if part is None else tensors.get(part)
