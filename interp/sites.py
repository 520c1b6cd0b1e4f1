"""Names for the places in a transformer where a tensor can be read or edited."""

from dataclasses import dataclass
from numbers import Integral

_STREAM = ("batch", "pos", "d_model")
_HEADS = ("batch", "pos", "head", "d_head")
_NEURONS = ("batch", "pos", "neuron")
_ATTENTION = ("batch", "head", "query", "key")

# Kinds of site with the axes of their tensors, in the order in which a forward pass reaches them. What each one means
# is an identity that holds on every model; `interp.check` tests them. On grouped-query models `k` and `v` have fewer
# heads than `q`.
AXES: dict[str, tuple[str, ...]] = {
    "embed": _STREAM,  # what the token embedding returns, before positions are added
    "resid_pre": _STREAM,  # residual stream entering the block
    "q": _HEADS,  # queries, keys and values as attention sees them: after rotary, before scaling
    "k": _HEADS,
    "v": _HEADS,
    "scores": _ATTENTION,  # what enters the softmax: scaled, capped, masked
    "pattern": _ATTENTION,  # what leaves it: pattern = softmax(scores)
    "z": _HEADS,  # pattern @ v
    "attn_out": _STREAM,  # what attention adds to the residual stream
    "resid_mid": _STREAM,  # resid_pre + attn_out
    "mlp_pre": _NEURONS,  # what enters the activation function (the gate, in gated MLPs)
    "mlp_post": _NEURONS,  # what enters the MLP's last matrix
    "mlp_out": _STREAM,  # what the MLP adds to the residual stream
    "resid_post": _STREAM,  # residual stream leaving the block
    "resid_final": _STREAM,  # input of the final norm
}
_ORDER = {kind: i for i, kind in enumerate(AXES)}
UNLAYERED = ("embed", "resid_final")
STREAM = frozenset({"resid_pre", "resid_post", "resid_final"})  # the residual stream between blocks


@dataclass(frozen=True)
class Site:
    """One place in a transformer: a kind of tensor and, inside a block, its layer.

    Head, position and neuron are not part of a site: they are indices into its tensor, given by axis name.
    """

    kind: str
    layer: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in AXES:
            raise ValueError(f"unknown site kind {self.kind!r}; choose from {', '.join(AXES)}")
        if self.kind in UNLAYERED and self.layer is not None:
            raise ValueError(f"{self.kind!r} has no layer, but {self.layer!r} was given; write Site({self.kind!r})")
        if isinstance(self.layer, Integral):  # of numpy, as labels of results are
            object.__setattr__(self, "layer", int(self.layer))
        if self.kind not in UNLAYERED and (not isinstance(self.layer, int) or self.layer < 0):
            raise ValueError(
                f"{self.kind!r} needs a layer, an int from 0 on, not {self.layer!r}; write Site({self.kind!r}, 0)"
            )

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes of this site's tensor."""
        return AXES[self.kind]

    @property
    def order(self) -> tuple[float, int]:
        """Sort key that follows the forward pass."""
        unlayered = {"embed": -1.0, "resid_final": float("inf")}
        return (unlayered[self.kind] if self.layer is None else float(self.layer), _ORDER[self.kind])

    @property
    def along(self) -> str:
        """The axis of this site's tensor along which a causal model goes forward."""
        return "pos" if "pos" in self.axes else "query"

    def __str__(self) -> str:
        return self.kind if self.layer is None else f"{self.kind}.{self.layer}"
