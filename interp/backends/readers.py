"""Where a Hugging Face model writes to its residual stream and reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.families import Family, Reads, submodule
from interp.backends.modules import on_modules
from interp.backends.structure import family_of
from interp.graph import Graph
from interp.model import Model
from interp.products import products_of

Room = Callable[..., Tensor]


@dataclass(frozen=True)
class Projection:
    """One matrix that makes queries, keys or values of the normed stream, or all three.

    Attributes:
        readers: Which of a layer's readers it makes: places in the order queries, keys, values.
        parts: How many of the three it makes.
        layout: The order of part, head and feature in what it returns.
    """

    module: nn.Module
    readers: slice
    parts: int
    layout: str
    d_head: int

    def split(self, features: Float[Tensor, "row pos features"]) -> Float[Tensor, "row pos reader d_head"]:
        """What the matrix returns, by reader."""
        return self._by_reader(f"row pos ({self.layout}) -> row pos (part head) d", features)

    def merge(self, heads: Float[Tensor, "row pos reader d_head"]) -> Float[Tensor, "row pos features"]:
        """The inverse of `split`."""
        return self._by_reader(f"row pos (part head) d -> row pos ({self.layout})", heads)

    def of(self, normed: Float[Tensor, "reader row pos d_model"]) -> Float[Tensor, "row pos features"]:
        """What the matrix returns if each reader is given a stream of its own."""
        heads = products_of(normed.flatten(1, 2), self.weight.mT).unflatten(1, normed.shape[1:3]).permute(1, 2, 0, 3)
        return self.merge(heads if self.bias is None else heads + self.bias)

    def pull_back(
        self, grad: Float[Tensor, "row pos features"], some: slice
    ) -> Float[Tensor, "reader row pos d_model"]:
        """The gradient at the normed streams of some of its readers, of that at what the matrix returns."""
        by_reader = self.split(grad).flatten(0, 1).transpose(0, 1)
        return products_of(by_reader[some], self.weight[some]).unflatten(1, grad.shape[:2])

    @property
    def weight(self) -> Float[Tensor, "reader d_head d_model"]:
        """The matrix, by reader."""
        return self._by_reader(f"({self.layout}) d_model -> (part head) d d_model", _rows(self.module))

    @property
    def bias(self) -> Float[Tensor, "reader d_head"] | None:
        """The bias, by reader, if there is one."""
        bias: Any = self.module.bias
        return None if bias is None else self._by_reader(f"({self.layout}) -> (part head) d", bias)

    def _by_reader(self, pattern: str, tensor: Tensor) -> Tensor:
        return rearrange(tensor, pattern, part=self.parts, d=self.d_head)


@dataclass(frozen=True)
class Layer:
    """The modules of one block that read the residual stream or write to it; a norm that it lacks is None.

    Attributes:
        out: Attention's last matrix, if what it returns is added to the stream as it is.
        last: Attention's last matrix in any case; where `out` is None, the norm `attn_out` follows it.
        scaling: What products of queries and keys are multiplied by, but for a factor of a rotary embedding.
        scale: What all that attention and the MLP return is multiplied by when it is added.
    """

    block: nn.Module
    projections: tuple[Projection, ...]
    attn_norm: nn.Module | None
    mlp: nn.Module
    mlp_norm: nn.Module | None
    out: nn.Module | None
    last: nn.Module
    attn_out: nn.Module
    mlp_out: nn.Module
    scaling: float
    scale: float

    def heads(
        self, z: Float[Tensor, "row pos z"], n_heads: int, room: Room | None
    ) -> Float[Tensor, "row head pos d_model"]:
        """What each head adds to the stream; the bias belongs to none.

        Args:
            room: Gives memory of some sizes to write it into; None for fresh memory.
        """
        by_head = z.flatten(0, 1).unflatten(-1, (n_heads, -1)).transpose(0, 1)
        weight = self.weight(n_heads)
        out = None if room is None else room(*by_head.shape[:2], weight.shape[2])
        return products_of(by_head, weight, out).unflatten(1, z.shape[:2]).transpose(0, 1)

    def weight(self, n_heads: int) -> Float[Tensor, "head d_head d_model"]:
        """Attention's last matrix, by head, as far as it writes to the stream."""
        weight = rearrange(_rows(self.last), "d_model (head d) -> head d d_model", head=n_heads)
        return weight if self.scale == 1 else weight * self.scale


