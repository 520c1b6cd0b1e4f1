"""Is there a subspace that carries a variable? Learn the rotation under which exchanging a few axes exchanges it.

Distributed alignment search: Geiger et al. 2023 (arXiv:2303.02536). A search can find a subspace where there is none,
in a random model or for a random variable: Makelov et al. 2023 (arXiv:2311.17030), Arora et al. 2024
(arXiv:2402.12560).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from interp.arrays import Check, attach, labelled
from interp.edits import Edit
from interp.model import Model
from interp.precision import widened
from interp.probing.activations import At, Place, collect
from interp.probing.controls import untrained
from interp.probing.pairing import Pairs, answering, paired
from interp.probing.splits import folds_of
from interp.recording import Recording
from interp.replay import run_recorded
from interp.sites import Site
from interp.sweep import sweep
from interp.tasks import Labelled

RUNS = ("learnt", "whole site", "random subspace", "random labels", "untrained model")
_SOURCE = "arXiv:2303.02536"


def das(
    model: Model,
    data: Labelled,
    site: Site,
    at: At = -1,
    k: int = 1,
    steps: int = 60,
    rate: float = 0.02,
    most: int = 128,
    seed: int = 0,
) -> xr.Dataset:
    """A subspace of a site such that exchanging it between prompts makes answers follow the source; and its nulls.

    Learnt on some groups of prompts and tried on others. Beside it: the whole site exchanged, a random subspace, one
    learnt for classes drawn at random, and one learnt in an untrained copy of the model.

    Args:
        data: With `answers`; sources are any other prompts of the same family.
        k: The dimension of the subspace.
        steps, rate: Of Adam, on the whole batch, for the log odds of the source's answers.
        most: At most so many prompts, to learn from and to try.

    Returns:
        `accuracy` by (run, prompt), on prompts of groups that nothing was learnt of: 1 where the source's class is
        answered, among the prompts whose own class is another; `train_accuracy` and `train_score` (mean log odds) by
        run; `basis` by (run, direction, feature), NaN for the whole site.

    Raises:
        ValueError: Data without answers; a dimension that the site does not have; heads, which a subspace would mix.
    """
    if "pos" not in site.axes or "head" in site.axes:
        raise ValueError(f"a subspace is learnt of a vector at each position; {site} has axes {', '.join(site.axes)}")
    fold = folds_of(data.y, len(data.classes), data.groups, seed=seed)
    parts = [(fold != 0).nonzero().flatten(), (fold == 0).nonzero().flatten()]
    train, test = (paired(data, most, seed, part, alike=True) for part in parts)
    generator = torch.Generator().manual_seed(seed)
    false = [_relabelled(data, pairs, generator) for pairs in (train, test)]
    copied = untrained(model, seed)
    here, there = (_stage(m, data, (train, test), Place(site, at)) for m in (model, copied))
    width = here.x.shape[-1]
    if not 1 <= k <= width:
        raise ValueError(f"{site} has {width} dimensions; a subspace of it has 1 to {width}, not {k}")
    noise = torch.linalg.qr(torch.randn(width, k, generator=generator))[0].T.to(here.x)
    learn = lambda stage, pairs: _learn(stage, pairs, noise, steps, rate)
    bases = {
        "learnt": (here, (train, test), learn(here, train)),
        "whole site": (here, (train, test), torch.eye(width).to(here.x)),
        "random subspace": (here, (train, test), noise),
        "random labels": (here, (false[0], false[1]), learn(here, false[0])),
        "untrained model": (there, (train, test), learn(there, train)),
    }
    scores = {run: [stage.score(pairs[i], basis, i) for i in (0, 1)] for run, (stage, pairs, basis) in bases.items()}
    kept = {
        run: basis if len(basis) == k else torch.full_like(noise, torch.nan) for run, (_, _, basis) in bases.items()
    }
    how = {"method": "distributed alignment search", "site": str(site), "at": at, "concept": data.name, "seed": seed}
    return _label(model, data, (train, test), scores, kept, how | {"k": k, "steps": steps, "rate": rate})


@dataclass(frozen=True)
class _Stage:
    """A model with its prompts recorded, to learn from and to try."""

    model: Model
    place: Place
    x: Float[Tensor, "prompt d"]
    recordings: Sequence[Any]

    def score(self, pairs: Pairs, basis: Float[Tensor, "k d"], part: int, grad: bool = False) -> Float[Tensor, " pair"]:
        """How much rather than another the source's class is answered, when a subspace is exchanged."""
        source = self.x[pairs.source.to(self.x.device)]
        change = lambda x: x + (source.to(x) - x) @ basis.to(x).T @ basis.to(x)
        edit = Edit(self.place.site, change, {"pos": self.place.at})
        return sweep(self.model, self.recordings[part], [[edit]], [pairs.metric], grad=grad, progress=False).values[
            0, 0
        ]


