"""Whether a model can keep the keys of tokens that it has run, tried before it is believed."""

from dataclasses import replace

import torch

from interp.columns import addressed
from interp.edits import Edit
from interp.model import Model
from interp.padding import believed
from interp.sites import Site
from interp.trials import Trials, apart, short_prompts, tolerance


def caching(model: Model) -> str:
    """Why a model cannot keep keys; empty if it can.

    Tried before it is believed: two prompts, one padded, continued with and without a cache while the stream is edited,
    must give the same logits.
    """
    return _TRIED.of(model)


@torch.no_grad()
def _try_caching(model: Model) -> str:
    cache = model.new_cache()
    if cache is None:
        return f"{model.backend} has no cache for this model"
    first = min(4, (model.shape.n_context or 6) - 2)
    if first < 2:
        return f"{model.name} has a context too short to try one"
    whole = short_prompts(model, 2, first + 2, padding=first - 2)
    site = Site("resid_pre", model.shape.n_layers - 1)
    edits = [Edit(site, lambda x: 2 * x + 1, {"pos": pos}) for pos in (-1, "generated")]
    for width in range(first, first + 3):
        tokens = replace(whole, ids=whole.ids[:, :width], mask=whole.mask[:, :width], generated=width - first)
        with believed(model):
            wanted = model.run(tokens, edits=addressed(edits, tokens), last_only=True).logits[:, -1]
        try:
            logits = model.advance(tokens, cache, edits)
        except torch.OutOfMemoryError:  # says nothing of the model
            raise
        except Exception as error:  # whatever a model raises when it is called so, it cannot be called so
            return f"{model.name} does not run with one ({type(error).__name__})"
        if not apart(logits, wanted) <= tolerance(logits.dtype):
            return f"{model.name} gives other logits with one"
    return ""


_TRIED = Trials(_try_caching)
