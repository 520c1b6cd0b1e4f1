"""The plain Hugging Face modules of a model, whichever backend runs it."""

from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from interp.edits import version_of
from interp.model import Model
from interp.padding import stands_for

_KEPT: WeakKeyDictionary[Model, tuple[Any, Model]] = WeakKeyDictionary()  # the plain one, and what it was made of


def on_modules(model: Model, what: str) -> Model:
    """The same weights on plain Hugging Face modules, for what has to know where the stream is written and read.

    It is made once, and anew when a weight has changed: a bridge may then have none, or another. What is written past
    torch's count, as through `.data`, is not seen.

    Args:
        what: Why; a subject and its verb, for the message.

    Raises:
        ValueError: A model of which there are none: a native or rewritten bridge, one on a server, one under steering.
    """
    from interp.backends.huggingface import HuggingFaceModel

    if isinstance(model, HuggingFaceModel):
        return model
    state = _state(model)
    if (kept := _KEPT.get(model)) is not None and kept[0] == state:
        return kept[1]
    module = model.hugging_face()
    if module is None:
        raise ValueError(
            f"{what} Hugging Face modules with the weights as published, and {model.name} on {model.backend} has none; "
            f"load the Hugging Face model itself with interp.load(module)"
        )
    plain = HuggingFaceModel(module, model.tokenizer, model.name, model.bos)
    stands_for(plain, model)
    _KEPT[model] = state, plain
    return plain


def _state(model: Model) -> tuple[Any, ...]:
    tensors = chain(model.module.parameters(), model.module.buffers())
    return id(model.tokenizer), model.name, model.bos, [(x.data_ptr(), version_of(x)) for x in tensors]
