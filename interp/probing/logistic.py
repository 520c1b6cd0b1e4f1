"""Logistic regression for all sites, folds, labels and penalties at once, on the device where the features are.

One preconditioner for each site and penalty makes nearly a sphere of the objective's bowl: at first the inverse of the
bound of Böhning 1992 on the Hessian; where the search takes long, of the Hessian itself, averaged over the problems,
which differ little. Limited-memory quasi-Newton steps (Liu & Nocedal 1989) go the rest of the way. Every pass over the
features serves all problems: it is one matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from interp.probing.curvature import Curvature, Index, some_of
from interp.probing.problems import Features, Fits, Problems, Scaling, gram, in_units, inverse_of, is_few

_MEMORY = 8  # quasi-Newton pairs that are kept
_WORTH = 2  # passes of one problem that cost as much as a Hessian, a feature of it
_ROUGH = 1e-3  # a tolerance above which the preconditioner of a penalty ten times as strong will do
_FINE = 1e-5  # a tolerance up to which the end of a search is tried with the Hessian that there is
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
    objective = _objective(features, problems, within=10 if tolerance > _ROUGH else 1)
    scaling = objective.scaling.within(features.scaling)
    if start is None:
        state = objective.begin()
    else:
        bias = start.bias + (start.weight @ scaling.mean[..., None])[..., 0]
        theta = torch.cat([start.weight * scaling.spread[:, :, None], bias[..., None]], -1)
        state = objective.at(theta, objective.outputs(theta))
    theta = _minimise(objective, state, tolerance, steps)
    if tolerance <= _FINE:  # where classes are far apart the bound is far above the Hessian, and the search ends early
        state = objective.at(theta, objective.outputs(theta))
        theta = _minimise(objective.sharpened(state), state, tolerance, steps)
    return in_units(theta[..., :-1], theta[..., -1], scaling, problems.n_classes)


@dataclass(frozen=True)
class _State:
    """Where the search is: parameters, what they give for each example, the objective and its gradient."""

    theta: Float[Tensor, "site problem out p"]
    outputs: Float[Tensor, "site problem out example"]
    value: Float[Tensor, "site problem"]
    gradient: Float[Tensor, "site problem out p"]

    def part(self, sites: Index, problems: Index) -> "_State":
        """Some of the problems at some of the sites."""
        return _State(*(some_of(x, sites, problems) for x in (self.theta, self.outputs, self.value, self.gradient)))


@dataclass(frozen=True)
class _Objective:
    """The penalised log loss of every problem at every site; the last parameter of each output is its bias."""

    x: Float[Tensor, "site example d"]
    y: Int[Tensor, "problem example"]
    used: Float[Tensor, "problem example"]
    penalty: Float[Tensor, "site problem"]
    scaling: Scaling
    n_outputs: int
    curvature: Curvature

    def part(self, sites: Index, problems: Index) -> "_Objective":
        """Some of the problems at some of the sites."""
        scaling = Scaling(*(some_of(x, sites, problems) for x in (self.scaling.mean, self.scaling.spread)))
        return replace(
            self,
            x=self.x[sites] if len(sites) < len(self.x) else self.x,
            y=self.y[problems],
            used=self.used[problems],
            penalty=some_of(self.penalty, sites, problems),
            scaling=scaling,
            curvature=self.curvature.part(sites, problems),
        )

    def begin(self) -> _State:
        """Where all parameters are zero."""
        sizes = len(self.x), len(self.used), self.n_outputs
        return self.at(self.x.new_zeros(*sizes, self.x.shape[2] + 1), self.x.new_zeros(*sizes, self.x.shape[1]))

    def at(self, theta: Tensor, outputs: Tensor) -> _State:
        return _State(theta, outputs, self.value(theta, outputs), self.gradient(theta, outputs))

    def outputs(self, theta: Float[Tensor, "site problem out p"]) -> Float[Tensor, "site problem out example"]:
        raw = theta[..., :-1] / self.scaling.spread[:, :, None]
        bias = theta[..., -1] - (raw @ self.scaling.mean[..., None])[..., 0]
        return (raw.flatten(1, 2) @ self.x.mT).unflatten(1, bias.shape[1:]) + bias[..., None]

    def value(self, theta: Tensor, outputs: Tensor) -> Float[Tensor, "site problem"]:
        if self.n_outputs == 1:
            losses = softplus(outputs[:, :, 0]) - self.y * outputs[:, :, 0]
        else:
            losses = outputs.logsumexp(2) - outputs.gather(2, self._right(outputs))[:, :, 0]
        return (losses * self.used).sum(-1) + self.penalty / 2 * (theta[..., :-1] ** 2).sum((-1, -2))

    def gradient(self, theta: Tensor, outputs: Tensor) -> Float[Tensor, "site problem out p"]:
        if self.n_outputs == 1:
            residual = outputs.sigmoid() - self.y[:, None]
        else:
            right = self._right(outputs)
            residual = outputs.softmax(2).scatter_add(2, right, -torch.ones_like(right, dtype=outputs.dtype))
        residual = residual * self.used[:, None]
        total = residual.sum(-1)
        raw = (residual.flatten(1, 2) @ self.x).unflatten(1, total.shape[1:])
        scaled = (raw - total[..., None] * self.scaling.mean[:, :, None]) / self.scaling.spread[:, :, None]
        return torch.cat([scaled + self.penalty[..., None, None] * theta[..., :-1], total[..., None]], -1)

    def _right(self, outputs: Tensor) -> Int[Tensor, "site problem 1 example"]:
        return self.y[None, :, None].expand(len(outputs), -1, -1, -1)

    @property
    def patience(self) -> int:
        """The number of steps that cost as much as a Hessian."""
        return 1 + min(self.x.shape[1:]) // (_WORTH * len(self.y) * self.n_outputs)

    def sharpened(self, state: _State) -> "_Objective":
        """The same with the Hessian that there is, averaged over problems and outputs, in place of a bound on it."""
        probability = state.outputs.sigmoid() if self.n_outputs == 1 else state.outputs.softmax(2)
        weight = (probability * (1 - probability) * self.used[:, None]).mean(2)
        root = weight.mean(1).sqrt()
        bias = weight.sum(-1).clamp(min=1e-6)
        rows = None if self.curvature.rows is None else self.x.double() * root[..., None]
        products = gram(self.x, root) if rows is None else gram(rows)
        penalties = self.penalty.unique().tolist()
        inverses = [inverse_of(products, one) for one in penalties]
        return replace(self, curvature=Curvature(rows, penalties, inverses, bias))

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
            outputs = state.outputs + size[..., None, None] * along
            value = self.value(theta, outputs)
            far = live & (value > state.value + 1e-4 * size * slope + slack)
            if not bool(far.any()):
                break
            size = torch.where(far, size / 2 if i < _HALVINGS - 1 else 0.0, size)
        return _State(theta, outputs, value, self.gradient(theta, outputs)), live & (size == 0)


def _objective(features: Features, problems: Problems, within: float = 1) -> _Objective:
    x, bound = features.scaled, 0.25 if problems.n_outputs == 1 else 0.5  # on the curvature of an example's log loss
    penalty = problems.penalty.to(x).expand(len(x), -1)
    used = problems.used.to(x)
    few = is_few(x)
    penalties = penalty.unique().tolist()
    inverses = [features.inverse(one / bound, 1 if few else within) / (1 if few else bound) for one in penalties]
    curvature = Curvature(x.double() if few else None, penalties, inverses, (bound * used.sum(-1)).expand(len(x), -1))
    scaling = features.among(problems.used)
    return _Objective(x, problems.y.long(), used, penalty, scaling, problems.n_outputs, curvature)


def _minimise(objective: _Objective, state: _State, tolerance: float, steps: int) -> Tensor:
    """The parameters at which the objective is least; once most problems or sites are there, the others go on alone."""
    found = state.theta.clone()
    sites, problems = (torch.arange(n, device=found.device) for n in state.value.shape)
    memory: list[Pair] = []
    stuck = torch.zeros_like(state.value, dtype=torch.bool)
    age, due = 0, 1
    for _ in range(steps):
        step = -_quasi_newton(memory, objective, state.gradient)
        slope = _dot(step, state.gradient)
        live = (-slope > tolerance * state.value) & ~stuck
        some = live.any(1).nonzero().flatten(), live.any(0).nonzero().flatten()
        if not len(some[0]):
            break
        if any(2 * len(left) <= n for left, n in zip(some, live.shape)):
            found[sites[:, None], problems] = state.theta
            sites, problems = sites[some[0]], problems[some[1]]
            objective, state = objective.part(*some), state.part(*some)
            memory = [(some_of(a, *some), some_of(b, *some), some_of(c, *some)) for a, b, c in memory]
            step, slope, live, stuck = (some_of(x, *some) for x in (step, slope, live, stuck))
        new, lost = objective.search(state, step, slope, live)
        stuck = stuck | lost
        moved, bent = new.theta - state.theta, new.gradient - state.gradient
        memory = [*memory[1 - _MEMORY :], (moved, bent, _dot(moved, bent))]
        state, age = new, age + 1
        if age == due * objective.patience:
            objective, age, due = objective.sharpened(state), 0, 2 * due
    found[sites[:, None], problems] = state.theta
    return found


def _quasi_newton(memory: Sequence[Pair], objective: _Objective, gradient: Tensor) -> Tensor:
    """The gradient times the inverse Hessian that the last steps suggest (the two-loop recursion)."""
    shares = []
    for moved, bent, product in reversed(memory):
        share = torch.where(product > 0, _dot(moved, gradient) / product, 0.0)
        gradient = gradient - share[..., None, None] * bent
        shares.append(share)
    gradient = objective.curvature.solve(gradient, objective.penalty)
    for (moved, bent, product), share in zip(memory, reversed(shares)):
        back = torch.where(product > 0, _dot(bent, gradient) / product, 0.0)
        gradient = gradient + (share - back)[..., None, None] * moved
    return gradient


def _dot(a: Tensor, b: Tensor) -> Float[Tensor, "site problem"]:
    return (a * b).sum((-1, -2))
