"""Neurons by what they write to the logits: which push the answer most, and which words do their outputs promote?

Geva et al. 2022 (arXiv:2203.14680), with the final norm's scale held as it was in each run.
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.components import last_stream
from interp.edits import put
from interp.lens.rows import Rows, log_probs, words
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.readout import Readout, readout
from interp.sites import Site
from interp.traces import Tokens, Trace

Chosen = Int[Tensor, "layer place"]


def neurons(
    model: Model, prompts: Prompts, metric: Metric, layers: Sequence[int] | None = None, top: int = 10, n_words: int = 5
) -> xr.Dataset:
    """The neurons of each layer that add most to a metric, on average over the prompts, whatever the sign.

    Args:
        metric: Linear in the logits, such as a logit or a logit difference.
        top: How many neurons a layer.
        n_words: How many of the tokens to name that a neuron's output promotes, as it is active here.

    Returns:
        By (layer, place, prompt): `contribution` to the metric and `activation`, what enters the MLP's last matrix;
        `neuron`, by (layer, place), is its index; `word` has the tokens by (layer, place, top). Check: all neurons and
        the bias of each layer add up to what its MLP adds.

    Raises:
        ValueError: A model in which a norm stands between neurons and the stream; a metric that is not linear.
    """
    tokens = model.tokens(prompts)
    inner, outer = model.sites("mlp_post", layers=layers), model.sites("mlp_out", layers=layers)
    with torch.no_grad():
        trace = model.run(tokens, read=[*inner, *outer, last_stream(model)], last_only=True)
    width = trace[inner[0]].shape[-1]
    if not 1 <= top <= width:
        raise ValueError(f"top is a number of neurons from 1 to {width}, not {top}")
    line = readout(model, metric, trace.at(last_stream(model), as_metric(metric).at))
    biases = _outputs(model, [torch.zeros(1, width)] * len(inner), inner, outer)
    shares = _shares(model, trace, inner, outer, line, metric.at)
    written = torch.stack([line.of(trace.at(site, metric.at)) for site in outer])
    check = _adds_up(
        model, shares.sum(1) + torch.stack([line.of(bias.expand_as(line.weight)) for bias in biases]), written
    )
    if check.status == "fail":
        raise ValueError(
            f"the neurons of {model.name} cannot be told apart: what its MLPs add is no sum over them; a norm stands "
            "between them and the stream"
        )
    chosen = shares.mean(-1).abs().topk(top).indices
    active = torch.stack([trace.at(site, metric.at).T[index] for site, index in zip(inner, chosen)])
    values = shares.gather(1, chosen[..., None].expand(-1, -1, len(tokens)))
    promoted = _promoted(model, inner, outer, chosen, active.mean(-1), width, n_words)
    return _dataset(model, metric, inner, values, active, chosen, promoted, check)


def _shares(
    model: Model, trace: Trace, inner: Sequence[Site], outer: Sequence[Site], line: Readout, at: int | str
) -> Float[Tensor, "layer neuron prompt"]:
    """What each neuron adds: its activation times what the readout makes of its output vector."""
    leaves = [trace[site].detach().clone().requires_grad_() for site in inner]
    edits = [put(site, leaf) for site, leaf in zip(inner, leaves)]
    again = model.run(trace.tokens, read=outer, edits=edits, grad=True, last_only=True)
    with torch.enable_grad():
        total = torch.stack([(again.at(site, at) * line.weight).sum() for site in outer]).sum()
    slopes = torch.autograd.grad(total, leaves)
    rows = Rows.of(trace.tokens, at)
    return torch.stack([rows.take(slope * trace[site]).T for site, slope in zip(inner, slopes)]).detach()


@torch.no_grad()
def _outputs(
    model: Model, fed: Sequence[Float[Tensor, "row neuron"]], inner: Sequence[Site], outer: Sequence[Site]
) -> list[Float[Tensor, "row d_model"]]:
    """What MLPs add when their neurons are set to something."""
    ids = torch.zeros(len(fed[0]), 1, dtype=torch.long, device=model.device)
    edits = [put(site, rows[:, None].to(model.device, model.dtype)) for site, rows in zip(inner, fed)]
    trace = model.run(Tokens(ids, torch.ones_like(ids)), read=outer, edits=edits, last_only=True)
    return [trace[site][:, 0] for site in outer]


@torch.no_grad()
def _promoted(
    model: Model, inner: Sequence[Site], outer: Sequence[Site], chosen: Chosen, active: Tensor, width: int, n_words: int
) -> Int[Tensor, "layer place top"]:
    """The tokens that neurons promote, each with the sign that it has."""
    unit = torch.eye(width, device=model.device)
    fed = [torch.cat([unit[index], 0 * unit[:1]]) for index in chosen]
    vectors = [out[:-1] - out[-1] for out in _outputs(model, fed, inner, outer)]
    signed = [vector * sign.sign()[:, None] for vector, sign in zip(vectors, active)]
    return torch.stack([log_probs(model, vector).topk(n_words).indices for vector in signed])


def _dataset(
    model: Model,
    metric: Metric,
    inner: Sequence[Site],
    values: Tensor,
    active: Tensor,
    chosen: Tensor,
    promoted: Tensor,
    check: Check,
) -> xr.Dataset:
    axes: dict[str, Sequence[Any]] = {"layer": [site.layer for site in inner], "place": range(values.shape[1])}
    how: dict[str, Any] = {"method": "neurons by direct contribution", "metric": metric.name, "at": metric.at}
    coords = axes | {"prompt": range(values.shape[2])}
    arrays = {
        "contribution": labelled(values, f"contribution to the {metric.name}", coords, model, [check], **how),
        "activation": labelled(active, "activation", coords, model, **how),
    }
    plain = {"neuron": (list(axes), chosen.cpu().numpy()), "word": ([*axes, "top"], words(model, promoted))}
    return xr.Dataset({**arrays, **plain}, attrs=arrays["contribution"].attrs | attach([check], {}))


def _adds_up(model: Model, shares: Float[Tensor, "layer prompt"], written: Float[Tensor, "layer prompt"]) -> Check:
    error = float((shares - written).abs().max() / written.abs().max().clamp(min=1e-9))
    threshold = 1e-3 if model.dtype.itemsize >= 4 else 5e-2
    why = "a layer's neurons and its bias must add up to what its MLP adds; else a norm stands between them"
    return Check.at_most("neurons add up to the MLP", error, threshold, why, otherwise="fail")
