"""Names for what writes to the residual stream and what reads it, and for the edges between them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from interp.sites import Site

Edge = tuple[str, str]  # a writer and a reader, by name; either may be a pattern such as "L2H*" or "*"
# By (writer, reader), in this order unless the axes have names; or a list of the edges on which it is 1.
Mask = Tensor | np.ndarray | xr.DataArray | Sequence[Any]


@dataclass(frozen=True)
class Graph:
    """Every writer and reader of a model's residual stream.

    Writers are `embed` (what enters the first block), each head's output as it is added to the stream (`L0H1`), and
    each `mlp0`. Readers are the queries, keys and values of each head (`L1H0.q`), each `mlp1`, and `logits`. Under
    grouped queries, keys and values belong to key-value heads (`L1KV0.k`). Where a norm stands between attention's last
    matrix and the stream, heads cannot be told apart in what is added, and attention writes as a whole (`attn0`).

    Attributes:
        parallel: Whether attention and MLP of a block read the same stream, so that neither feeds the other.
        splits: Whether heads are writers of their own.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool
    splits: bool

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """The names of the writers, in the order of the forward pass."""
        names = ["embed"]
        for layer in range(self.n_layers):
            heads = [head_name(layer, head) for head in range(self.n_heads)]
            names += [*(heads if self.splits else [f"attn{layer}"]), f"mlp{layer}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The names of the readers, in the order of the forward pass."""
        names = []
        for layer in range(self.n_layers):
            for kind, n in zip("qkv", (self.n_heads, self.n_kv_heads, self.n_kv_heads)):
                names += [f"{head_name(layer, head, n < self.n_heads)}.{kind}" for head in range(n)]
            names.append(f"mlp{layer}")
        return (*names, "logits")

    @cached_property
    def precedes(self) -> Bool[Tensor, "writer reader"]:
        """Which writers come before which readers: the edges that there are."""
        there = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for layer in range(self.n_layers):
            there[: self.before_attention(layer), self.attention(layer)] = True
            there[: self.before_mlp(layer), self.mlp(layer)] = True
        there[:, self.logits] = True
        return there

    @cached_property
    def makes(self) -> Bool[Tensor, "reader writer"]:
        """Which readers make what a writer writes: a head's queries, keys and values, and an MLP."""
        made = torch.zeros(len(self.readers), len(self.writers), dtype=torch.bool)
        for layer in range(self.n_layers):
            made[self.mlp(layer), self.wrote_mlp(layer)] = True
            first, writer = self.attention(layer).start, self.before_attention(layer)
            for head in range(self.n_heads):
                group = head * self.n_kv_heads // self.n_heads
                readers = [head, self.n_heads + group, self.n_heads + self.n_kv_heads + group]
                made[[first + reader for reader in readers], writer + head * self.splits] = True
        return made

    def attention(self, layer: int) -> slice:
        """The readers that are a layer's queries, keys and values, in this order."""
        first = layer * self._readers_per_layer
        return slice(first, first + self._readers_per_layer - 1)

    def mlp(self, layer: int) -> slice:
        """The reader that is a layer's MLP."""
        last = (layer + 1) * self._readers_per_layer
        return slice(last - 1, last)

    @property
    def logits(self) -> slice:
        """The reader that is the final norm."""
        return slice(len(self.readers) - 1, len(self.readers))

    def before_attention(self, layer: int) -> int:
        """How many writers come before a layer's attention; its own outputs are the next."""
        return 1 + layer * self._writers_per_layer

    def before_mlp(self, layer: int) -> int:
        """How many writers a layer's MLP reads."""
        return self.before_attention(layer) if self.parallel else self.wrote_mlp(layer)

    def wrote_mlp(self, layer: int) -> int:
        """The writer that is a layer's MLP."""
        return self.before_attention(layer + 1) - 1

    def mask(self, edges: Iterable[Edge] = (("*", "*"),)) -> Float[Tensor, "writer reader"]:
        """1 on some edges, 0 elsewhere; by default on every edge.

        Args:
            edges: Pairs of a writer and a reader; patterns stand for all edges that match, `("L0H1", "*")` for all that
                leave a head.

        Raises:
            ValueError: A pair that matches no edge.
        """
        mask = torch.zeros(self.precedes.shape)
        for writer, reader in _pairs("edges", edges):
            chosen = torch.zeros_like(self.precedes)
            rows, columns = self._matching(self.writers, writer), self._matching(self.readers, reader)
            chosen[rows] = torch.isin(torch.arange(len(self.readers)), columns)
            if not bool((chosen & self.precedes).any()):
                raise ValueError(
                    f"no edge goes from {writer!r} to {reader!r}; writers are {self.writers[0]}, {self.writers[1]}, … "
                    f"{self.writers[-1]}, readers {self.readers[0]}, … {self.readers[-2]}, {self.readers[-1]}, and a "
                    f"writer comes before its reader"
                )
            mask[chosen & self.precedes] = 1
        return mask

    def check(self, name: str, mask: Tensor, n_pos: int | None = None) -> None:
        """Raise if a mask does not fit the graph.

        Args:
            n_pos: How many positions it may have; by default it may have none.
        """
        shape = tuple(self.precedes.shape)
        shapes = {"(writer, reader)": shape} | ({} if n_pos is None else {"(pos, writer, reader)": (n_pos, *shape)})
        if tuple(mask.shape) not in shapes.values():
            wanted = " or ".join(f"{axes} {sizes}" for axes, sizes in shapes.items())
            raise ValueError(f"a mask of edges is {wanted}; {name!r} is {tuple(mask.shape)}")
        if not bool(mask.isfinite().all()):
            raise ValueError(f"the mask {name!r} holds numbers that are not finite; 0 leaves an edge as it is")
        stray = (mask.detach().cpu() != 0) & ~self.precedes
        if bool(stray.any()):
            writer, reader = stray.nonzero()[0, -2:].tolist()
            raise ValueError(
                f"the mask {name!r} is not 0 from {self.writers[writer]!r} to {self.readers[reader]!r}, where there is "
                f"no edge; multiply it by graph.precedes"
            )

    def tensor_of(self, name: str, mask: Mask) -> Float[Tensor, "*pos writer reader"]:
        """A mask or scores as a tensor in the order of the graph's names, which those of a labelled array must be.

        Raises:
            ValueError: Other axes or names; what is no mask, nor pairs of names.
        """
        if isinstance(mask, Tensor | np.ndarray):
            found = torch.as_tensor(mask).detach().cpu()
            return found if found.is_floating_point() else found.float()
        if not isinstance(mask, xr.DataArray):
            return self.mask(_pairs(name, mask))
        if not {"writer", "reader"} <= set(mask.dims) <= {"pos", "writer", "reader"}:
            raise ValueError(f"{name!r} should have the axes writer and reader, not {mask.dims}; average the others")
        if set(mask.writer.values) != set(self.writers) or set(mask.reader.values) != set(self.readers):
            raise ValueError(f"{name!r} has other writers or readers than this model, which has {self}")
        ordered = mask.sel(writer=list(self.writers), reader=list(self.readers)).transpose(..., "writer", "reader")
        found = torch.from_numpy(ordered.values.copy())
        return found if found.is_floating_point() else found.float()

    def __str__(self) -> str:
        counts = f"{len(self.writers)} writers, {len(self.readers)} readers, {int(self.precedes.sum())} edges"
        return f"{counts}; {'side by side' if self.parallel else 'one after the other'} in a block"

    @staticmethod
    def _matching(names: Sequence[str], pattern: str) -> Tensor:
        found = [i for i, name in enumerate(names) if fnmatchcase(name, pattern)]
        return torch.tensor(found, dtype=torch.long)

    @property
    def _writers_per_layer(self) -> int:
        return 1 + (self.n_heads if self.splits else 1)

    @property
    def _readers_per_layer(self) -> int:
        return self.n_heads + 2 * self.n_kv_heads + 1


def zero_for_nan(mask: Tensor) -> Tensor:
    """0 for NaN, which stands where there is no edge; infinities are left, to be refused."""
    return mask.nan_to_num(posinf=math.inf, neginf=-math.inf)


def by_name(sets: Mapping[str, Mask] | Mask) -> dict[str, Mask]:
    """Sets of edges by name; one that is given alone is the circuit."""
    return dict(sets) if isinstance(sets, Mapping) else {"circuit": sets}


def _pairs(name: str, edges: Any) -> list[Edge]:
    """Edges by name, once they are seen to be some."""
    found = list(edges) if isinstance(edges, Iterable) and not isinstance(edges, str) else [edges]
    for edge in found:
        if not (isinstance(edge, tuple | list) and [type(end) for end in edge] == [str, str]):
            raise ValueError(
                f"{name!r} should be a mask by (writer, reader), or a list of edges such as ('L0H1', 'L1H0.q'); "
                f"{type(edge).__name__} {str(edge)[:60]!r} is neither"
            )
    return [(writer, reader) for writer, reader in found]


def head_name(layer: int | None, head: int, shared: bool = False) -> str:
    """The name of a head, or of a key-value head that several heads share."""
    return f"L{layer}{'KV' if shared else 'H'}{head}"


def site_name(site: Site) -> str:
    """The name of what writes at a site as a whole; of another site, its own."""
    if site == Site("resid_pre", 0):
        return "embed"
    kind = {"attn_out": "attn", "mlp_out": "mlp"}.get(site.kind)
    return str(site) if kind is None else f"{kind}{site.layer}"


def node_of(reader: str) -> str:
    """The node that a reader belongs to: `L1H0` of `L1H0.q`."""
    return reader.partition(".")[0]


def place_of(node: str) -> tuple[float, str, int]:
    """The layer of a node, its kind and its number among those: nodes sort by them in the order of the forward pass.

    Kinds are "attention" (heads, key-value heads or `attn0`) and "mlp"; `embed` is below all layers, `logits` above.
    """
    if node in ("embed", "logits"):
        return (-1.0 if node == "embed" else math.inf), node, 0
    layer, index = re.fullmatch(r"(?:L|attn|mlp)(\d+)(?:H|KV)?(\d+)?", node).groups()  # type: ignore[union-attr]
    return float(layer), "mlp" if node.startswith("mlp") else "attention", int(index or 0)
