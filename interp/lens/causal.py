"""Does a lens read what the model itself uses? Ablate directions of a stream, and see whether both respond alike.

Causal fidelity: Belrose et al. 2023 (arXiv:2303.08112), section 4. Their basis of directions is found by descent; here
it is that of the largest response to second order, which has a closed form.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check, labelled
from interp.directions import rotation
from interp.edits import Edit
from interp.lens.places import Place, place_of
from interp.lens.rows import Rows, divergence, log_probs
from interp.lens.tuned import TunedLens, check_lens
from interp.metrics import kl_from
from interp.model import Model, Prompts
from interp.precision import widened
from interp.progress import Progress
from interp.sites import Site
from interp.stats import spearman
from interp.sweep import sweep


def fidelity(
    model: Model,
    prompts: Prompts,
    site: Site,
    by: TunedLens | None = None,
    at: int | str = -1,
    directions: int = 64,
    samples: int = 8,
    controls: int = 19,
    seed: int = 0,
    progress: Progress = None,
) -> xr.DataArray:
    """How far the lens's prediction and the model's move when directions of a stream are set to their mean.

    Args:
        site: A residual stream.
        by: A tuned lens; by default the logit lens.
        at: The position read and ablated: an index, or a role.
        directions: How many: half of them those to which the lens responds most, given how far the stream varies along
            them; the others drawn at random in proportion to its variance. Of few, the correlation depends on the draw.
        samples: Tokens drawn from each decoded distribution, to find the former.
        controls: Lenses to compare with, each this one behind a rotation at random: along what varies much, everything
            responds.

    Returns:
        KL divergence (nats) of the ablated from the unablated prediction, by (responder, direction, prompt); responders
        are "lens" and "model". Check: the rank correlation of the two over directions, which must be above that of
        every control.

    Raises:
        ValueError: Fewer than eight prompts, or all alike; a lens of another model; a site that is no stream.
        KeyError: A site that the lens does not translate.
    """
    check_lens(by, model)
    tokens = model.tokens(prompts)
    place = place_of(model, site, by)
    if len(tokens) < 8:
        raise ValueError(f"the variance of a stream needs prompts, eight or more; {len(tokens)} were given")
    with torch.no_grad():
        trace = model.run(tokens, read=[site])
        rows = Rows.of(tokens, at)
        stream = rows.take(trace[site])
        final = trace.logits[rows.prompt, rows.pos]
    if float(widened(stream).std(0).max()) <= 1e-6 * float(widened(stream).abs().max()):
        raise ValueError(f"{site} holds the same at {at!r} of all prompts: no direction varies; give different prompts")
    generator = torch.Generator().manual_seed(seed)
    found = _directions(model, place, stream, directions, samples, generator)
    mean = widened(stream).mean(0)
    with torch.no_grad():
        responses = partial(_responses, model, place, stream, mean, found)
        lens, turned = responses(), [responses(rotation(mean, generator)).mean(-1) for _ in range(controls)]
        cells = [[_ablation(site, mean, unit, at)] for unit in found]
        swept = sweep(model, tokens, cells, [kl_from(final).reading(at)], progress=progress)
    values = torch.stack([lens, swept.values[0]])
    coords: dict[str, Sequence[Any]] = {"responder": ["lens", "model"], "direction": range(len(found))}
    how = {"method": "causal fidelity", "site": str(site), "at": at, "seed": seed, **swept.how}
    how |= {"lens": "logit lens" if by is None else "tuned lens"}
    coords |= {"prompt": range(len(tokens))}
    return labelled(values, "KL divergence", coords, model, [_ranks(values.mean(-1), turned)], **how)


def _directions(
    model: Model, place: Place, stream: Float[Tensor, "row d"], n: int, samples: int, generator: torch.Generator
) -> Float[Tensor, "direction d"]:
    """Unit vectors: those of the largest response of the lens to second order, and random ones."""
    wide = widened(stream).double()
    variance, basis = torch.linalg.eigh(torch.cov(wide.T))
    root = basis * variance.clamp(min=0).sqrt() @ basis.T
    slopes = _slopes(model, place, stream, samples, generator).double()
    _, influence = torch.linalg.eigh(root @ (slopes.T @ slopes) @ root)
    strongest = (root @ influence).T.flip(0)[: n - n // 2]
    random = torch.randn(n // 2, len(root), generator=generator).to(root) @ root
    vectors = torch.cat([strongest, random])
    return (vectors / vectors.norm(dim=-1, keepdim=True)).to(widened(stream).dtype)


def _slopes(
    model: Model, place: Place, stream: Float[Tensor, "row d"], samples: int, generator: torch.Generator
) -> Float[Tensor, "slope d"]:
    """Gradients of log probabilities of drawn tokens: their products average to Fisher's matrix."""
    with torch.enable_grad():
        leaf = stream.detach().clone().requires_grad_()
        decoded = log_probs(model, place.of(leaf))
        drawn = torch.multinomial(decoded.detach().exp().cpu(), samples, replacement=True, generator=generator)
        return torch.cat([
            torch.autograd.grad(decoded.gather(-1, token.to(leaf.device)[:, None]).sum(), leaf, retain_graph=True)[0]
            for token in drawn.T
        ])  # fmt: skip


def _responses(
    model: Model,
    place: Place,
    stream: Float[Tensor, "row d"],
    mean: Float[Tensor, " d"],
    directions: Float[Tensor, "direction d"],
    turn: Float[Tensor, "d d"] | None = None,
) -> Float[Tensor, "direction row"]:
    """How far what is decoded moves when each direction is set to its mean; of the stream as it is, or turned."""
    decoded = lambda x: log_probs(model, place.of(x if turn is None else (widened(x) @ turn).to(x)))
    plain = decoded(stream)
    return torch.stack([divergence(plain, decoded(_ablated(stream, mean, unit))) for unit in directions])


def _ablated(x: Float[Tensor, "*rest d"], mean: Tensor, unit: Tensor) -> Float[Tensor, "*rest d"]:
    """The stream with its mean along a direction."""
    return (x - ((x.to(mean) - mean) @ unit)[..., None] * unit).to(x)


def _ablation(site: Site, mean: Tensor, unit: Tensor, at: int | str) -> Edit:
    return Edit(site, lambda x: _ablated(x, mean, unit), {"pos": at})


def _ranks(responses: Float[Tensor, "responder direction"], turned: Sequence[Float[Tensor, " direction"]]) -> Check:
    """The check that what moves the lens moves the model, and more than it moves what is no lens."""
    name, why = "rank correlation of lens and model", "a lens that reads what the model does not use responds otherwise"
    paper = "arXiv:2303.08112"
    if responses.shape[1] < 3 or float(responses.std(-1).min()) < 1e-9:
        return Check(name, float("nan"), 0.5, "skipped", why, paper)
    value = spearman(*responses.cpu().numpy())
    others = [spearman(other.cpu().numpy(), responses[1].cpu().numpy()) for other in turned]
    least = max([0.5, *others])
    why += f"; the threshold is the best of {len(others)} lenses behind a random rotation, or 0.5"
    return Check.above(name, value, least, why, paper)
