"""Everything that is measured of the probes at every place, from activations alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.probing.activations import Activations, At
from interp.probing.controls import bag_of_tokens, control_labels, token_and_position, types_at
from interp.probing.crossval import Held, fitted_on_all, out_of_fold
from interp.probing.estimators import ESTIMATORS, Estimator
from interp.probing.mdl import codelength
from interp.probing.permutation import shuffle_scores
from interp.probing.problems import Features
from interp.probing.scores import balanced, correct, effective_dimension, stability
from interp.probing.splits import check_classes, shuffled
from interp.stats import auroc
from interp.tasks import Labelled

By = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """What is asked of every place.

    Attributes:
        fold: The fold of each prompt.
        blind: The same made without a look at the labels: or shuffles, which the folds do not fit, would do worse.
        controls: How many draws of the control task.
        shuffles: How many shuffles of the labels.
        full: Whether to measure controls, code lengths and transfer.
    """

    data: Labelled
    fold: Int[Tensor, " prompt"]
    blind: Int[Tensor, " prompt"]
    estimator: Estimator
    controls: int
    shuffles: int
    full: bool
    seed: int

    @property
    def n_classes(self) -> int:
        return len(self.data.classes)

    @property
    def families(self) -> list[str]:
        """The families, if there are several."""
        names = sorted(set(self.data.families or ()))
        return names if len(names) > 1 and self.full else []


def measure(activations: Activations, plan: Plan, device: torch.device) -> By:
    """Measures by place, each a tensor whose first axis is the place."""
    found: dict[str, list[Any]] = {}
    # Of one draw for all places, whatever else is drawn: their largest scores are to be those of the same labels.
    y, generator = plan.data.y.cpu(), torch.Generator().manual_seed(plan.seed)
    shuffles = torch.cat([y[None], shuffled(y, plan.data.groups, plan.shuffles, generator)]).to(device)
    for at in activations.at:
        for index, x in activations.blocks(at, device):
            for name, values in _block(Features(x), plan, at, shuffles).items():
                rows = found.setdefault(name, [None] * len(activations.places))
                for i, value in zip(index, values):
                    rows[i] = value
    return {name: torch.stack(rows) for name, rows in found.items()}


def _block(features: Features, plan: Plan, at: At, shuffles: Shaped[Tensor, "label prompt"]) -> By:
    """All measures at some places of one position, of the labels and of shuffles of them."""
    y, fold, device = shuffles[0], plan.fold.to(shuffles.device), shuffles.device
    labels = y[None]
    if plan.full:
        generator = torch.Generator().manual_seed(plan.seed)
        types, _ = types_at(plan.data.prompts, at, plan.data.groups)
        labels = torch.cat([labels, control_labels(types, y.cpu(), plan.controls, generator).to(device)])
    held = out_of_fold(features, labels, plan.n_classes, fold, plan.estimator)
    found = _scores(held, labels, plan.n_classes) | _whole(features, y, held, plan)
    found["examples_per_dimension"] = len(y) / effective_dimension(features.x)
    scores = shuffle_scores(features, shuffles, plan.n_classes, plan.blind.to(device))
    found |= {"correlation": scores.correlation, "shuffled_accuracy": scores.accuracy}
    found["shuffled_balanced_accuracy"] = scores.balanced
    if plan.full and plan.n_classes:
        code = codelength(features, labels[:2], plan.n_classes, plan.data.groups, plan.estimator, plan.seed)
        found |= {"bits": code[0], "compression": code[1] / code[0]}
    if plan.families:
        found["transfer"] = _transfer(features, y, fold, plan)
    return found


def _scores(held: Held, labels: Tensor, n_classes: int) -> By:
    right = correct(held.outputs, labels, n_classes)
    found = {"loss": held.loss(labels)[:, 0], "right": right[:, 0], "control_right": right[:, 1:].mean(1)}
    found["stability"] = stability(held.weight[:, 0])
    if n_classes:
        found["balanced_accuracy"] = balanced(right[:, 0], labels[0])
    if n_classes == 2:
        scores = held.outputs[:, 0, :, 0]
        found["auroc"] = torch.from_numpy(auroc(scores.cpu().numpy(), (labels[0] == 1).cpu().numpy())).to(scores)
    return found


def _whole(features: Features, y: Tensor, held: Held, plan: Plan) -> By:
    """The probe of all examples, under the penalty that most folds chose; of equally many, the stronger."""
    penalty = held.penalty[:, 0].sort(-1, descending=True).values
    votes = (penalty[:, :, None] == penalty[:, None]).sum(-1)
    chosen = penalty.gather(1, votes.argmax(-1, keepdim=True))[:, 0]
    fits = fitted_on_all(features, y, chosen, plan.n_classes, plan.estimator)
    return {"weight": fits.weight[:, 0], "bias": fits.bias[:, 0], "penalty": chosen}


def _transfer(features: Features, y: Tensor, fold: Tensor, plan: Plan) -> Float[Tensor, "site family example"]:
    """Whether each example is right by a probe of each family's examples in the other folds; of numbers, the loss."""
    assert plan.data.families is not None
    names = plan.families
    for name in names:
        inside = torch.tensor([family == name for family in plan.data.families])
        check_classes(plan.fold[inside], plan.data.y[inside], plan.n_classes, f"family {name!r}")
    members = torch.stack([torch.tensor([f == name for f in plan.data.families], device=y.device) for name in names])
    labels = y.repeat(len(names), 1)
    held = out_of_fold(features, labels, plan.n_classes, fold, plan.estimator, members)
    return correct(held.outputs, labels, plan.n_classes) if plan.n_classes else held.loss(labels)


