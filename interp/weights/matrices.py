"""Heads, embedding and unembedding as matrices, from the model's own weights, with the norms before them folded in."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.arguments import check_differentiable
from interp.backends.readers import Layer, wiring_of
from interp.edits import zero
from interp.graph import head_name
from interp.model import Model
from interp.precision import widened
from interp.readout import uncapped
from interp.sites import Site

_CHUNK = 1024  # tokens that are run at a time


@dataclass(frozen=True)
class Heads:
    """What every head reads from the residual stream and writes to it, as matrices.

    What is read is of a stream at unit variance: the weights and the mean centring of the norm before it are folded in,
    its scale is not. Under grouped queries, heads of a group have the same keys and values. A rotary embedding acts on
    `q x + q_bias` and `k x + k_bias` afterwards; at equal positions it changes no product of the two.

    Attributes:
        q, k, v: What is read, by layer and head.
        q_bias, k_bias: What is added to queries and keys.
        o: What is written. Where a norm follows (Gemma 2, OLMo 2), its weights are folded in and its scale is not.
        scaling: By layer, what products of queries and keys are multiplied by.
        left_out: What else acts on the heads, and is not in these matrices; empty if nothing does.
    """

    q: Float[Tensor, "layer head d_head d_model"]
    k: Float[Tensor, "layer head d_head d_model"]
    v: Float[Tensor, "layer head d_head d_model"]
    q_bias: Float[Tensor, "layer head d_head"]
    k_bias: Float[Tensor, "layer head d_head"]
    o: Float[Tensor, "layer head d_head d_model"]
    scaling: Float[Tensor, " layer"]
    left_out: str

    def __repr__(self) -> str:
        n_layers, n_heads, *sizes = self.q.shape
        left_out = self.left_out or "nothing"
        return f"Heads({n_layers} layers of {n_heads}, each (d_head, d_model) {tuple(sizes)}; left out: {left_out})"

    @property
    def names(self) -> list[str]:
        """The heads' names, "L0H1", layer by layer."""
        return [head_name(layer, head) for layer in range(len(self.q)) for head in range(self.q.shape[1])]

    def layer(self, number: int) -> "Heads":
        """The heads of one layer."""
        tensors = {f.name: getattr(self, f.name)[number : number + 1] for f in fields(self) if f.name != "left_out"}
        return Heads(**tensors, left_out=self.left_out)


@torch.no_grad()
def heads(model: Model) -> Heads:
    """The heads of a model as matrices, in float32 at least.

    Raises:
        ValueError: A backend or a family whose matrices cannot be had.
    """
    wiring, shape = wiring_of(model), model.shape
    group = shape.n_heads // shape.n_kv_heads
    found = [_layer(layer, shape.n_heads, group) for layer in wiring.layers]
    q, k, v, q_bias, k_bias, o = [widened(torch.stack(parts)).detach() for parts in zip(*found)]
    scaling = torch.tensor([layer.scaling for layer in wiring.layers]).to(q) * _rotary(wiring.model) ** 2
    attention = [name for name, _ in wiring.layers[0].block.named_modules()]
    normed = any(name.endswith(("q_norm", "k_norm")) for name in attention)
    kinds = ["the norms of queries and keys"] if normed else []
    kinds += ["the scale of the norm that follows attention"] if wiring.layers[0].out is None else []
    return Heads(q, k, v, q_bias, k_bias, o, scaling, " and ".join(kinds))


def _rotary(model: Model) -> float:
    """What a rotary embedding multiplies queries and keys by, as YaRN does (Peng et al. 2023, arXiv:2309.00071)."""
    found: list[Any] = [getattr(part, "attention_scaling", 1.0) for part in model.module.modules()]
    scales = {float(scale) for scale in found if scale != 1}
    return scales.pop() if len(scales) == 1 else 1.0


def _layer(layer: Layer, n_heads: int, group: int) -> tuple[Tensor, ...]:
    weight = torch.cat([projection.weight for projection in layer.projections])
    biases = [projection.bias for projection in layer.projections]
    bias = torch.cat([b if b is not None else p.weight[..., 0] * 0 for b, p in zip(biases, layer.projections)])
    if layer.attn_norm is not None:
        bias = bias + weight @ layer.attn_norm.forward(torch.zeros_like(weight[0, :1]))[0]
    weight = folded(layer.attn_norm, weight)
    n_kv = n_heads // group
    sizes = [n_heads, n_kv, n_kv]
    (q, k, v), (q_bias, k_bias, _) = weight.split(sizes), bias.split(sizes)
    k, v, k_bias = (part.repeat_interleave(group, dim=0) for part in (k, v, k_bias))
    o = layer.weight(n_heads)
    if layer.out is None:  # o is read by the norm that follows: fold from the other side
        o = widened(o) @ folded(layer.attn_out, torch.eye(o.shape[-1]).to(o)).T
    return q, k, v, q_bias, k_bias, o


