"""Does the model use what a probe reads? Change it, and see whether the model's answers follow.

Amnesic probing: Elazar et al. 2020 (arXiv:2006.00995); interchange along directions: Geiger et al. 2023
(arXiv:2303.02536). A change moves activations by as much in other directions too: those are its placebos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arguments import check_finite
from interp.arrays import Check, labelled
from interp.edits import Edit
from interp.model import Model
from interp.precision import widened
from interp.probing.activations import Activations, At, Place, activations_of
from interp.probing.crossval import out_of_fold
from interp.probing.erasure import leace
from interp.probing.estimators import estimator_of
from interp.probing.pairing import Pairs, follows, margin, paired
from interp.probing.problems import Features
from interp.probing.splits import check_labelled, folds_of
from interp.progress import Progress
from interp.sites import Site
from interp.sweep import sweep
from interp.tasks import Labelled

WAYS = ("interchange", "erasure")
_SOURCE = "arXiv:2006.00995"


def use(
    model: Model,
    data: Labelled,
    sites: Sequence[Site],
    at: Sequence[At] = (-1,),
    heads: bool = False,
    by: Any = "logistic",
    placebos: int = 24,
    most: int = 128,
    seed: int = 0,
    activations: Activations | None = None,
    progress: Progress = None,
) -> xr.DataArray:
    """Set what a probe reads to what it reads in a prompt of another class, or erase it, and measure the answers.

    The probe of a prompt, and the eraser, are fitted on the other folds. An interchange moves activations the least, in
    the metric of their covariance, for the probe to read what it reads in the other prompt; LEACE erases in the same
    way. A placebo moves every prompt by the same amounts along as many other directions: half of them any, half drawn
    from how activations vary within classes.

    Args:
        data: With `answers`.
        by: A linear probe, see `probe`.
        most: At most so many prompts are changed.
        activations: See `probe`.
        progress: See `sweep`.

    Returns:
        Shares by (way, layer, pos, head if told apart, direction, prompt), where the first direction is "probe". Of an
        interchange, 1 is as far on the other side as the model was on its own; of an erasure, 1 is no preference left.
        Where answers neither follow the labels nor go against them, shares are of the mean size of a preference.
        Its coordinate `p` compares the probe with the placebos, of which the largest over all places counts.

    Raises:
        ValueError: Data without answers or classes; a model whose answers go against the labels; a probe that is not
            linear.
    """
    check_labelled(data)
    pairs = paired(data, most, seed)
    start = margin(model, pairs)
    following = follows(start)
    if following < 0 or not bool(start.any()):
        raise ValueError(
            f"the model's answers do not follow {data.name}: on average the right class's are "
            f"{float(start.mean()):.2f} logits above the others, so that there is no use to be tested"
        )
    whole = start.mean() if following else start.abs().mean()
    activations = activations_of(model, data.prompts, sites, at, heads, activations)
    generator = torch.Generator().manual_seed(seed)
    fold = folds_of(data.y, len(data.classes), data.groups, seed=seed)
    cells = []
    for place in activations.places:
        x = activations.at_place(place).to(model.device)
        check_finite(x, f" at {place.site}, {place.at!r}")
        for moves in _moves(x, data, fold, pairs, by):
            placebo = (moves.placebo(i, generator) for i in range(placebos))
            cells += [
                [_edit(place, *shift)] for shift in ((moves.delta, None), *((moves.sizes, other) for other in placebo))
            ]
    swept = sweep(model, pairs.tokens, cells, [pairs.metric], progress=progress)
    change = (swept.values[0].float() + start).view(len(activations.places), 2, 1 + placebos, -1)
    shares = change / (whole * torch.tensor([2.0, 1.0], device=start.device)[:, None, None])
    return _label(shares, activations, model, pairs, {"by": str(by), "seed": seed, **swept.how}, data)


@dataclass(frozen=True)
class _Moves:
    """By how much each prompt is moved, and what is known of other directions.

    Attributes:
        delta: What is added.
        sizes: The same in coordinates of the space that it lies in.
        residual: How activations differ from the mean of their class.
    """

    delta: Float[Tensor, "pair d"]
    sizes: Float[Tensor, "pair k"]
    residual: Float[Tensor, "example d"]

    def placebo(self, i: int, generator: torch.Generator) -> Float[Tensor, "k d"]:
        """Other directions for the same sizes: any, and in every second placebo such as activations vary along."""
        k, (n, width) = self.sizes.shape[1], self.residual.shape
        noise = torch.randn(k, width, generator=generator).to(self.delta)
        if i % 2:
            mixed = torch.randn(k, n, generator=generator).to(self.delta) @ self.residual
            # Where nothing varies within classes, there is no such direction.
            noise = mixed + 1e-6 * noise
        return torch.linalg.qr(noise.T)[0].T


def _moves(x: Float[Tensor, "example d"], data: Labelled, fold: Tensor, pairs: Pairs, by: Any) -> tuple[_Moves, _Moves]:
    """The interchange and the erasure at one place, fitted without the prompt's fold."""
    n_classes, y = len(data.classes), data.y.to(x.device)
    fold = fold.to(x.device)
    x = widened(x)
    weights = out_of_fold(Features(x[None]), y[None], n_classes, fold, estimator_of(by, n_classes)).weight[0, 0]
    if not bool(weights.isfinite().all()):
        raise ValueError(f"{by} is not linear, so that it has no direction to change")
    moved, erased = torch.zeros(len(x), x.shape[1]).to(x), torch.zeros(len(x), x.shape[1]).to(x)
    sizes = [torch.zeros(len(x), n_classes - 1).to(x) for _ in range(2)]
    source = torch.zeros(len(x), dtype=torch.long).index_put((pairs.base,), pairs.source).to(x.device)
    for f in range(int(fold.max()) + 1):
        inside = fold == f
        read = weights[f] if n_classes == 2 else weights[f, 1:] - weights[f, :1]
        write = _pattern(x[~inside], read)
        eraser = leace(x[~inside], y[~inside], n_classes)
        moved[inside] = (x[source[inside]] - x[inside]) @ read.T @ write
        erased[inside] = eraser(x[inside]) - x[inside]
        for size, delta, basis in ((sizes[0], moved, write), (sizes[1], erased, eraser.write)):
            inner = delta[inside] @ torch.linalg.qr(basis.T)[0]
            size[inside, : inner.shape[1]] = inner
    means = torch.stack([x[y == c].mean(0) for c in range(n_classes)])
    chosen = pairs.base.to(x.device)
    return tuple(_Moves(d[chosen], s[chosen], x - means[y]) for d, s in zip((moved, erased), sizes))  # type: ignore[return-value]


