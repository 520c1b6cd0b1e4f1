"""Steering beside other concepts' steering, and beside saying it in the prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.steering.application import Setting, setting_of
from interp.steering.vector import Vectors
from interp.sweep import sweep
from interp.traces import Tokens


def swept(
    model: Model, tokens: Tokens, metric: Metric, settings: Sequence[Setting], progress: Progress = None
) -> Float[Tensor, "cell prompt"]:
    """The metric without steering, and under each setting."""
    cells = [[], *(setting.edits for setting in settings)]
    return sweep(model, tokens, cells, [metric], progress=progress).values[0]


def prefixed(model: Model, prompts: Prompts, prefix: str) -> Tokens:
    """Prompts with a text before each, behind the beginning-of-sequence token if there is one; roles move along."""
    tokens, added = model.tokens(prompts), model.tokens(prefix).ids[0]
    bos = getattr(model.tokenizer, "bos_token_id", None) if model.bos else None
    rows = []
    for row, start in zip(tokens.ids, tokens.mask.argmax(-1).tolist()):
        own = row[start:]
        rows.append(torch.cat([added, own[1:] if int(own[0]) == bos else own]))  # the prefix brings its own
    width = max(map(len, rows))
    ids = torch.stack([torch.cat([row.new_zeros(width - len(row)), row]) for row in rows])
    mask = torch.stack([torch.arange(width, device=row.device) >= width - len(row) for row in rows]).long()
    wider = width - tokens.ids.shape[1]
    return model.tokens(Tokens(ids, mask, {name: positions + wider for name, positions in tokens.roles.items()}))


def specificity(
    model: Model, settings: Mapping[str, Setting | Vectors], targets: Mapping[str, tuple[Prompts, Metric]]
) -> xr.DataArray:
    """What steering along each concept does to the metric of each: large along the diagonal, small elsewhere.

    Args:
        settings: By concept; or vectors, which are added once.
        targets: By name, the prompts of a metric and the metric; the concept's own has the concept's name.

    Returns:
        Changes by (concept, metric, prompt), NaN where a metric has fewer prompts, with a check: the largest mean
        effect on another metric as a share of that on the concept's own.
    """
    given = [setting_of(setting) for setting in settings.values()]
    most = max(len(model.tokens(prompts)) for prompts, _ in targets.values())
    table = torch.full((len(settings), len(targets), most), torch.nan)
    for j, (prompts, metric) in enumerate(targets.values()):
        values = swept(model, model.tokens(prompts), metric, given).float().cpu()
        table[:, j, : values.shape[1]] = values[1:] - values[0]
    coords = {"concept": list(settings), "metric": list(targets), "prompt": range(most)}
    return labelled(table, "change in the metric", coords, model, [_spill(table, coords)], method="specificity")


def _spill(table: Float[Tensor, "concept metric prompt"], coords: Mapping[str, Any]) -> Check:
    mean = table.nanmean(-1).abs()
    own = [(i, coords["metric"].index(name)) for i, name in enumerate(coords["concept"]) if name in coords["metric"]]
    shares = [
        float(mean[i].clone().index_fill(0, torch.tensor(j), 0).max() / mean[i, j].clamp(min=1e-12)) for i, j in own
    ]
    worst = max(shares, default=float("nan"))
    why = "largest mean effect on another concept's metric over that on its own; the worst of all concepts"
    status = "skipped" if worst != worst or len(coords["metric"]) < 2 else "pass" if worst <= 0.5 else "warn"
    return Check("effect on other metrics", worst, 0.5, status, why)
