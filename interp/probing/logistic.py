"""Logistic regression for all sites, folds, labels and penalties at once, on the device where the features are.

One preconditioner for each site and penalty, the inverse of the bound of Böhning 1992 on the Hessian, makes nearly a
sphere of the objective's bowl; limited-memory quasi-Newton steps (Liu & Nocedal 1989) go the rest of the way. Every
pass over the features serves all problems: it is one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from interp.probing.problems import Features, Fits, Problems, Scaling, in_units

_MEMORY = 8  # quasi-Newton pairs that are kept
_HALVINGS = 12  # of a step that goes too far
Pair = tuple[Tensor, Tensor, Tensor]  # a step, how it changed the gradient, and the product of the two


def logistic(
    features: Features,
    problems: Problems,
    start: Fits | None = None,
    tolerance: float | None = None,
    steps: int = 300,
) -> Fits:
    """Logistic regression with an L2 penalty on standardised features: sum of log losses + penalty / 2 * |weight|^2.

    For two classes and penalty 1 / C this is scikit-learn's LogisticRegression after its StandardScaler, for more
    classes its multinomial form; biases are not penalised.

    Args:
        start: Where to begin, such as the fits under a stronger penalty; by default at zero.
        tolerance: How far from its least value the objective may stay, as a share of it, by the quasi-Newton estimate;
            by default 1e-5 in single precision, 1e-10 in double.
        steps: At most so many.
    """
    tolerance = tolerance or (1e-10 if features.x.dtype == torch.float64 else 1e-5)
    objective = _objective(features, problems)
    scaling = objective.scaling.within(features.scaling)
    theta = objective.zero()
    if start is not None:
        bias = start.bias + (start.weight @ scaling.mean[..., None])[..., 0]
        theta = torch.cat([start.weight * scaling.spread[:, :, None], bias[..., None]], -1)
    theta = _minimise(objective, objective.at(theta, objective.outputs(theta)), tolerance, steps)
    return in_units(theta[..., :-1], theta[..., -1], scaling, problems.n_classes)


@dataclass(frozen=True)
class _State:
    """Where the search is: parameters, what they give for each example, the objective and its gradient."""

    theta: Float[Tensor, "site problem out p"]
    outputs: Float[Tensor, "site example problem out"]
    value: Float[Tensor, "site problem"]
    gradient: Float[Tensor, "site problem out p"]

    def some(self, index: Int[Tensor, " some"]) -> "_State":
        """Some of the problems."""
        return _State(self.theta[:, index], self.outputs[:, :, index], self.value[:, index], self.gradient[:, index])

    def sites(self, index: Int[Tensor, " some"]) -> "_State":
        """All problems of some of the sites."""
        return _State(*(part[index] for part in (self.theta, self.outputs, self.value, self.gradient)))


@dataclass(frozen=True)
class _Objective:
    """The penalised log loss of every problem at every site; the last parameter of each output is its bias.

    Attributes:
        penalties, inverses: For each penalty that there is, the inverse of the bound on the Hessian of every site; if
            there are fewer examples than features, of the matrix of examples by examples in Woodbury's identity.
    """

    x: Float[Tensor, "site example d"]
    y: Int[Tensor, "example problem"]
    used: Float[Tensor, "example problem"]
    penalty: Float[Tensor, "site problem"]
    scaling: Scaling
    n_outputs: int
    penalties: Sequence[float]
    inverses: Sequence[Float[Tensor, "site m m"]]

    def some(self, index: Int[Tensor, " some"]) -> "_Objective":
        """Some of the problems."""
        y, used = self.y[:, index], self.used[:, index]
        return replace(self, y=y, used=used, penalty=self.penalty[:, index], scaling=self.scaling.some(index))

    def sites(self, index: Int[Tensor, " some"]) -> "_Objective":
        """All problems of some of the sites."""
        scaling = Scaling(self.scaling.mean[index], self.scaling.spread[index])
        inverses = [inverse[index] for inverse in self.inverses]
        return replace(self, x=self.x[index], penalty=self.penalty[index], scaling=scaling, inverses=inverses)

    def zero(self) -> Float[Tensor, "site problem out p"]:
        """All parameters zero."""
        return self.x.new_zeros(len(self.x), self.used.shape[1], self.n_outputs, self.x.shape[-1] + 1)

    def at(self, theta: Tensor, outputs: Tensor) -> _State:
        return _State(theta, outputs, self.value(theta, outputs), self.gradient(theta, outputs))

    def outputs(self, theta: Float[Tensor, "site problem out p"]) -> Float[Tensor, "site example problem out"]:
        raw = theta[..., :-1] / self.scaling.spread[:, :, None]
        bias = theta[..., -1] - (raw @ self.scaling.mean[..., None])[..., 0]
        return (self.x @ raw.flatten(1, 2).mT).unflatten(-1, bias.shape[1:]) + bias[:, None]

    def value(self, theta: Tensor, outputs: Tensor) -> Float[Tensor, "site problem"]:
        if self.n_outputs == 1:
            losses = softplus(outputs[..., 0]) - self.y * outputs[..., 0]
        else:
            losses = outputs.logsumexp(-1) - outputs.gather(-1, self._right(outputs))[..., 0]
        return (losses * self.used).sum(1) + self.penalty / 2 * (theta[..., :-1] ** 2).sum((-1, -2))

    def gradient(self, theta: Tensor, outputs: Tensor) -> Float[Tensor, "site problem out p"]:
        if self.n_outputs == 1:
            residual = outputs.sigmoid() - self.y[..., None]
        else:
            right = self._right(outputs)
            residual = outputs.softmax(-1).scatter_add(-1, right, -torch.ones_like(right, dtype=outputs.dtype))
        residual = residual * self.used[..., None]
        total = residual.sum(1)
        raw = (residual.flatten(2).mT @ self.x).unflatten(1, total.shape[1:])
        scaled = (raw - total[..., None] * self.scaling.mean[:, :, None]) / self.scaling.spread[:, :, None]
        return torch.cat([scaled + self.penalty[..., None, None] * theta[..., :-1], total[..., None]], -1)

    def _right(self, outputs: Tensor) -> Int[Tensor, "site example problem 1"]:
        return self.y[None, ..., None].expand(len(outputs), -1, -1, 1)

    def search(
        self, state: _State, step: Tensor, slope: Tensor, live: Bool[Tensor, "site problem"]
    ) -> tuple[_State, Bool[Tensor, "site problem"]]:
        """A step that lowers the objective enough (Armijo), halved as often as it takes; and for which there is none.

        Only live problems move. One without such a step is as low as the precision of its numbers lets it be.
        """
        along = self.outputs(step)
        size = live.to(step)
        # In the last digits a step that is fine can look like none.
        slack = 4 * torch.finfo(step.dtype).eps * state.value
        for i in range(_HALVINGS + 1):
            theta = state.theta + size[..., None, None] * step
            outputs = state.outputs + size[:, None, :, None] * along
            far = live & (self.value(theta, outputs) > state.value + 1e-4 * size * slope + slack)
            if not bool(far.any()) or bool((size == 0).all()):
                break
            size = torch.where(far, size / 2 if i < _HALVINGS - 1 else 0.0, size)
        return self.at(theta, outputs), live & (size == 0)

    def precondition(self, gradient: Float[Tensor, "site problem out p"]) -> Tensor:
        """The gradient times the inverse of a bound on the Hessian."""
        weights = torch.empty_like(gradient[..., :-1])
        for penalty, inverse in zip(self.penalties, self.inverses):
            here = self.penalty == penalty
            columns = here.any(0).nonzero().flatten()
            if not len(columns):
                continue
            part = gradient[:, columns, :, :-1]
            right = part.flatten(1, 2)
            if inverse.shape[-1] == right.shape[-1]:
                solved = right @ inverse
            else:
                solved = (right - (right @ self.x.mT) @ inverse @ self.x) / penalty
            weights[:, columns] = torch.where(here[:, columns, None, None], solved.view_as(part), weights[:, columns])
        bias = gradient[..., -1:] / (self.used.sum(0)[:, None, None] * _curvature(self.n_outputs))
        return torch.cat([weights, bias], -1)


def _objective(features: Features, problems: Problems) -> _Objective:
    x, gram = features.scaled, features.gram
    penalty = problems.penalty.to(x).expand(len(x), -1)
    penalties = penalty.unique().tolist()
    curvature = _curvature(problems.n_outputs)
    few = x.shape[1] < x.shape[2]
    shifts = [one / curvature for one in penalties]
    eye = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    inverses = [torch.cholesky_inverse(torch.linalg.cholesky(gram + shift * eye)) for shift in shifts]
    inverses = inverses if few else [inverse / curvature for inverse in inverses]
    y, used = problems.y.long().mT.contiguous(), problems.used.mT.to(x).contiguous()
    return _Objective(x, y, used, penalty, features.among(problems.used), problems.n_outputs, penalties, inverses)


def _curvature(n_outputs: int) -> float:
    """The most that the log loss of an example can curve."""
    return 0.25 if n_outputs == 1 else 0.5


def _minimise(objective: _Objective, state: _State, tolerance: float, steps: int) -> Tensor:
    """The parameters at which the objective is least; once most problems or sites are there, the others go on alone."""
    memory: list[Pair] = []
    stuck = torch.zeros_like(state.value, dtype=torch.bool)
    for done in range(steps):
        step = -_quasi_newton(memory, objective, state.gradient)
        slope = _dot(step, state.gradient)
        live = (-slope > tolerance * state.value) & ~stuck
        index = live.any(0).nonzero().flatten()
        if not len(index):
            break
        if 2 * len(index) <= live.shape[1]:
            rest = _minimise(objective.some(index), state.some(index), tolerance, steps - done)
            return state.theta.index_copy(1, index, rest)
        places = live.any(1).nonzero().flatten()
        if 2 * len(places) <= live.shape[0]:
            rest = _minimise(objective.sites(places), state.sites(places), tolerance, steps - done)
            return state.theta.index_copy(0, places, rest)
        new, lost = objective.search(state, step, slope, live)
        stuck = stuck | lost
        moved, bent = new.theta - state.theta, new.gradient - state.gradient
        memory = [*memory[1 - _MEMORY :], (moved, bent, _dot(moved, bent))]
        state = new
    return state.theta


def _quasi_newton(memory: Sequence[Pair], objective: _Objective, gradient: Tensor) -> Tensor:
    """The gradient times the inverse Hessian that the last steps suggest (the two-loop recursion)."""
    shares = []
    for moved, bent, product in reversed(memory):
        share = torch.where(product > 0, _dot(moved, gradient) / product, 0.0)
        gradient = gradient - share[..., None, None] * bent
        shares.append(share)
    gradient = objective.precondition(gradient)
    for (moved, bent, product), share in zip(memory, reversed(shares)):
        back = torch.where(product > 0, _dot(bent, gradient) / product, 0.0)
        gradient = gradient + (share - back)[..., None, None] * moved
    return gradient


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "site problem"]:
    return (a * b).sum((-1, -2))
