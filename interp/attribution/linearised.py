"""Gradient times input in the linearised network: what does each word add to the output, and what do the biases?

With the scale of every norm, every attention pattern and every neuron's gate held as they were in the run, a model is
an affine function of what it is given, so that the parts add up to its output. Norms and patterns are held as in Ali et
al. 2022 (arXiv:2202.07304), neurons as by the rescale rule of Shrikumar et al. 2017 (arXiv:1704.02685).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.backends.frozen import Constant, frozen_norms
from interp.backends.modules import on_modules
from interp.edits import Edit, stop
from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.precision import widened
from interp.readout import check_linear, uncapped
from interp.sites import Site
from interp.traces import Tokens, Trace

MLP = {
    "gate": "each neuron's gate held: a(x) / x of a non-linearity a or, in an MLP with gates of its own, a(gate)",
    "tangent": "each neuron's slope; what the tangent leaves is a term of its own",
    "constant": "what each neuron gives; it is a term of its own, and words act through attention alone",
}
_EMBED, _FIRST = Site("embed"), Site("resid_pre", 0)

_Terms = Mapping[str, Sequence[Constant]]


def linearised(model: Model, prompts: Prompts, metric: Metric | Sequence[Metric], mlp: str = "gate") -> xr.DataArray:
    """What each token, its place and every bias add to the metric, with norms, attention patterns and gates held.

    The terms are `token` (its embedding), `position` (what else enters the first block), `bias0` and so on (all biases
    in a block, those of its norms included), `mlp0` and so on (unless gates are held: what the linear form of an MLP's
    non-linearity leaves) and `bias` (of the final norm and the unembedding), each where it enters. They add up to the
    metric.

    Args:
        metric: One, or several, which give an axis `metric`; linear in the logits, such as a logit or a difference of
            logits. Where the model caps its logits, it is taken of those before the cap.
        mlp: What is held of the MLPs: "gate", "tangent" or "constant"; see `MLP`.

    Returns:
        Contributions by (metric, term, pos, prompt), without the first if there is one metric; NaN at padding. With the
        checks that they add up, and how much of them no token carries.

    Raises:
        ValueError: A metric that is not linear in the logits; an unknown choice for MLPs; a model without queries, keys
            or neurons; what `on_modules` raises.
    """
    if mlp not in MLP:
        raise ValueError(f"mlp={mlp!r} is unknown; choose from {', '.join(MLP)}")
    model = on_modules(model, "linearised runs need")
    tokens, metrics = model.tokens(prompts), metrics_of(metric)
    trace, terms = _run(model, tokens, mlp, all(one.last_only for one in metrics))
    with torch.enable_grad():
        logits = uncapped(model, trace.logits)
        wanted = torch.stack([one.of_logits(one.position(tokens, logits)) for one in metrics])
        for one, value in zip(metrics, wanted):
            one.check_numbers(value)
            check_linear(one, one.position(tokens, logits).detach())
        values = torch.stack([_shares(one, total, trace, terms) for one, total in zip(metrics, wanted)])
    checks = [_adds_up(values, wanted.detach(), logits.detach()), _carried(values)]
    values = values.where(tokens.mask.bool(), torch.nan).transpose(-1, -2)
    coords: dict[str, Sequence[Any]] = {} if isinstance(metric, Metric) else {"metric": [one.name for one in metrics]}
    coords |= {"term": ["token", "position", *terms], "pos": position_labels(model, tokens)}
    coords |= {"prompt": range(len(tokens))}
    how = {"method": "gradient times input, linearised", "metric": ", ".join(one.name for one in metrics)}
    how |= {"held": f"norms' scales, attention patterns, {MLP[mlp]}"}
    how |= {"logits": "as they are" if model.logit_cap is None else f"before the cap of {model.logit_cap}"}
    return labelled(values.reshape([len(labels) for labels in coords.values()]), "share", coords, model, checks, **how)


def _run(model: Model, tokens: Tokens, mlp: str, last_only: bool) -> tuple[Trace, _Terms]:
    """A run whose gradients are those of the linearised model, and what it adds whatever the prompt."""
    neurons = _Neurons(mlp, mlp != "constant" and _has_gates(model, tokens))
    held = [stop(site) for site in model.sites("q", "k")] + neurons.edits(model)
    with frozen_norms(model) as constants:
        trace = model.run(tokens, [_EMBED, _FIRST], held, grad=True, last_only=last_only)
    terms: dict[str, Sequence[Constant]] = {}
    for layer in range(model.shape.n_layers):
        biases, left = ([one for one in found if one.layer == layer] for found in (constants, neurons.constants))
        # A gate leaves nothing but rounding, which is counted with the biases as that of norms is.
        terms |= {f"bias{layer}": [*biases, *left]} if mlp == "gate" else {f"bias{layer}": biases, f"mlp{layer}": left}
    return trace, terms | {"bias": [one for one in constants if one.layer is None]}


@dataclass
class _Neurons:
    """Holds what is to be held of every neuron, and keeps what that leaves.

    Attributes:
        gated: Whether what enters the non-linearity is a gate beside another input.
    """

    rule: str
    gated: bool
    constants: list[Constant] = field(default_factory=list)

    def edits(self, model: Model) -> list[Edit]:
        """The edits of a run, which leave all values as they are and change gradients."""
        if self.rule == "constant":
            return [self._held(post) for post in model.sites("mlp_post")]
        pairs = zip(model.sites("mlp_pre"), model.sites("mlp_post"))
        return [edit for pre, post in pairs for edit in self._pair(pre, post)]

    def _held(self, post: Site) -> Edit:
        def leave(y: Tensor) -> Tensor:
            held = y.detach().requires_grad_()
            self.constants.append(Constant(post.layer, y.detach(), held))
            return held.clone()

        return Edit(post, leave)

    def _pair(self, pre: Site, post: Site) -> list[Edit]:
        entered: list[Tensor] = []

        def enter(x: Tensor) -> Tensor:
            own = x.detach().requires_grad_(self.rule == "tangent")
            entered.extend((x, own))
            return own

        def leave(y: Tensor) -> Tensor:
            x, own = entered
            line = self._slope(own, y) * x
            through = y if self.gated else torch.zeros_like(y)
            rest = (y - line - through).detach()
            onto = through + line + rest
            self.constants.append(Constant(post.layer, rest, onto))
            return onto.clone()

        return [Edit(pre, enter), Edit(post, leave)]

    def _slope(self, x: Tensor, y: Tensor) -> Tensor:
        """Of what a neuron gives, along what enters its non-linearity."""
        if self.rule == "tangent":
            return torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
        return torch.zeros_like(y) if self.gated else torch.where(x == 0, 0, y.detach() / x)


def _has_gates(model: Model, tokens: Tokens) -> bool:
    """Whether a neuron's output hangs on more than what enters its non-linearity."""
    pre, post = Site("mlp_pre", 0), Site("mlp_post", 0)
    return model.run(tokens.rows([0]), post, [stop(pre)], grad=True, last_only=True)[post].requires_grad


