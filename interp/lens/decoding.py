"""Decode every layer and position: the likeliest tokens, and how near they are to what the model says in the end.

nostalgebraist 2020, "interpreting GPT: the logit lens"; trajectories after Belrose et al. 2023 (arXiv:2303.08112).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from interp.answers import Answers, check_answers, ids_of
from interp.arrays import Check, attach, labelled
from interp.components import last_stream
from interp.lens.judging import Marginals, beats_a_constant, is_unbiased, last_is_the_model, skill
from interp.lens.places import Place, axes_of, names_of, places
from interp.lens.rows import Rows, chunks, divergence, log_probs, words
from interp.lens.tuned import TunedLens, check_lens
from interp.model import Model, Prompts
from interp.progress import Progress, bar

_NUMBERS = ("entropy", "kl", "answer_rank", "answer_probability")  # one for each row; the likeliest tokens are several


@torch.no_grad()
def decode(
    model: Model,
    prompts: Prompts,
    kind: str = "resid_post",
    answer: Answers | None = None,
    by: TunedLens | None = None,
    at: int | str | None = None,
    top: int = 1,
    progress: Progress = None,
) -> xr.Dataset:
    """What each layer would predict at each position, by the model's own final norm and unembedding.

    Args:
        kind: A stream (`resid_pre`, `resid_mid`, `resid_post`, ...), what a part adds to it (`attn_out`, `mlp_out`),
            or `z`: what each head adds. An addition is decoded as if it were the whole stream: the norm gives it that
            size, so that its tokens mean more than its probabilities.
        answer: Token ids to follow: one, one for each prompt, or several; by default what the model itself finds
            likeliest at each position.
        by: A tuned lens; by default the logit lens.
        at: One position of each prompt, an index or a role; by default all of them.
        top: How many of the likeliest tokens to name.
        progress: See `sweep`.

    Returns:
        By (layer, head, pos, prompt), without those that there are not: `token` and `probability`, with an axis `top`,
        of the likeliest tokens; `entropy` and `kl`, the KL divergence from this to the final prediction, in nats;
        `answer_rank` (1 is the likeliest) and `answer_probability`: of several answers the best rank and the sum.
        `skill`, by (layer, head), is 1 - mean KL / KL of the best constant distribution; of a stream, `bias` is the KL
        of the mean distributions. `input` is the prompts' words, by (pos, prompt). NaN, and no word, is padding.
        Checks: the last layer is the model's own output; skill; bias.

    Raises:
        ValueError: A kind without the stream's width; a lens of another model; answers that do not fit the prompts.
        KeyError: A lens of other sites.
    """
    check_answers(answer)
    check_lens(by, model)
    tokens, found = model.tokens(prompts), places(model, kind, by)
    if not 1 <= top <= model.shape.d_vocab:
        raise ValueError(f"top is a number of tokens from 1 to {model.shape.d_vocab}, not {top}")
    rows, last = Rows.of(tokens, at), last_stream(model)
    trace = model.run(tokens, read={*(place.site for place in found), last}, last_only=True)
    check = last_is_the_model(model.unembed(trace[last][:, -1]), trace.logits[:, -1])
    ids = None if answer is None else ids_of(answer, len(tokens), model.device)[rows.prompt]
    if ids is not None and int(ids.max()) >= (size := trace.logits.shape[-1]):
        raise ValueError(f"token {int(ids.max())} is outside the model's output vocabulary of {size}")
    marginals = Marginals(len(found) if kind != "z" else 0)
    parts: list[list[dict[str, Tensor]]] = [[] for _ in found]
    with bar(len(rows), "tokens", progress) as advance:
        for chunk in chunks(len(rows), model.shape.d_vocab):
            final = log_probs(model, rows.take(trace[last])[chunk])
            marginals.add(final)
            wanted = final.argmax(-1, keepdim=True) if ids is None else ids[chunk]
            for i, place in enumerate(found):
                decoded = log_probs(model, place.vectors(trace, rows, chunk))
                parts[i].append(_measure(decoded, final, wanted, top))
                if kind != "z":
                    marginals.add_cell(i, decoded)
            advance(len(final))
    values = {name: torch.stack([torch.cat([part[name] for part in own]) for own in parts]) for name in parts[0][0]}
    how = {"method": "logit lens" if by is None else "tuned lens", "site": kind, "at": "all" if at is None else at}
    return _dataset(model, rows, found, values, marginals, check, how)


def _measure(
    decoded: Float[Tensor, "row vocab"],
    final: Float[Tensor, "row vocab"],
    answers: Int[Tensor, "row answer"],
    top: int,
) -> dict[str, Tensor]:
    """What is kept of decoded log probabilities, each (row) or (row, top)."""
    likeliest = decoded.topk(top)
    counts = answers >= 0
    own = decoded.gather(-1, answers.clamp(min=0)).masked_fill(~counts, -torch.inf)
    best = own.max(-1, keepdim=True).values
    return {
        "token": likeliest.indices,
        "probability": likeliest.values.exp(),
        "entropy": torch.special.entr(decoded.exp()).sum(-1),
        "kl": divergence(final, decoded).clamp(min=0),
        "answer_rank": 1 + (decoded > best).sum(-1).to(decoded),
        "answer_probability": own.exp().sum(-1),
    }


def _dataset(
    model: Model,
    rows: Rows,
    found: Sequence[Place],
    values: Mapping[str, Tensor],
    marginals: Marginals,
    check: Check,
    how: Mapping[str, Any],
) -> xr.Dataset:
    axes, where = axes_of(found), rows.coords(model)
    sizes = [len(labels) for labels in axes.values()]
    grid = {name: rows.spread(values[name].unflatten(0, sizes) if sizes else values[name][0]) for name in _NUMBERS}
    arrays = {name: labelled(value, name, axes | where, model, **how) for name, value in grid.items()}
    shares, ids = (values[name].movedim(-1, 1) for name in ("probability", "token"))
    tops = {"top": range(ids.shape[1])}
    shares, ids = (
        rows.spread(shares.reshape(*sizes, *shares.shape[1:])),
        rows.spread(ids.reshape(*sizes, *ids.shape[1:]), -1),
    )
    arrays["probability"] = labelled(shares, "probability", axes | tops | where, model, **how)
    kl = values["kl"].mean(-1)
    skills = skill(kl, marginals.constant)
    arrays["skill"] = labelled(skills.view(sizes), "skill", axes, model, **how)
    checks = [check, beats_a_constant(skills, names_of(found), marginals.rows)]
    if "head" not in axes:
        arrays["bias"] = labelled(marginals.bias.view(sizes), "marginal bias", axes, model, **how)
        checks.append(is_unbiased(marginals.bias, kl))
    texts = {
        "token": ([*axes, "top", *where], words(model, ids)),
        "input": (list(where), words(model, rows.spread(rows.ids, -1))),
    }
    return xr.Dataset({**texts, **arrays}, attrs=arrays["kl"].attrs | attach(checks, {}))
