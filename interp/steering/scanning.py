"""Where does a concept read, over layers and positions?

Linear artificial tomography, Zou et al. 2023 (arXiv:2310.01405).
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled, position_labels
from interp.model import Model, Prompts
from interp.sites import Site
from interp.steering.activations import Sides, collect
from interp.steering.concept import Concept, concept_of, exchange_of
from interp.steering.estimators import METHODS, auroc
from interp.steering.extraction import check_method
from interp.steering.vector import Vectors, check_place, many
from interp.tasks import Labelled


def scan(
    model: Model,
    concept: Concept | Labelled,
    sites: Sequence[Site],
    positions: Sequence[int | str] = (-1,),
    method: str = "mean_difference",
    permutations: int = 100,
    held_out: float = 0.3,
    seed: int = 0,
) -> xr.DataArray:
    """How well a direction fitted at each site and position tells held-out prompts apart (linear artificial
    tomography).

    Args:
        positions: Indices, or roles of the prompts.
        permutations: Of the labels, or of the order in each pair: how high the best of all sites gets by chance.

    Returns:
        AUROC on held-out prompts by (site, position), with the p-value of the best as a check. What reads well need
        not steer: see `dose_response`.

    Raises:
        ValueError: Prompts of which nothing can be held out; what `extract_each` raises.
    """
    concept = concept_of(concept)
    for site in sites:
        check_place(site, None)
    check_method(method, concept)
    fit, test = concept.split(held_out, seed)
    if test is None:
        raise ValueError(f"nothing of {concept.name!r} can be held out; give more pairs, or prompts of more groups")
    fitted, tested = (collect(model, part, sites, positions) for part in (fit, test))
    generator = torch.Generator().manual_seed(seed)
    swaps = [(exchange_of(fit, generator), exchange_of(test, generator)) for _ in range(permutations)]
    scores = [_separation(method, sides, tested[key]) for key, sides in fitted.items()]
    nulls = [[_separation(method, a(fitted[key]), b(tested[key])) for a, b in swaps] for key in fitted]
    values = torch.tensor(scores).view(len(sites), len(positions))
    coords: dict[str, Sequence[Any]] = {"site": [str(site) for site in sites], "position": [str(p) for p in positions]}
    how: dict[str, Any] = {
        "method": f"scan by {method}",
        "concept": concept.name,
        "data": concept.fingerprint,
        "seed": seed,
    }
    how |= {"permutations": permutations}
    return labelled(values, "held-out AUROC", coords, model, [_best(values, torch.tensor(nulls))], **how)


def _separation(method: str, fitted: Sides, tested: Sides) -> float:
    """Held-out AUROC of a direction whose sign is that of the prompts it was fitted on."""
    direction = METHODS[method](*fitted)
    sign = torch.where(METHODS["mean_difference"](*fitted) @ direction < 0, -1.0, 1.0)
    return auroc(*(side @ (sign * direction) for side in tested))


def _best(values: Float[Tensor, "site position"], nulls: Float[Tensor, "cell permutation"]) -> Check:
    """Whether the best of all cells is better than the best of all under exchanged labels."""
    n = nulls.shape[-1] if nulls.numel() else 0
    p = (1 + int((nulls.max(0).values >= values.max()).sum())) / (1 + n) if n else float("nan")
    why = "p-value of the best of all sites and positions, against the best under exchanged labels"
    return Check.at_most("best site against chance", p, 0.05, why)


@torch.no_grad()
def projections(model: Model, prompts: Prompts, vectors: Vectors) -> xr.DataArray:
    """How far each token reads above each vector's threshold: the map of linear artificial tomography.

    Returns:
        Projections on the readers, less their thresholds, by (site, prompt, pos); NaN is padding.
    """
    vectors, tokens = many(vectors), model.tokens(prompts)
    trace = model.run(tokens, read=[vector.site for vector in vectors], last_only=True)
    rows = []
    for vector in vectors:
        value = trace[vector.site] if vector.head is None else trace[vector.site][:, :, vector.head]
        rows.append(vector.read(value).float().masked_fill(tokens.mask == 0, torch.nan))
    coords: dict[str, Sequence[Any]] = {"site": [str(vector.site) for vector in vectors], "prompt": range(len(tokens))}
    coords["pos"] = position_labels(model, tokens)
    how: dict[str, Any] = {"method": "projection on the reader", "concept": str(vectors[0].how.get("concept", ""))}
    return labelled(torch.stack(rows), "projection above the threshold", coords, model, **how)