def _pattern(x: Float[Tensor, "example d"], read: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """Where to move activations, the least in the metric of their covariance, for readings to change by one."""
    centred = (x - x.mean(0)).double()
    wide = read.double()
    spread = centred.T @ (centred @ wide.T) / len(x)
    return (torch.linalg.pinv(wide @ spread) @ spread.T).to(x)


def _edit(place: Place, sizes: Float[Tensor, "pair k"], basis: Float[Tensor, "k d"] | None) -> Edit:
    """Add to each prompt as much as it says of each direction; without directions, of each feature."""

    def change(x: Tensor) -> Tensor:
        delta = sizes if basis is None else sizes @ basis  # made here: for all cells at once it would be large
        return x + delta.to(x).reshape(x.shape)

    return Edit(place.site, change, {"pos": place.at} | ({} if place.head is None else {"head": place.head}))


def _label(
    shares: Float[Tensor, "place way direction pair"],
    activations: Activations,
    model: Model,
    pairs: Pairs,
    how: dict[str, Any],
    data: Labelled,
) -> xr.DataArray:
    mean = shares.mean(-1)
    largest = mean[:, :, 1:].amax(0)  # over places
    p = (1 + (largest[None] >= mean[:, :, :1]).sum(-1)).double() / (1 + largest.shape[-1])
    sizes = [len(labels) for labels in activations.coords.values()]
    names = ["probe", *(f"placebo {i}" for i in range(shares.shape[2] - 1))]
    coords: dict[str, Sequence[Any]] = {"way": list(WAYS), **activations.coords, "direction": names}
    coords["prompt"] = pairs.base.tolist()
    values = shares.transpose(0, 1).reshape(2, *sizes, *shares.shape[2:])
    checks = [_check(way, mean[:, i, 0], p[:, i], largest.shape[-1]) for i, way in enumerate(WAYS)]
    how |= {"method": "causal check of probes", "site": activations.sites[0].kind, "concept": data.name}
    array = labelled(values, "share of the answer's margin", coords, model, checks, **how)
    return array.assign_coords(p=(("way", *activations.coords), p.T.reshape(2, *sizes).cpu().numpy()))


def _check(way: str, mean: Float[Tensor, " place"], p: Float[Tensor, " place"], placebos: int) -> Check:
    best = int(mean.argmax())
    why = f"{way} along the probe, at the best place, must change answers more than any of {placebos} placebos anywhere"
    return Check.at_most(f"p-value of {way} against placebos", float(p[best]), 0.05, why, _SOURCE)
