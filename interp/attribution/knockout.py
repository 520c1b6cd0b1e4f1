"""Attention knock-out: through which layers does a position need to see another?

Geva et al. 2023 (arXiv:2304.14767): cut the edges from a query to a key in a window of layers and measure what is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Integral
from typing import Any

import torch
import xarray as xr
from jaxtyping import Bool
from torch import Tensor

from interp.arrays import labelled, position_labels
from interp.contrast import share
from interp.edits import Edit
from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.replay import run_recorded
from interp.sites import Site
from interp.sweep import sweep
from interp.traces import Tokens, visible

Spot = int | str  # a position: an index for all prompts, or the name of a role
Keys = Sequence[Spot] | Mapping[str, Sequence[Spot]]


def knock_out(
    model: Model,
    prompts: Prompts,
    metric: Metric | Sequence[Metric],
    keys: Keys = (),
    query: Spot | Sequence[Spot] | None = -1,
    windows: int | Sequence[Sequence[int]] = 3,
    normalize: bool = False,
    progress: Progress = None,
) -> xr.DataArray:
    """What the metric loses when, in some layers, no head of a query may attend to some keys.

    Args:
        metric: One, or several, which give an axis `metric`.
        keys: Positions or roles, each cut alone, by default every position; or sets of them by name, each cut together.
        query: The position or positions, or roles, from which the edges go; None cuts the keys off from every position
            but themselves.
        windows: How many neighbouring layers are cut together, centred on each layer in turn, of an even number with
            the odd one below (fewer at the ends: of 2, the first window is layer 0 alone); or the sets of layers
            themselves.
        normalize: Give the change as a share of the metric of the uncut run.
        progress: See `sweep`.

    Returns:
        The metric with the edges cut less that without, by (metric, window, key, prompt), without the first if there is
        one metric. A window is named by its first and last layer, "0-2", or by its one, "0". NaN is what was not
        measured: edges that the model's mask cuts already in all of these layers, and those without which a query would
        see nothing at all.

    Raises:
        ValueError: No layers, or some that the model does not have; a position or role that the prompts do not have;
            with `normalize`, a metric too near to zero to divide by.
    """
    tokens, metrics = model.tokens(prompts), metrics_of(metric)
    query = int(query) if isinstance(query, Integral) else query
    layers = _windows(windows, model)
    cuts = _cuts(tokens, keys, query, position_labels(model, tokens))
    sites = model.sites("scores", layers=sorted({layer for window in layers for layer in window}))
    with torch.no_grad():
        last_only = all(one.last_only for one in metrics)
        trace, recording = run_recorded(model, tokens, sites, sites, last_only)
        base = torch.stack([one(trace) for one in metrics])
    seen = {site.layer: visible(trace[site]).any(1) for site in sites}
    places = list(product(layers, cuts.values()))
    cells = [[cut.edit(Site("scores", layer)) for layer in window] for window, cut in places]
    swept = sweep(model, recording or tokens, cells, metrics, progress=progress)
    measured = torch.stack([cut.measured([seen[layer] for layer in window]) for window, cut in places])
    values = (swept.values - base[:, None]).where(measured, torch.nan)
    if normalize:
        values = torch.stack([share(v, b, one.name) for v, b, one in zip(values, base, metrics)])
    how: dict[str, Any] = {"method": "attention knock-out", "metric": ", ".join(one.name for one in metrics)}
    how |= {"query": "every other" if query is None else query if isinstance(query, int | str) else list(query)}
    how |= swept.how
    coords: dict[str, Sequence[Any]] = {} if isinstance(metric, Metric) else {"metric": [one.name for one in metrics]}
    coords |= {"window": list(map(_name, layers)), "key": list(cuts), "prompt": range(len(tokens))}
    unit = f"change as a share of {how['metric']}" if normalize else f"change in {how['metric']}"
    return labelled(values.reshape([len(labels) for labels in coords.values()]), unit, coords, model, **how)


@dataclass(frozen=True)
class _Cut:
    """Edges that are cut together: from some queries to some keys.

    Attributes:
        query: The one position, or role, from which they go, if there is just one.
        to_itself: Whether an edge from a position to itself is among them.
    """

    queries: Bool[Tensor, "prompt query"]
    keys: Bool[Tensor, "prompt key"]
    query: Spot | None
    to_itself: bool

    @property
    def edges(self) -> Bool[Tensor, "prompt query key"]:
        """Each edge that is cut."""
        edges = self.queries[:, :, None] & self.keys[:, None]
        return edges if self.to_itself else edges & ~torch.eye(edges.shape[-1], dtype=torch.bool, device=edges.device)

    def edit(self, site: Site) -> Edit:
        """What masks the scores of these edges in one layer; of a single query, the rest is not touched."""
        at: dict[str, Any] = {} if self.query is None else {"query": self.query}
        cut = self.edges if self.query is None else self.keys

        def change(scores: Tensor) -> Tensor:
            left = scores.masked_fill(cut[:, None], torch.finfo(scores.dtype).min)
            # A query that would be left with nothing keeps what it has, and is not measured.
            return torch.where(visible(left).any(-1, keepdim=True), left, scores)

        return Edit(site, change, at)

    def measured(self, seen: Sequence[Bool[Tensor, "prompt query key"]]) -> Bool[Tensor, " prompt"]:
        """The prompts in which something is cut in some layer, and no query left with nothing in any."""
        edges = self.edges
        exist = torch.stack([(one & edges).any(-1).any(-1) for one in seen]).any(0)
        emptied = torch.stack([(one.any(-1) & ~(one & ~edges).any(-1)).any(-1) for one in seen]).any(0)
        return exist & ~emptied


def _cuts(tokens: Tokens, keys: Keys, query: Spot | Sequence[Spot] | None, words: Sequence[str]) -> dict[str, _Cut]:
    """The edges to cut, by the name of their keys."""
    if isinstance(keys, Mapping):
        groups = {str(name): list(places) for name, places in keys.items()}
    else:
        named = keys or range(len(words))
        groups = {key if isinstance(key, str) else words[_index(key, len(words))]: [key] for key in named}
    if query is None:
        at_query, single = torch.ones_like(tokens.mask, dtype=torch.bool), None
    else:
        queries = [query] if isinstance(query, int | str) else list(query)
        at_query, single = _marked(tokens, queries), queries[0] if len(queries) == 1 else None
    return {name: _Cut(at_query, _marked(tokens, at), single, query is not None) for name, at in groups.items()}


def _marked(tokens: Tokens, places: Sequence[Spot]) -> Bool[Tensor, "prompt pos"]:
    """Where some positions, or roles, of the prompts are."""
    if not places:
        raise ValueError("a set of keys, or of queries, names at least one position or role; an empty one was given")
    n_pos = tokens.ids.shape[1]
    rows = torch.arange(len(tokens), device=tokens.ids.device)
    marked = torch.zeros_like(tokens.mask, dtype=torch.bool)
    for place in places:
        marked[rows, tokens.role(place) if isinstance(place, str) else _index(place, n_pos)] = True
    return marked


def _index(place: int, n_pos: int) -> int:
    if not -n_pos <= place < n_pos:
        raise ValueError(f"position {place} is out of range: the prompts have {n_pos} positions")
    return place % n_pos


def _windows(windows: int | Sequence[Sequence[int]], model: Model) -> list[list[int]]:
    n_layers = model.shape.n_layers
    if isinstance(windows, int):
        if windows < 1:
            raise ValueError(f"a window has at least one layer; windows={windows} was given")
        below, above = windows // 2, -(-windows // 2)
        ends = dict.fromkeys((max(0, i - below), min(n_layers, i + above)) for i in range(n_layers))
        return [list(range(*pair)) for pair in ends]
    chosen = [sorted(set(window)) for window in windows]
    if not chosen or not all(chosen):
        raise ValueError(f"a window has at least one layer; windows={windows!r} has an empty one, or none at all")
    return chosen


def _name(window: Sequence[int]) -> str:
    """Its first and last layer, or all of them where some between are left out."""
    if len(window) == 1:
        return str(window[0])
    whole = list(window) == list(range(window[0], window[-1] + 1))
    return f"{window[0]}-{window[-1]}" if whole else ", ".join(map(str, window))