def _stage(model: Model, data: Labelled, parts: Sequence[Pairs], place: Place) -> _Stage:
    x = collect(model, data.prompts, [place.site], [place.at], progress=False).at_place(place)
    recordings: list[Recording | Any] = []
    for pairs in parts:
        trace, recording = run_recorded(model, model.tokens(pairs.tokens), [place.site], (), True)
        recordings.append(recording or trace.tokens)
    return _Stage(model, place, widened(x), recordings)


def _relabelled(data: Labelled, pairs: Pairs, generator: torch.Generator) -> Pairs:
    """The same pairs, the wanted class drawn at random."""
    wanted = torch.randint(0, len(data.classes), pairs.base.shape, generator=generator)
    shift = torch.randint(1, len(data.classes), pairs.base.shape, generator=generator)
    metric = answering(data, pairs.base, wanted, (wanted + shift) % len(data.classes))
    return Pairs(pairs.tokens, pairs.base, pairs.source, metric)


def _learn(stage: _Stage, pairs: Pairs, start: Float[Tensor, "k d"], steps: int, rate: float) -> Float[Tensor, "k d"]:
    """An orthonormal basis that makes the wanted answers likeliest."""
    free = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.enable_grad():
            basis = torch.linalg.qr(free.T)[0].T
            loss = -logsigmoid(stage.score(pairs, basis, 0, grad=True).float()).mean()
            loss.backward(inputs=[free])
        optimizer.step()
    return torch.linalg.qr(free.detach().T)[0].T


def _label(
    model: Model,
    data: Labelled,
    parts: Sequence[Pairs],
    scores: dict[str, list[Tensor]],
    bases: dict[str, Float[Tensor, "k d"]],
    how: dict[str, Any],
) -> xr.Dataset:
    differs = [data.y[pairs.base] != data.y[pairs.source] for pairs in parts]
    right = [torch.stack([(scores[run][i] > 0).float() for run in RUNS]) for i in (0, 1)]
    train = right[0][:, differs[0].to(right[0].device)].mean(-1)
    test = right[1][:, differs[1].to(right[1].device)]
    prompts: Int[Tensor, " prompt"] = parts[1].base[differs[1]]
    coords: dict[str, Sequence[Any]] = {"run": list(RUNS)}
    table = {
        "accuracy": labelled(test, "accuracy", {**coords, "prompt": prompts.tolist()}, model, **how),
        "train_accuracy": labelled(train, "accuracy", coords, model, **how),
        "train_score": labelled(torch.stack([scores[run][0].mean() for run in RUNS]), "log odds", coords, model, **how),
    }
    basis = torch.stack([bases[run] for run in RUNS])
    axes = {**coords, "direction": range(basis.shape[1]), "feature": range(basis.shape[2])}
    table["basis"] = labelled(basis, "basis", axes, model, **how)
    attrs = {key: table["accuracy"].attrs[key] for key in ("model", "backend", "precision", "device")}
    return xr.Dataset(table).assign_attrs(attrs | attach(_checks(test.mean(-1).tolist()), how))


def _checks(accuracy: Sequence[float]) -> list[Check]:
    """What is learnt must do better than each of its nulls, and no better than the whole site."""
    own, whole, *nulls = accuracy
    rows = []
    for name, null in zip(RUNS[2:], nulls):
        why = f"what a search also finds with {name} says nothing of the model"
        rows.append(Check.at_least(f"accuracy above that of {name}", own - null, 0.1, why, _SOURCE))
    why = "a subspace that does more than the whole site works off the distribution"
    return [*rows, Check.at_most("accuracy over the whole site's", own - whole, 0.1, why, "arXiv:2311.17030")]