@dataclass(frozen=True)
class Wiring:
    """All layers of a model, and the graph of what writes and what reads in them.

    Attributes:
        model: On plain Hugging Face modules, which are those of the layers.
    """

    model: Model
    graph: Graph
    layers: tuple[Layer, ...]


def wiring_of(model: Model) -> Wiring:
    """Where a model's writers and readers are.

    Raises:
        ValueError: What `on_modules` raises; a family whose row does not say how its stream is
            read; a model whose stream is not the sum of what is written to it.
    """
    model = on_modules(model, "edges need")
    config: Any = model.module.config
    family = family_of(model.module)
    if family.reads is None:
        raise ValueError(
            f"it is not known how {config.model_type!r} reads its residual stream; add `reads=` to a row "
            f"FAMILIES[{config.model_type!r}] in interp/backends/families.py"
        )
    shape, blocks = model.shape, model.blocks
    if not blocks:
        raise ValueError(f"the blocks of {model.name} share keys, so that they cannot be run one by one, as edges need")
    stream = family.stream_of(config)
    if stream == "post-norm" or submodule(model.module, family.final_norm) is None:
        raise ValueError(
            f"in {model.name} a norm follows each sum, so that its stream is not the sum of what is written to it, and "
            f"there are no edges to tell apart"
        )
    graph = Graph(shape.n_layers, shape.n_heads, shape.n_kv_heads, stream == "parallel", splits=bool(family.reads.out))
    layers = tuple(_layer(block, family, family.reads, model) for block in blocks)
    for layer in layers:
        _check_unhooked(layer)
    return Wiring(model, graph, layers)


def _layer(block: nn.Module, family: Family, reads: Reads, model: Model) -> Layer:
    n_heads, n_kv = model.shape.n_heads, model.shape.n_kv_heads
    bounds = [0, n_heads, n_heads + n_kv, n_heads + 2 * n_kv]
    parts, attention = 3 // len(reads.projections), submodule(block, family.attention)
    projections = tuple(
        Projection(
            _matrix(block, path), slice(bounds[i * parts], bounds[(i + 1) * parts]),
            parts if reads.layout == "head part d" else 1,  # in the other order keys may be fewer than queries
            reads.layout, model.shape.d_head,
        )
        for i, path in enumerate(reads.projections)
    )  # fmt: skip
    return Layer(
        block, projections,
        attn_norm=submodule(block, reads.attn_norm),
        mlp=block.get_submodule(reads.mlp),
        mlp_norm=submodule(block, reads.mlp_norm),
        out=_matrix(block, reads.out) if reads.out else None,
        last=_matrix(block, reads.out or reads.inner_out),
        attn_out=block.get_submodule(family.taps["attn_out"].path),
        mlp_out=block.get_submodule(family.taps["mlp_out"].path),
        scaling=reads.scaling or float(getattr(attention, "scaling", model.shape.d_head**-0.5)),
        scale=family.taps["mlp_out"].scale,
    )  # fmt: skip


def _check_unhooked(layer: Layer) -> None:
    """Refuse hooks where weights are multiplied with: what they change would be left out."""
    for part in (*(projection.module for projection in layer.projections), layer.attn_norm, layer.mlp_norm, layer.last):
        if part is not None and (part._forward_hooks or part._forward_pre_hooks):
            raise ValueError(
                f"a {type(part).__name__} has hooks of somebody's own, which edges would leave out; remove them, or "
                f"make them edits"
            )


def _matrix(block: nn.Module, path: str) -> nn.Module:
    """A module that is a matrix and nothing else; of any other, such as an adapter, the weight is not the whole."""
    module = block.get_submodule(path)
    from transformers.pytorch_utils import Conv1D  # half a second, which only circuits need

    if type(module) not in (nn.Linear, Conv1D):
        raise ValueError(
            f"{path} is a {type(module).__name__}, not a plain matrix, so that its heads cannot be told apart; merge "
            f"adapters and undo quantisation first"
        )
    return module


def _rows(module: nn.Module) -> Float[Tensor, "outward inward"]:
    weight: Any = module.weight
    return weight if isinstance(module, nn.Linear) else weight.T  # GPT-2 keeps its matrices the other way round
