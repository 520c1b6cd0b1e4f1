"""Metrics: logits to one number per prompt, never averaged.

A metric knows which positions it reads, the last one unless told otherwise, so that a sweep computes no other logits.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from interp.answers import Answers, at_tokens, check_answers, chosen, ids_of, sum_of
from interp.arguments import check_differentiable, listed
from interp.edits import version_of
from interp.model import Model
from interp.precision import HINT, widened
from interp.traces import Tokens, Trace


@dataclass(frozen=True)
class Metric:
    """A named function of the logits at one position of each prompt.

    Attributes:
        name: What is measured.
        of: From logits (batch, vocab) to values (batch,).
        at: The position read: an index for all prompts, or the name of a role.
        weights: Of a metric that is a weighted sum of a few logits: for n prompts on a device, the tokens and their
            weights, (batch, n) each. A sweep then computes no other logits.
    """

    name: str
    of: Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, " batch"]]
    at: int | str = -1
    weights: Callable[[int, torch.device], tuple[Tensor, Tensor]] | None = None

    def __repr__(self) -> str:
        return f"Metric({self.name!r}, at={self.at!r})"

    def __call__(self, trace: Trace) -> Float[Tensor, " batch"]:
        """One number for each prompt of a run."""
        if not isinstance(trace, Trace):
            raise TypeError(f"{self.name} is measured in a run, not in {type(trace).__name__}; give model.run(prompts)")
        found = self.position(trace.tokens, trace.logits)
        trace.tokens.column(self.at)
        values = self.of_logits(found)
        self.check_numbers(values)
        return values

    def check_numbers(self, values: Float[Tensor, "*prompt"], where: Callable[..., str] = lambda *index: "") -> None:
        """Refuse values that are no numbers: in a result NaN would stand for what was not measured.

        Args:
            where: Says more about the first of them, given its index.

        Raises:
            ValueError: If so.
        """
        if bool((wrong := values.detach().isnan()).any()):
            raise ValueError(
                f"{self.name} is not a number in {int(wrong.sum())} of {wrong.numel()} values"
                f"{where(*wrong.nonzero()[0].tolist())}; {HINT}"
            )

    def of_logits(self, logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
        """One number for each row of logits, at least in single precision.

        Raises:
            ValueError: A function that gives something else.
        """
        logits = widened(logits)
        version = version_of(logits)
        return self._checked(self.of(logits), logits, version)

    def position(self, tokens: Tokens, values: Shaped[Tensor, "batch pos n"]) -> Shaped[Tensor, "batch n"]:
        """The position that is read, of each prompt."""
        if isinstance(self.at, str):
            if values.shape[1] != tokens.ids.shape[1]:
                raise ValueError(f"{self.name} reads the role {self.at!r}, but the run was asked for other logits only")
            return values[torch.arange(len(values), device=values.device), tokens.role(self.at)]
        if not -values.shape[1] <= self.at < values.shape[1]:
            raise IndexError(
                f"{self.name} reads position {self.at}, but the run has {values.shape[1]} positions of logits"
            )
        return values[:, self.at]

    def over_cells(self, logits: Float[Tensor, "cell batch vocab"]) -> Float[Tensor, "cell batch"]:
        """The metric of several variants of the same prompts at once, or one by one if it cannot be vectorised."""
        logits = widened(logits)
        version = version_of(logits)
        try:
            values = torch.vmap(self.of)(logits)
        except RuntimeError:  # a metric of a user's own may look at its values
            values = torch.stack([self.of_logits(variant) for variant in logits])
        return self._checked(values, logits, version)

    def _checked(self, values: Any, logits: Tensor, version: int) -> Tensor:
        if version_of(logits) != version:
            raise ValueError(f"{self.name} wrote into the logits; make new tensors instead")
        if not isinstance(values, Tensor) or values.shape != logits.shape[:-1]:
            what = type(values).__name__
            if isinstance(values, Tensor):
                what = f"shape {tuple(values.shape[logits.ndim - 2 :])}"
            raise ValueError(
                f"{self.name} must give one number for each prompt, a tensor of shape ({logits.shape[-2]},), but gave "
                f"{what}; do not average over prompts"
            )
        return values if values.is_floating_point() else values.to(logits.dtype)

    def check_gradient(self, values: Tensor) -> None:
        """Refuse values of the metric that lead no gradient to what they were made of.

        Raises:
            ValueError: If so.
            RuntimeError: Under `torch.inference_mode()`, where nothing has a gradient.
        """
        check_differentiable()
        if not values.requires_grad:
            raise ValueError(f"{self.name} has no gradient; make it of differentiable operations on the logits")

    def among(self, rows: Int[Tensor, " some"], n: int) -> "Metric":
        """The same metric of some of the n prompts that it was made for, each once, in the order given."""
        weights = self.weights

        def of(logits: Tensor) -> Tensor:
            every = logits.new_zeros(n, logits.shape[-1]).index_copy(0, rows, logits)
            return self.of_logits(every)[rows]

        def some_weights(_: int, device: torch.device) -> tuple[Tensor, Tensor]:
            ids, factors = weights(n, device)  # type: ignore[misc]
            return ids[rows], factors[rows]

        return replace(self, of=of, weights=None if weights is None else some_weights)

    def reading(self, at: int | str) -> "Metric":
        """The same metric at another position or role."""
        return replace(self, at=at)

    @property
    def last_only(self) -> bool:
        """Whether the last position's logits are enough."""
        return self.at == -1


