"""Activations of a concept's prompts, at chosen sites and positions, in one pass over the prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from interp.arguments import check_finite
from interp.model import Model
from interp.precision import widened
from interp.sites import Site
from interp.steering.concept import Concept
from interp.traces import Tokens

_ROWS = 64  # prompts that are run at a time, so that whole sites of all of them need not be held

Sides = tuple[Tensor, Tensor]  # of the positive prompts (n, d) and of the negative (m, d)


@torch.no_grad()
def collect(
    model: Model, concept: Concept, sites: Sequence[Site], positions: Sequence[int | str], head: int | None = None
) -> dict[tuple[Site, int | str], Sides]:
    """What each site held at each position, of the positive and of the negative prompts; in float32 at least.

    Raises:
        ValueError: NaN or infinity.
    """
    sides = [_read(model, tokens, sites, positions, head) for tokens in (concept.positive, concept.negative)]
    return {key: (sides[0][key], sides[1][key]) for key in sides[0]}


def _read(
    model: Model, tokens: Tokens, sites: Sequence[Site], positions: Sequence[int | str], head: int | None
) -> dict[tuple[Site, int | str], Tensor]:
    found: dict[tuple[Site, int | str], list[Tensor]] = {(site, at): [] for site in sites for at in positions}
    for start in range(0, len(tokens), _ROWS):
        trace = model.run(tokens.rows(slice(start, start + _ROWS)), read=sites, last_only=True)
        for (site, at), parts in found.items():
            value = trace.at(site, at) if head is None else trace.at(site, at)[:, head]
            check_finite(value, f" at {site}, {at!r}")
            parts.append(widened(value))
    return {key: torch.cat(parts) for key, parts in found.items()}