def _shares(metric: Metric, value: Tensor, trace: Trace, terms: _Terms) -> Float[Tensor, "term prompt pos"]:
    """What each term adds to a metric, where it enters."""
    tokens = trace.tokens
    constants = [one for parts in terms.values() for one in parts]
    sums = [trace[_EMBED], trace[_FIRST], *(one.onto for one in constants)]
    found = torch.autograd.grad(value.sum(), sums, retain_graph=True, materialize_grads=True)
    into = dict(zip(map(id, constants), found[2:]))
    size = (tokens.ids.shape[0], tokens.ids.shape[1])
    token, entering = (_by_pos(x.detach(), g, size) for x, g in zip(sums[:2], found))
    shares = [token, entering - token]
    for parts in terms.values():
        shares.append(sum((_by_pos(one.value, into[id(one)], size) for one in parts), torch.zeros_like(token)))
    nothing = metric.of(torch.zeros_like(metric.position(tokens, trace.logits)))
    read = metric.position(tokens, torch.eye(size[1]).to(token).expand(size[0], -1, -1))
    shares[-1] = shares[-1] + widened(nothing)[:, None] * read
    return torch.stack(shares)


def _by_pos(value: Tensor, gradient: Tensor, size: tuple[int, int]) -> Float[Tensor, "prompt pos"]:
    """A value times the gradient at it, summed over features; what is had at the last positions only is 0 at others."""
    share = (widened(value) * widened(gradient)).sum(-1).reshape(size[0], -1)
    return torch.nn.functional.pad(share, (size[1] - share.shape[1], 0))


def _adds_up(values: Float[Tensor, "metric term prompt pos"], wanted: Tensor, logits: Tensor) -> Check:
    error = float((values.sum((1, 3)) - wanted).abs().max() / widened(logits).std().clamp(min=1e-9))
    threshold = 1e-4 if logits.dtype.itemsize >= 4 else 2e-2
    why = "tokens, places and biases must add up to the metric; else something in the model was not held"
    status = "pass" if error <= threshold else "warn" if error <= 5e-2 else "fail"
    return Check("sum of terms equals the metric", error, threshold, status, why, "arXiv:2202.07304")


def _carried(values: Float[Tensor, "metric term prompt pos"]) -> Check:
    sizes = values.sum(-1).abs().mean((0, 2))
    value = float(sizes[1:].sum() / sizes.sum().clamp(min=1e-9))
    why = (
        "places and biases as a share of all terms; where it is large, the tokens' shares explain little of the metric"
    )
    return Check.at_most("share that no token carries", value, 0.5, why)
