"""Which heads behave like previous-token, duplicate-token, induction or copying heads, on repeated random tokens?

Random tokens, and the same again (Olsson et al. 2022, arXiv:2209.11895): nothing but position and repetition can guide
attention.
"""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from interp.arrays import attach, labelled
from interp.components import output_matrices
from interp.model import Model
from interp.traces import Tokens
from interp.weights.detectors import DETECTORS, ranks
from interp.weights.matrices import chosen_tokens, unembedding
from interp.weights.tokens import Ids


@torch.no_grad()
def behaviour(
    model: Model, n: int = 16, period: int = 20, ids: Ids = None, bos: bool | None = None, seed: int = 0
) -> xr.Dataset:
    """What each head does on random tokens that are repeated once.

    Of previous token, duplicate token and induction: the mean attention, from the second round of tokens, to the
    position before, to the same token in the first round, and to what followed it there. Of copying: how often the
    logit of the token attended to is raised by the head's output above that of another token of the prompt, weighted by
    attention; 0.5 is chance.

    Args:
        n: Prompts.
        period: Tokens before they repeat, all different; fewer if the context or the tokens do not suffice.
        ids: The tokens to draw from; by default all but special ones.
        bos: Whether prompts begin with the beginning-of-sequence token; by default as the model is given texts.

    Returns:
        `score` by (detector, layer, head, prompt), and `null`: the mean attention to the other positions, the first
        left out, and 0.5 for copying. Copying is NaN where heads cannot be told apart in what they write.

    Raises:
        ValueError: Fewer than three tokens to draw from, or a context too short for them; `bos` without such a token.
    """
    first = _start(model, bos)
    pool = chosen_tokens(model, ids, model.shape.d_vocab, seed)
    longest = ((model.shape.n_context or 10**9) - first) // 2
    period = min(period, longest, len(pool))
    if period < 3:
        raise ValueError(
            f"three different tokens or more are repeated; {len(pool)} tokens and a context of {model.shape.n_context} "
            f"leave {period}"
        )
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.stack([pool[torch.randperm(len(pool), generator=generator)[:period]] for _ in range(n)])
    start = blocks.new_full((n, first), getattr(model.tokenizer, "bos_token_id", None) or 0)
    prompts = torch.cat([start, blocks, blocks], dim=1)
    trace = model.run(Tokens(prompts, torch.ones_like(prompts)), model.sites("pattern", "z"))
    patterns = torch.stack([trace[site] for site in model.sites("pattern")])  # layer prompt head query key
    found = [_attention(patterns, first + period, back) for back in (1, period, period - 1)]
    z = torch.stack([trace[site] for site in model.sites("z")])
    copying = _copying(model, patterns, z, blocks, first)
    scores, nulls = zip(*found, (copying, torch.full_like(copying, 0.5)))
    coords: dict[str, Sequence] = {"detector": DETECTORS, "layer": range(len(z)), "head": range(z.shape[3])}
    coords |= {"prompt": range(n)}
    score, null = (
        labelled(torch.stack(parts).transpose(2, 3), "score", coords, model) for parts in (list(scores), list(nulls))
    )
    how = {"method": "detectors from behaviour", "period": period, "seed": seed}
    return xr.Dataset({"score": score, "null": null}, attrs=score.attrs | attach([], how))


def _start(model: Model, bos: bool | None) -> int:
    if bos and getattr(model.tokenizer, "bos_token_id", None) is None:
        raise ValueError(f"bos=True, but {model.name} has no beginning-of-sequence token; leave bos= out")
    return int(model.bos if bos is None else bos)


def _attention(
    patterns: Float[Tensor, "layer prompt head query key"], second: int, back: int
) -> tuple[Float[Tensor, "layer prompt head"], Float[Tensor, "layer prompt head"]]:
    """Attention from the second round to a position so far back; and to another one, but for the first."""
    queries = torch.arange(second, patterns.shape[-1], device=patterns.device)
    there = patterns[..., queries, queries - back]
    counted = (queries > back).to(there)  # the first position is left out, and may be where it is looked
    rest = patterns[..., queries, 1:].sum(-1) - there * counted
    return there.mean(-1), (rest / (queries - counted)).mean(-1)


def _copying(
    model: Model, patterns: Tensor, z: Float[Tensor, "layer prompt pos head d_head"], blocks: Tensor, first: int
) -> Float[Tensor, "layer prompt head"]:
    """How high the logit of the token attended to is among those of the prompt's tokens, by each head's own output."""
    period, found = blocks.shape[1], []
    matrices = output_matrices(model)
    if matrices is None:
        return patterns.new_full(patterns.shape[:3], float("nan"))
    read = unembedding(model, blocks.flatten()).unflatten(0, blocks.shape)
    for matrix, pattern, mixed in zip(matrices, patterns, z.to(read)):
        logits = torch.einsum("bphe,hed,bkd->bhpk", mixed[:, first + period :], matrix.weight.to(read), read)
        share = ranks(logits)
        seen = pattern[..., first + period :, first:].to(read)
        by_token = seen[..., :period] + seen[..., period:]
        found.append((by_token * share).sum((-1, -2)) / by_token.sum((-1, -2)))
    return torch.stack(found)
