"""What can be fitted as a probe: estimators by name, for all sites at once, or one of scikit-learn's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.probing.closed_forms import lda, mass_mean, ridge
from interp.probing.logistic import logistic
from interp.probing.problems import Features, Fits, Problems, Scaling, scaling_of


@dataclass(frozen=True)
class Estimator:
    """How probes are fitted.

    Attributes:
        fit: From features and problems, and optionally fits to begin from, to fits.
        penalties: What to choose from, the strongest first; one means that nothing is chosen.
        quick: As `fit`, at last as precise as the choice of a penalty needs, before that as seeing takes that there is
            no hope.
        predicts: "classes", "numbers", or "either".
        usual: The penalty of a single fit.
        below: What a penalty must be less than.
    """

    name: str
    fit: Callable[..., "Fits | Fitted"]
    penalties: Sequence[float]
    quick: Sequence[Callable[..., "Fits | Fitted"]]
    predicts: str = "classes"
    usual: float = 1.0
    below: float = math.inf

    def penalty(self, given: float | None) -> float:
        """The penalty of a single fit.

        Raises:
            TypeError: What is no number.
            ValueError: A number that is no penalty of this estimator; any, if it has none.
        """
        if given is None:
            return self.usual
        if len(self.penalties) == 1:
            raise ValueError(f"{self.name} takes no penalty, but {given!r} was given; leave penalty= out")
        if not isinstance(given, Real):
            raise TypeError(f"penalty= is a number, not {given!r}; what kind of probe it is, is said by by=")
        if not 0 < given < self.below:
            between = "above 0" if self.below == math.inf else f"between 0 and {self.below:g}"
            raise ValueError(
                f"the penalty of {self.name} lies {between}, but {given} was given; for hardly any take 1e-6"
            )
        return float(given)


_LOGISTIC_QUICK = partial(logistic, tolerance=3e-2), partial(logistic, tolerance=1e-4)
ESTIMATORS = {
    "logistic": Estimator("logistic", logistic, (1e3, 1e2, 1e1, 1e0, 1e-1), _LOGISTIC_QUICK),
    "lda": Estimator("lda", lda, (0.99, 0.9, 0.5, 0.2, 0.05), (lda,), usual=0.2, below=1),
    "mass_mean": Estimator("mass_mean", mass_mean, (0.0,), (mass_mean,)),
    "ridge": Estimator("ridge", ridge, (1e4, 1e3, 1e2, 1e1, 1e0), (ridge,), "numbers"),
}


def estimator_of(by: Any, n_classes: int) -> Estimator:
    """An estimator by name, or scikit-learn's as one.

    Raises:
        ValueError: An unknown name; an estimator that does not predict what there is to predict.
        TypeError: Something that has no `fit` and `predict`.
    """
    if isinstance(by, str):
        if by not in ESTIMATORS:
            raise ValueError(
                f"unknown probe {by!r}; choose from {', '.join(ESTIMATORS)}, or give an estimator of scikit-learn"
            )
        chosen = ESTIMATORS[by]
    elif hasattr(by, "fit") and hasattr(by, "predict"):
        chosen = _drop_in(by)
    else:
        raise TypeError(f"a probe is named by a text or is an estimator with fit and predict, not {by!r}")
    wanted = "classes" if n_classes else "numbers"
    if chosen.predicts not in (wanted, "either"):
        raise ValueError(
            f"{chosen.name} predicts {chosen.predicts}, but the labels are {wanted}; for classes choose logistic, "
            f"lda or mass_mean, for numbers ridge. Integers are classes; numbers are given as floats: list(map(float, "
            f"labels))"
        )
    return chosen


def predicts_numbers(by: Any) -> bool:
    """Whether an estimator, by name or of scikit-learn, predicts numbers."""
    if isinstance(by, str):
        return by in ESTIMATORS and ESTIMATORS[by].predicts == "numbers"
    from sklearn.base import is_regressor

    return hasattr(by, "fit") and is_regressor(by)


@dataclass(frozen=True)
class Fitted:
    """Fitted estimators of scikit-learn, used as `Fits` are; `weight` and `bias` are NaN if one is not linear."""

    models: Sequence[Sequence[Any]]
    scaling: Scaling
    weight: Float[Tensor, "site problem out d"]
    bias: Float[Tensor, "site problem out"]
    n_classes: int

    def __call__(self, x: Float[Tensor, "site example d"]) -> Float[Tensor, "site problem example out"]:
        """What each gives for every example: log odds, log probabilities, or numbers."""
        rows = []
        for i, models in enumerate(self.models):
            scaled = (x[i] - self.scaling.mean[i][:, None]) / self.scaling.spread[i][:, None]
            rows.append(torch.stack([_outputs(m, part, self.n_classes) for m, part in zip(models, scaled)]))
        return torch.stack(rows).to(x)


def _drop_in(estimator: Any) -> Estimator:
    """An estimator of scikit-learn, a fresh clone of it for each site and problem; what it tunes, it tunes itself."""
    from sklearn.base import clone, is_classifier

    def fit(features: Features, problems: Problems, start: Any = None) -> Fitted:
        scaling = scaling_of(features.x, problems.used)
        models: list[list[Any]] = []
        for i, x in enumerate(features.x):
            models.append([])
            for q, (y, used) in enumerate(zip(problems.y, problems.used)):
                scaled = (x[used] - scaling.mean[i, q]) / scaling.spread[i, q]
                target = y[used].long() if problems.n_classes else y[used].double()
                models[-1].append(clone(estimator).fit(scaled.cpu().numpy(), target.cpu().numpy()))
        weight, bias = _linear(models, scaling, problems)
        return Fitted(models, scaling, weight, bias, problems.n_classes)

    name = type(estimator).__name__
    return Estimator(name, fit, (0.0,), (fit,), "classes" if is_classifier(estimator) else "numbers")


def _outputs(model: Any, x: Float[Tensor, "example d"], n_classes: int) -> Float[Tensor, "example out"]:
    """What a fitted estimator says of some examples, as a linear probe would."""
    values = x.cpu().numpy()
    if not n_classes:
        return torch.as_tensor(model.predict(values)).reshape(len(x), 1)
    if not hasattr(model, "predict_proba"):
        scores = torch.as_tensor(model.decision_function(values))
        return scores.reshape(len(x), -1)
    known = torch.as_tensor(model.predict_proba(values)).clamp(1e-7, 1)  # a forest may say never
    probs = known.new_full((len(x), n_classes), 1e-7)
    probs[:, torch.as_tensor(model.classes_).long()] = known
    logs = probs.log()
    return logs[:, 1:] - logs[:, :1] if n_classes == 2 else logs


def _linear(models: Sequence[Sequence[Any]], scaling: Scaling, problems: Problems) -> tuple[Tensor, Tensor]:
    shape = (*scaling.mean.shape[:2], problems.n_outputs, scaling.mean.shape[-1])
    weight, bias = scaling.mean.new_full(shape, torch.nan), scaling.mean.new_full(shape[:-1], torch.nan)
    for i, row in enumerate(models):
        for q, model in enumerate(row):
            if hasattr(model, "coef_") and model.coef_.size == shape[2] * shape[3]:
                weight[i, q] = torch.as_tensor(model.coef_).reshape(shape[2:]).to(weight) / scaling.spread[i, q]
                bias[i, q] = torch.as_tensor(model.intercept_).reshape(-1).to(bias) - weight[i, q] @ scaling.mean[i, q]
    return weight, bias
