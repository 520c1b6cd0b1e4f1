"""Copies of a model with weights drawn anew: what does a result owe to what was learned?"""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from interp.backends import load
from interp.model import Model


def redrawn(model: Model, seed: int, which: Callable[[Model], Iterable[Tensor]]) -> Model:
    """A copy of a model, some of whose weights are drawn from normal distributions of their own mean and spread.

    The model itself is left as it is.

    Args:
        which: The weights to draw anew, of the copy that it is given.

    Raises:
        ValueError: A model that cannot be copied here, such as one on a server; one that is steered.
    """
    if any(parameter.is_meta for parameter in model.module.parameters()):
        raise ValueError(f"{model.name} has no weights here, so that no copy of it can be drawn anew")
    if model.in_force:
        raise ValueError(f"{model.name} cannot be drawn anew; draw the model itself anew, and steer that")
    plain = model.hugging_face()  # in whose order all backends draw
    module, backend = (model.module, model.backend) if plain is None else (plain, "huggingface")
    module = copy.deepcopy(module)
    if plain is not None:
        module.tie_weights()  # type: ignore[operator]  # which what is taken out of a bridge has lost
    twin = load(module, backend=backend, tokenizer=model.tokenizer, bos=model.bos)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in which(twin):
            wide = weight.float()
            noise = torch.randn(weight.shape, generator=generator).to(wide)
            weight.copy_(wide.mean() + wide.std(correction=0) * noise)
    if twin.backend == model.backend:
        return twin
    return load(twin.module, backend=model.backend, tokenizer=model.tokenizer, bos=model.bos)