def lexical(plan: Plan, at: Sequence[At], device: torch.device) -> tuple[Tensor, Float[Tensor, "pos prompt"]]:
    """Losses of probes of the words alone: of the prompt as a bag, and of the token that is read and its place."""
    tokens, y, fold = plan.data.prompts, plan.data.y.to(device), plan.fold.to(device)
    estimator = ESTIMATORS["logistic" if plan.n_classes else "ridge"]

    def loss(x: Float[Tensor, "example d"]) -> Float[Tensor, " example"]:
        return out_of_fold(Features(x[None].to(device)), y[None], plan.n_classes, fold, estimator).loss(y[None])[0, 0]

    return loss(bag_of_tokens(tokens)), torch.stack([loss(token_and_position(tokens, p)) for p in at])


def plain_loss(activations: Activations, plan: Plan, device: torch.device) -> Float[Tensor, "place prompt"]:
    """Losses at every place, and nothing else: of another model."""
    rows: list[Any] = [None] * len(activations.places)
    y, fold = plan.data.y.to(device), plan.fold.to(device)
    for at in activations.at:
        for index, x in activations.blocks(at, device):
            held = out_of_fold(Features(x), y[None], plan.n_classes, fold, plan.estimator)
            for i, value in zip(index, held.loss(y[None])[:, 0]):
                rows[i] = value
    return torch.stack(rows)


def nulls(found: By, majority: float) -> tuple[By, dict[str, float]]:
    """The accuracies that one shuffle in twenty passes: at each place, and at the best and the worst of all.

    Whoever says the commonest class has the majority's accuracy, so that no null is below it. Of balanced accuracy, the
    same is one over the number of classes, which shuffles are about in any case.
    """
    places, ends = By(), dict[str, float]()
    for name, least in (("accuracy", majority), ("balanced_accuracy", 0.0)):
        null = found[f"shuffled_{name}"][:, 1:].double()
        places[f"null_{name}"] = null.quantile(0.95, dim=-1).clamp(min=least)
        of = "" if name == "accuracy" else "balanced_"
        ends[f"{of}null_of_the_best"] = max(float(null.amax(0).quantile(0.95)), least)
        ends[f"{of}null_of_the_worst"] = float(null.amin(0).quantile(0.05))
    return places, ends
