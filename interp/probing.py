"""Linear probes: what can be read off each layer, and how much more than chance?

Alain & Bengio 2016 (arXiv:1610.01644); control by shuffled labels after Hewitt & Liang 2019 (arXiv:1909.03368).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.arrays import Check, labelled
from interp.model import Model, Prompts
from interp.sites import Site


@dataclass(frozen=True)
class Probe:
    """A linear classifier of two classes; `direction` is a tensor that `edits.add` and `edits.remove` accept."""

    direction: Float[Tensor, " d"]
    bias: float

    def __call__(self, x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        """Log odds of the positive class."""
        return x @ self.direction + self.bias


def fit(x: Float[Tensor, "example d"], y: Shaped[Tensor, " example"], penalty: float = 1.0) -> Probe:
    """Logistic regression (scikit-learn) on features scaled within this set, given back in the site's own units.

    Raises:
        ValueError: Features that are not finite; labels of one class only.
    """
    from sklearn.linear_model import LogisticRegression

    _check_classes(y)
    if not bool(x.isfinite().all()):
        raise ValueError(f"the features of {int((~x.isfinite()).any(-1).sum())} examples are not finite numbers")
    x = x.detach().double().cpu()
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    model = LogisticRegression(C=1 / penalty, max_iter=1000).fit(((x - mean) / scale).numpy(), y.cpu().numpy())
    direction = torch.from_numpy(model.coef_[0]) / scale
    return Probe(direction.float(), float(model.intercept_[0] - direction @ mean))


def _check_classes(y: Tensor) -> None:
    if len(classes := y.unique().tolist()) != 2:
        raise ValueError(f"a probe needs labels of two classes, not {classes}")


def accuracy(probe: Probe, x: Float[Tensor, "example d"], y: Shaped[Tensor, " example"]) -> float:
    """The share of examples on the right side."""
    return float(((probe(x.float().cpu()) > 0) == y.cpu().bool()).float().mean())


@torch.no_grad()
def probe_layers(
    model: Model,
    prompts: Prompts,
    labels: Sequence[bool],
    groups: Sequence[str],
    sites: Sequence[Site],
    at: int | str = -1,
    held_out: float = 0.3,
    seed: int = 0,
    controls: int = 5,
) -> xr.Dataset:
    """A probe at each site on a split that keeps every group whole, beside probes of shuffled labels.

    Args:
        groups: What must not be in both halves of the split, such as the word that decides the label.
        at: The position read: an index, or a role of the prompts.

    Returns:
        A dataset of held-out `accuracy`, of the `control` (mean over shuffles) and of `majority`, by layer.
    """
    tokens = model.tokens(prompts)
    y = torch.tensor([bool(label) for label in labels])
    if len({len(tokens), len(y), len(groups)}) != 1:
        raise ValueError(
            f"{len(tokens)} prompts, {len(y)} labels and {len(groups)} groups were given; one each is needed"
        )
    if not sites:
        raise ValueError("no sites were given to probe; give some, such as model.sites('resid_post')")
    _check_classes(y)
    trace = model.run(tokens, read=sites, last_only=True)
    generator = torch.Generator().manual_seed(seed)
    features = [trace.at(site, at).flatten(1).float().cpu() for site in sites]
    train, test = _split(y, groups, held_out, generator)
    scores, nulls = [], []
    for x in features:
        scores.append(accuracy(fit(x[train], y[train]), x[test], y[test]))
        shuffled = [y[train][torch.randperm(len(train), generator=generator)] for _ in range(controls)]
        nulls.append(sum(accuracy(fit(x[train], labels_), x[test], y[test]) for labels_ in shuffled) / controls)
    share = float(y[test].float().mean())
    coords = {"layer": [site.layer for site in sites]}
    how = {
        "method": "logistic probe",
        "site": sites[0].kind,
        "at": at,
        "split": f"by group, {held_out} held out",
        "seed": seed,
    }
    arrays = {"accuracy": scores, "control": nulls, "majority": [max(share, 1 - share)] * len(sites)}
    check = _selectivity(max(scores), max(nulls), len(test))
    return xr.Dataset({k: labelled(torch.tensor(v), k, coords, model, [check], **how) for k, v in arrays.items()})


def _split(y: Tensor, groups: Sequence[str], held_out: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices of two halves that share no group; both classes are in each."""
    names = sorted(set(groups))
    for _ in range(100):
        order = [names[i] for i in torch.randperm(len(names), generator=generator)]
        chosen = set(order[: max(1, round(held_out * len(names)))])
        test = torch.tensor([group in chosen for group in groups])
        if all(len(set(y[part].tolist())) == 2 for part in (test, ~test)):
            return (~test).nonzero().flatten(), test.nonzero().flatten()
    raise ValueError(f"no split of {len(names)} groups leaves both classes in both halves; give more groups")


def _selectivity(best: float, control: float, n: int) -> Check:
    margin = 2 * (0.25 / n) ** 0.5
    status = "pass" if best - control > margin else "warn"
    why = f"a probe of the labels must beat probes of shuffled labels by two standard errors of {n} examples"
    return Check("selectivity", best - control, margin, status, why, "arXiv:1909.03368")