def of_stream(
    metric: Metric, model: Model, resid: Float[Tensor, "row d_model"], n: int
) -> Float[Tensor, "cell prompt"]:
    """A metric of what enters the final norm at its position, for variants of n prompts; only the logits it needs."""
    if metric.weights is None:
        return metric.over_cells(model.unembed(resid).unflatten(0, (-1, n)))
    ids, weights = (x.repeat(len(resid) // n, 1) for x in metric.weights(n, resid.device))
    logits = widened(model.unembed_some(resid, ids))
    return (logits * weights.to(logits)).sum(-1).unflatten(0, (-1, n))


def metrics_of(given: Metric | Iterable[Metric]) -> list[Metric]:
    """Metrics, one or several; refuses a bare function."""
    return listed(given, Metric, "interp.metrics.Metric('name', function of logits (batch, vocab))")


def as_metric(given: Metric) -> Metric:
    """One metric; refuses a bare function, and several."""
    if not isinstance(given, Metric):
        raise TypeError(
            f"this takes one interp.metrics.Metric, not {type(given).__name__}; write Metric('name', function of "
            f"logits (batch, vocab)), or metrics.logit_diff(right, wrong)"
        )
    return given


def logit(token: Answers) -> Metric:
    """Logit of a next token, the mean if there are several."""
    return _linear("logit", (token, 1.0))


def logit_diff(right: Answers, wrong: Answers) -> Metric:
    """Logit of the right next token minus that of the wrong one; of several, the mean."""
    return _linear("logit difference", (right, 1.0), (wrong, -1.0))


def log_prob(token: Answers) -> Metric:
    """Log probability (nats) of a next token; of several, of any of them."""
    check_answers(token)

    def of(logits: Tensor) -> Tensor:
        values, counts = chosen(logits.log_softmax(-1), token)
        return values.masked_fill(~counts, -torch.inf).logsumexp(-1)

    return Metric("log probability", of)


def log_odds(token: Answers) -> Metric:
    """Log odds (nats) of a next token: log p - log(1 - p); of several, of any of them."""
    check_answers(token)

    def of(logits: Tensor) -> Tensor:
        ids, counts = ids_of(token, len(logits), logits.device), chosen(logits, token)[1]
        among = torch.zeros_like(logits, dtype=torch.int).scatter_add(-1, ids.clamp(min=0), counts.int()) > 0
        inside, outside = logits.masked_fill(~among, -torch.inf), logits.masked_fill(among, -torch.inf)
        return inside.logsumexp(-1) - outside.logsumexp(-1)

    return Metric("log odds", of)


def prob(token: Answers) -> Metric:
    """Probability of a next token; of several, their sum."""
    check_answers(token)
    return Metric("probability", lambda logits: sum_of(logits.softmax(-1), token))


def prob_diff(right: Answers, wrong: Answers) -> Metric:
    """Probability of the right next tokens minus that of the wrong ones; -1 among the ids fills up unequal sets."""
    check_answers(right, wrong)
    return Metric("probability difference", lambda logits: sum_of(p := logits.softmax(-1), right) - sum_of(p, wrong))


def kl_from(reference: Float[Tensor, "batch vocab"]) -> Metric:
    """KL divergence (nats) of the next-token distribution from that of reference logits."""
    target = widened(reference.detach()).log_softmax(-1)

    def of(logits: Tensor) -> Tensor:
        if logits.shape != target.shape:
            shapes = f"{tuple(target.shape)}, but the run's are {tuple(logits.shape)}"
            raise ValueError(f"the reference logits are {shapes}; both are (batch, vocab)")
        return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)

    return Metric("KL divergence", of)


def _linear(name: str, *signed: tuple[Answers, float]) -> Metric:
    """The sum of mean logits of answers, each times a factor."""
    check_answers(*(token for token, _ in signed))

    def weights(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
        ids = [ids_of(token, n, device) for token, _ in signed]
        wide = torch.float32 if device.type == "mps" else torch.float64
        given = [(some >= 0).to(wide) for some in ids]
        shares = [some / some.sum(-1, keepdim=True) * factor for some, (_, factor) in zip(given, signed)]
        return torch.cat(ids, 1).clamp(min=0), torch.cat(shares, 1)

    def of(logits: Tensor) -> Tensor:
        ids, factors = weights(len(logits), logits.device)
        return (at_tokens(logits, ids) * factors.to(logits)).sum(-1)

    return Metric(name, of, weights=weights)
