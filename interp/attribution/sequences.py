"""Attribution of a continuation: which words of the prompt brought about each word that follows?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import xarray as xr
from jaxtyping import Int
from torch import Tensor

from interp.attribution.baselines import EMBED, Baseline, Baselines, is_value, named
from interp.attribution.integration import Quadrature
from interp.attribution.labels import present, tolerance_of
from interp.attribution.straight import Attributed
from interp.metrics import Metric, log_prob, logit_diff
from interp.model import Model, Prompts
from interp.progress import Progress
from interp.sites import Site
from interp.tokenizing import Tokenizer
from interp.traces import Tokens


def of_continuation(
    model: Model,
    prompts: Prompts,
    baseline: Baselines,
    continuation: Prompts,
    site: Site = EMBED,
    *,
    instead: Prompts | None = None,
    whole: bool = False,
    own: bool = False,
    over: Sequence[str] = ("pos",),
    steps: int | None = None,
    tolerance: float | None = None,
    most: int = 1024,
    budget: int | None = None,
    refuse: bool = True,
    progress: Progress = None,
) -> xr.DataArray:
    """Integrated gradients of each token of a continuation, all on one path: one forward pass for each point of it.

    The continuation follows the prompts as it is, so that each of its tokens is predicted from those before.

    Args:
        baseline: As for `integrated_gradients`; prompts are given without the continuation, which follows them too.
        continuation: A text or ids, for all prompts or for each, of as many tokens in each.
        instead: Other tokens in their place: what is attributed is then the log probability of each token less that of
            the one instead, after the same words; else its log probability (nats).
        whole: Attribute the log probability of the whole continuation, with a single backward pass for each point.
        own: Move the continuation's own tokens too, so that they have shares in what follows them; this takes a
            baseline that is a tensor.
        over, steps, tolerance, most, budget, refuse, progress: As for `integrated_gradients`.

    Returns:
        Attributions by (baseline, target, *over, prompt), without the axis `target` if taken whole; positions are those
        of the prompt and of the continuation but its last token. What stands beside them is described there.

    Raises:
        ValueError: A continuation of other length in some prompts; what `integrated_gradients` raises.
    """
    tokens = model.tokens(prompts)
    ids, others = (None if words is None else _ids(model, words, len(tokens)) for words in (continuation, instead))
    assert ids is not None
    longer = model.tokens(_followed(tokens, ids))
    fixed = None if own else torch.arange(longer.ids.shape[1], device=ids.device) >= tokens.ids.shape[1]
    fixed = None if fixed is None else fixed.expand(len(tokens), -1)
    of = Attributed.run(model, longer, site, _metrics(ids, others), over, fixed=fixed, whole=whole)
    by = Quadrature(steps, tolerance_of(of) if tolerance is None else tolerance, most, budget)
    every = {name: _followed_too(model, one, ids) for name, one in named(baseline).items()}
    found = of.integrate(every, by, refuse, progress)
    leading: dict[str, Sequence[str]] = {"baseline": list(found)} if isinstance(baseline, Mapping) else {}
    leading |= {} if whole else {"target": _names(model, ids)}
    metric = "log probability" + (" less that instead" if others is not None else "")
    return present(found, of, by, leading, method="integrated gradients of a continuation", metric=metric)


def targets(
    model: Model, tokens: str | Sequence[str | int], of: Callable[[int], Metric] = log_prob, at: int | str = -1
) -> list[Metric]:
    """A metric for each of some next tokens, named by it, to be attributed together.

    Args:
        of: Makes the metric of a token's id.
        at: The position or role that they are read at.
    """
    return [
        replace(of(model.token_id(token)), name=str(token), at=at)
        for token in ([tokens] if isinstance(tokens, str) else tokens)
    ]


def _ids(model: Model, words: Prompts, n: int) -> Int[Tensor, "prompt target"]:
    """A continuation as ids, one row for each prompt."""
    tokens = Tokenizer(model.tokenizer, False, model.shape.d_vocab, model.shape.n_context)(words)
    if not bool(tokens.mask.all()) or len(tokens) not in (1, n):
        lengths = tokens.mask.sum(1).tolist()
        raise ValueError(f"{n} prompts need one continuation, or {n}, all of one length; their lengths are {lengths}")
    return tokens.ids.to(model.device).expand(n, -1)


def _metrics(ids: Int[Tensor, "prompt target"], others: Tensor | None) -> list[Metric]:
    """One for each token that follows, read where it is predicted."""
    n = ids.shape[1]
    if others is None:
        return [replace(log_prob(ids[:, i]), name=str(i), at=i - n) for i in range(n)]
    if others.shape != ids.shape:
        raise ValueError(f"{n} tokens follow, but {others.shape[1]} were given instead of them; give as many")
    return [replace(logit_diff(ids[:, i], others[:, i]), name=str(i), at=i - n) for i in range(n)]


def _followed(tokens: Tokens, ids: Int[Tensor, "prompt target"]) -> Tokens:
    """Prompts with all tokens but the last of what follows them."""
    some = ids[:, :-1]
    both = torch.cat([tokens.ids, some], 1), torch.cat([tokens.mask, torch.ones_like(some)], 1)
    return replace(tokens, ids=both[0], mask=both[1])


def _followed_too(model: Model, baseline: Baseline, ids: Tensor) -> Baseline:
    return baseline if is_value(baseline) else _followed(model.tokens(baseline), ids)


def _names(model: Model, ids: Int[Tensor, "prompt target"]) -> list[str]:
    """A number for each token that follows, and the word if all prompts share it."""
    shared = (ids == ids[0]).all(0).tolist()
    return [f"{i} {word if same else '…'}" for i, (word, same) in enumerate(zip(model.words(ids[0].tolist()), shared))]
