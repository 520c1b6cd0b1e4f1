"""Logit lens: what would the model predict if it stopped at each layer?

nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr

from interp.arrays import Check, labelled, position_labels
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.sites import Site
from interp.traces import Trace


@torch.no_grad()
def logit_lens(model: Model, prompts: Prompts, metric: Metric, kind: str = "resid_post") -> xr.DataArray:
    """A metric of the logits decoded from each layer by the model's own final norm and unembedding.

    Returns:
        Values by (layer, prompt), with the check that the last layer's equal the model's own.
    """
    tokens, sites = model.tokens(prompts), _stream(model, kind)
    trace = model.run(tokens, read=sites)
    decoded = [Trace(tokens, model.unembed(trace[site]), {}) for site in sites]
    values = torch.stack([metric(layer) for layer in decoded])
    coords = {"layer": [site.layer for site in sites], "prompt": range(len(tokens))}
    checks = [_identity(decoded[-1].logits[:, -1], trace.logits[:, -1])] if kind == "resid_post" else []
    return labelled(values, metric.name, coords, model, checks, method="logit lens", site=kind, metric=metric.name)


@torch.no_grad()
def top_tokens(model: Model, prompts: Prompts, kind: str = "resid_post") -> xr.Dataset:
    """The likeliest next token at each layer and position of the first prompt.

    Returns:
        A dataset of `token` (text) and `probability` by (layer, pos).
    """
    tokens, sites = model.tokens(prompts), _stream(model, kind)
    trace = model.run(tokens, read=sites)
    best = torch.stack([model.unembed(trace[site])[0].softmax(-1).max(-1).values for site in sites])
    ids = torch.stack([model.unembed(trace[site])[0].argmax(-1) for site in sites])
    coords: dict[str, Sequence[Any]] = {
        "layer": [site.layer for site in sites],
        "pos": position_labels(model, tokens.rows([0])),
    }
    probability = labelled(best, "probability", coords, model, method="logit lens", site=kind)
    words = [model.words(row.tolist()) for row in ids]
    return xr.Dataset({"token": (("layer", "pos"), words), "probability": probability}, attrs=probability.attrs)


def _stream(model: Model, kind: str) -> list[Site]:
    """The sites of a kind, if they are as wide as what the unembedding reads."""
    sites = model.sites(kind)
    if sites[0].axes[-1] != "d_model":
        axes = ", ".join(sites[0].axes)
        raise ValueError(f"a lens decodes the residual stream and what is added to it; {kind} has axes {axes}")
    return sites


def _identity(decoded: torch.Tensor, logits: torch.Tensor) -> Check:
    spread = float(logits.std())
    error = float((decoded - logits).abs().max()) / max(spread, 1e-9)
    threshold = 1e-4 if logits.dtype.itemsize >= 4 else 1e-2
    return Check(
        "last layer equals the model", error, threshold, "pass" if error <= threshold else "fail",
        "the lens of the last layer is the model's own output; a difference means a norm, scale or cap was missed",
    )  # fmt: skip
