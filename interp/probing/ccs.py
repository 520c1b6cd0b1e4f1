"""Which direction tells yes from no, if nobody says which is which? And does it find what was meant?

Contrast-consistent search: Burns et al. 2022 (arXiv:2212.03827), in closed form as an eigenvalue problem: Schouten &
Bloem 2025 (arXiv:2511.02089). It finds the most consistent feature, whatever that is: Farquhar et al. 2023
(arXiv:2312.10029); a distractor that is planted here shows it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.arrays import Check, labelled
from interp.model import Model
from interp.precision import widened
from interp.probing.crossval import out_of_fold
from interp.probing.estimators import ESTIMATORS
from interp.probing.problems import Features
from interp.probing.splits import folds_of
from interp.sites import Site
from interp.tasks import Labelled

METHODS = ("ccs", "pca", "random", "supervised")


def ccs_directions(
    positive: Float[Tensor, "pair d"], negative: Float[Tensor, "pair d"], k: int = 1, ridge: float = 1e-2
) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """The directions along which the two sides of contrast pairs differ most, for how much they have in common.

    A statement and its negation should get opposite values (consistency), far apart (confidence). The share of a
    direction's variance that lies in differences rather than sums of a pair is largest for these directions.

    Args:
        positive, negative: Activations of both sides of each pair; each side is centred first, so that what tells the
            sides apart as such is left out.
        k: How many directions, the best first; each of unit length, its sign without meaning.
        ridge: Added to the variances, as a share of their mean: what hardly varies must not win.

    Returns:
        The directions, and for each the share, from 0 to 1; a half is a direction without meaning.
    """
    sides = [(x - x.mean(0)).double() for x in (positive, negative)]
    apart, together = sides[0] - sides[1], sides[0] + sides[1]
    difference = apart.T @ apart / len(apart)
    whole = difference + together.T @ together / len(apart)
    level = ridge * whole.diagonal().mean().clamp(min=1e-12)
    sizes, rows = torch.linalg.eigh(whole)
    white = rows / (sizes.clamp(min=0) + level).sqrt()
    shares, vectors = torch.linalg.eigh(white.T @ difference @ white)
    found = torch.nn.functional.normalize((white @ vectors.flip(-1)[:, :k]).T, dim=-1)
    return found.to(positive), shares.flip(-1)[:k].to(positive)


@torch.no_grad()
def ccs(
    model: Model,
    data: Labelled,
    site: Site,
    size: float = 2.0,
    randoms: int = 20,
    seed: int = 0,
) -> xr.DataArray:
    """Contrast-consistent search on prompts with either answer appended: which of them is right?

    Beside it: the largest principal component of the differences, random directions, and a logistic probe that is told
    the labels (on groups that it has not seen). All once more with a distractor planted: a coin is tossed for each
    prompt, and a direction added to one side and taken from the other, as the coin says.

    Args:
        data: Of two classes, with `answers`; the first answer of each class is appended.
        site: With a position axis; read at the appended token.
        size: Of the distractor, in standard deviations of the differences' length.
        randoms: How many random directions to average over.

    Returns:
        Accuracies by (planted, by, label), the label being the concept or the distractor's coin; a direction's sign
        is chosen for the best, so that a half is the least. The check says whether the search still finds the concept
        once the distractor is there.

    Raises:
        ValueError: Data without answers, or of other than two classes.
    """
    if data.answers is None or len(data.classes) != 2:
        raise ValueError(f"contrast pairs need two classes with answers; {data.name} has classes {data.classes}")
    sides = [_appended(model, data, label, site) for label in (1, 0)]
    generator = torch.Generator().manual_seed(seed)
    coin = torch.randint(0, 2, (len(data),), generator=generator)
    unit = torch.nn.functional.normalize(torch.randn(sides[0].shape[1], generator=generator), dim=0).to(sides[0])
    apart = sides[0] - sides[1]
    reach = size * (apart - apart.mean(0)).norm(dim=-1).square().mean().sqrt() / 2
    step = reach * (2 * coin.to(sides[0]) - 1)[:, None] * unit
    values = []
    for planted in ((sides[0], sides[1]), (sides[0] + step, sides[1] - step)):
        values.append(_accuracies(planted[0], planted[1], data, coin, randoms, generator))
    array = torch.stack(values)
    coords: dict[str, Sequence[Any]] = {"planted": [False, True], "by": list(METHODS), "label": ["concept", "coin"]}
    how = {"method": "contrast-consistent search", "site": str(site), "concept": data.name, "seed": seed, "size": size}
    return labelled(array, "accuracy", coords, model, _checks(array), **how)


def _appended(model: Model, data: Labelled, label: int, site: Site) -> Float[Tensor, "pair d"]:
    assert data.answers is not None
    tokens = model.tokens(data.prompts).append(data.answers[:, label, 0])
    x = model.run(tokens, read=[site], last_only=True).at(site, -1).flatten(1)
    return widened(x)


def _accuracies(
    positive: Tensor, negative: Tensor, data: Labelled, coin: Tensor, randoms: int, generator: torch.Generator
) -> Float[Tensor, "method label"]:
    apart = positive - negative
    apart = apart - apart.mean(0)
    labels = torch.stack([data.y, coin]).to(apart.device)
    noise = torch.randn(randoms, apart.shape[1], generator=generator).to(apart)
    found, _ = ccs_directions(positive, negative)
    component = torch.linalg.svd(apart, full_matrices=False)[2][:1]
    rows = [_agreement(apart @ direction.T, labels) for direction in (found, component, noise)]
    fold = folds_of(data.y, 2, data.groups).to(apart.device)
    held = out_of_fold(Features(apart[None]), labels, 2, fold, ESTIMATORS["logistic"]).outputs[0, ..., 0]
    right = ((held > 0) == labels.bool()).double().mean(-1)
    return torch.stack([*rows, right])


def _agreement(
    scores: Float[Tensor, "pair direction"], labels: Shaped[Tensor, "label pair"]
) -> Float[Tensor, " label"]:
    """The share of pairs on the right side, by the better sign; of several directions, the mean."""
    right = ((scores.T > 0)[:, None] == labels.bool()).double().mean(-1)
    return torch.maximum(right, 1 - right).mean(0)


def _checks(values: Float[Tensor, "planted method label"]) -> list[Check]:
    found, component, random, told = values[0, :, 0].tolist()
    why = f"random directions reach {random:.2f}, the largest component {component:.2f}, a supervised probe {told:.2f}"
    rows = [Check.at_least("accuracy of the search", found, random + 0.1, why, "arXiv:2212.03827")]
    kept, coin = values[1, 0].tolist()
    why = f"with a distractor planted, it agrees with the concept in {kept:.2f} and with the distractor in {coin:.2f}"
    status = "pass" if kept > coin else "fail"
    name = "accuracy beyond that on a planted distractor"
    return [*rows, Check(name, kept - coin, 0.0, status, why, "arXiv:2312.10029")]
