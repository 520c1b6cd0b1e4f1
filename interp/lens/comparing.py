"""Lenses beside each other on running text: how far is what they decode from what the model says in the end?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.arrays import Check, attach, labelled
from interp.components import last_stream
from interp.lens.judging import Marginals, beats_a_constant, last_is_the_model, skill
from interp.lens.rows import chunks, divergence, log_probs, streams
from interp.lens.tuned import Translator, TunedLens, check_lens
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.sites import Site
from interp.traces import Tokens

Translators = Mapping[Site, Translator]


@torch.no_grad()
def compare(model: Model, lenses: Mapping[str, TunedLens], documents: Prompts, progress: Progress = None) -> xr.Dataset:
    """The KL divergence (nats a token) of the model's predictions from those of each lens, by layer and document.

    Give it documents that no lens was tuned on, and then text of another kind: what a lens gains on one corpus it may
    lose on the next.

    Args:
        lenses: By name; the logit lens is always beside them. All translate the same sites.

    Returns:
        `kl` and `agreement`, the share of tokens whose likeliest next token is the model's, by (lens, site, prompt);
        `constant`, the KL of the best constant distribution in hindsight, by (prompt); `skill` = 1 - KL / constant
        and `bias`, the KL of the mean distributions, by (lens, site). Checks: the last layer is the model's own output;
        the skill of each lens.

    Raises:
        ValueError: No lenses; lenses of different sites, or of another model.
    """
    for lens in lenses.values():
        check_lens(lens, model)
    if len({tuple(lens.translators) for lens in lenses.values()}) != 1 or "logit lens" in lenses:
        raise ValueError(
            f"compare needs lenses of the same sites, by names other than 'logit lens'; {list(lenses)} were given"
        )
    sites = list(next(iter(lenses.values())).translators)
    tokens = model.tokens(documents)
    found = judge(model, tokens, [{}, *(lens.translators for lens in lenses.values())], sites, progress)
    names: dict[str, Sequence[Any]] = {"lens": ["logit lens", *lenses], "site": list(map(str, sites))}
    prompts = {"prompt": range(len(tokens))}
    checks = [found.last]
    checks += [_check(name, skills, sites, found.marginals.rows) for name, skills in zip(names["lens"], found.skill)]
    make = lambda values, name, coords: labelled(values, name, coords, model, method="comparison of lenses")
    arrays = {
        "kl": make(found.kl, "KL divergence", names | prompts),
        "agreement": make(found.agreement, "agreement", names | prompts),
        "constant": make(found.constant, "KL divergence", prompts),
        "skill": make(found.skill, "skill", names),
        "bias": make(found.bias, "marginal bias", names),
    }
    return xr.Dataset(arrays, attrs=arrays["kl"].attrs | attach(checks, {}))


@dataclass(frozen=True)
class Judged:
    """Means over the tokens of each document, for lenses without names."""

    kl: Float[Tensor, "lens site document"]
    agreement: Float[Tensor, "lens site document"]
    constant: Float[Tensor, " document"]
    bias: Float[Tensor, "lens site"]
    marginals: Marginals
    tokens: Int[Tensor, " document"]
    last: Check

    @property
    def mean(self) -> Float[Tensor, "lens site"]:
        """The KL divergence of all tokens."""
        return (self.kl * self.tokens).sum(-1) / self.tokens.sum()

    @property
    def skill(self) -> Float[Tensor, "lens site"]:
        """How much better than the best constant distribution."""
        return skill(self.mean, self.marginals.constant)


@torch.no_grad()
def judge(
    model: Model, tokens: Tokens, lenses: Sequence[Translators], sites: Sequence[Site], progress: Progress = False
) -> Judged:
    """Measure lenses; a site without a translator is decoded as it is."""
    last, n = last_stream(model), len(tokens)
    sums = torch.zeros(2, len(lenses) * len(sites), n, device=model.device)
    entropy, means = torch.zeros(n, device=model.device), None
    marginals = Marginals(len(lenses) * len(sites))
    first = 0
    with bar(n, "documents", progress) as advance:
        for rows, held, trace in streams(model, tokens, [*sites, last]):
            if first == 0:
                check = last_is_the_model(model.unembed(trace[last][:, -1]), trace.logits[:, -1])
            document = rows.prompt + first
            for chunk in chunks(len(rows), model.shape.d_vocab):
                final, where = log_probs(model, held[last][chunk]), document[chunk]
                if means is None:
                    means = final.new_zeros(n, final.shape[-1])
                marginals.add(final)
                best = final.argmax(-1)
                means.index_add_(0, where, final.exp())
                entropy.index_add_(0, where, -(final.exp() * final).sum(-1).to(entropy))
                for cell, (lens, site) in enumerate((lens, site) for lens in lenses for site in sites):
                    stream = held[site][chunk]
                    decoded = log_probs(model, lens[site](stream) if site in lens else stream)
                    marginals.add_cell(cell, decoded)
                    found = divergence(final, decoded), (decoded.argmax(-1) == best).to(entropy)
                    for total, value in zip(sums, found):
                        total[cell].index_add_(0, where, value.to(total))
            first += len(rows.tokens)
            advance(len(rows.tokens))
    count = tokens.mask.sum(-1)
    assert means is not None  # there is at least one prompt
    constant = -(means @ marginals.mean).to(entropy) - entropy
    kl, agreement = (sums / count).unflatten(1, (len(lenses), len(sites)))
    bias = marginals.bias.unflatten(0, (len(lenses), len(sites)))
    return Judged(kl, agreement, constant / count, bias, marginals, count, check)


def _check(name: str, skills: Float[Tensor, " site"], sites: Sequence[Site], rows: int) -> Check:
    return beats_a_constant(skills, [f"{name} at {site}" for site in sites], rows)