def folded(norm: nn.Module | None, rows: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
    """Rows that read what a norm returns, as rows that read what it is given, if that is of unit variance.

    Near zero a norm is linear, for its epsilon outweighs what it is given, and elsewhere it is the same map times a
    scalar: the map is its gradient at zero, the scalar is found on one vector of unit variance.
    """
    if norm is None:
        return rows
    check_differentiable()
    with torch.enable_grad():
        zeros = torch.zeros_like(rows).requires_grad_()
        unit = _unit(rows)
        gain = (norm.forward(unit) - norm.forward(0 * unit)).detach()
        at_zero = norm.forward(zeros)
        (pulled,) = torch.autograd.grad(at_zero, zeros, rows, retain_graph=False)
        one = torch.zeros_like(unit).requires_grad_()
        (back,) = torch.autograd.grad(norm.forward(one), one, gain)
    gain, back, unit = widened(gain), widened(back), widened(unit)  # sums of squares, that half precision cannot hold
    return widened(pulled) * ((gain * gain).sum() / (back * unit).sum())


def _unit(like: Tensor) -> Float[Tensor, " d_model"]:
    """A random vector of zero mean and unit variance."""
    x = torch.randn(like.shape[-1], generator=torch.Generator().manual_seed(0)).to(like)
    return (x - x.mean()) / x.std(correction=0)


@torch.no_grad()
def embedding(
    model: Model, ids: Int[Tensor, " token"] | None = None, first_mlp: bool = False
) -> Float[Tensor, "token d_model"]:
    """What each token is in the residual stream, less the mean over tokens: the share that tells it from the others.

    Args:
        ids: The tokens; by default the whole vocabulary.
        first_mlp: What the first MLP makes of it included, as later layers see it (the "effective embedding").
    """
    ids = torch.arange(model.shape.d_vocab, device=model.device) if ids is None else ids.to(model.device)
    site = Site("resid_post" if first_mlp else "resid_pre", 0)
    off = [zero(Site("attn_out", 0))] if first_mlp else []
    parts = [model.run(some[:, None], site, off)[site][:, 0] for some in ids.split(_CHUNK)]
    found = widened(torch.cat(parts)).detach()
    return found - found.mean(0)


@torch.no_grad()
def unembedding(model: Model, ids: Int[Tensor, " token"] | None = None) -> Float[Tensor, "token d_model"]:
    """What each logit reads from a last residual stream of unit variance: the final norm's weights are folded in.

    Of streams of the same variance the final norm is a linear map, so that those along one coordinate each tell it, up
    to a scalar that one more of unit variance tells.
    """
    d_model, some = model.shape.d_model, slice(None) if ids is None else ids
    alone = torch.eye(d_model, device=model.device, dtype=model.dtype) * d_model**0.5
    unit = _unit(alone)
    streams = torch.cat([0 * unit[None], unit[None], alone])
    logits = uncapped(model, widened(torch.cat([model.unembed(part)[..., some] for part in streams.split(_CHUNK)])))
    gain, *columns = logits[1:] - logits[0]
    found = torch.stack(columns, dim=-1)
    linear = found @ widened(unit)
    return found * ((gain @ linear) / (linear @ linear))


def chosen_tokens(model: Model, ids: Sequence[int] | Tensor | None, n: int, seed: int) -> Int[Tensor, " token"]:
    """The tokens that were given or, by default, n at random, special ones left out.

    Raises:
        ValueError: Fewer than two tokens, or one outside the vocabulary.
    """
    if ids is None:
        special: Any = [] if model.tokenizer is None else model.tokenizer.all_special_ids
        plain = [i for i in range(model.shape.d_vocab) if i not in set(special)]
        order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(seed))[:n]
        return torch.tensor(plain)[order].to(model.device)
    if not isinstance(ids, Tensor) and (words := [token for token in ids if isinstance(token, str)]):
        raise TypeError(f"tokens are ids, not {words[0]!r}; give [model.token_id(word) for word in words]")
    given = torch.as_tensor(ids, device=model.device)
    if given.ndim != 1 or len(given) < 2 or int(given.min()) < 0 or int(given.max()) >= model.shape.d_vocab:
        raise ValueError(
            f"tokens are two or more ids from 0 to {model.shape.d_vocab - 1}, (n,); {tuple(given.shape)} were given"
        )
    return given
