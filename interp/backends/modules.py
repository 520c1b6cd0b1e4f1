"""The plain Hugging Face modules of a model, whichever backend runs it."""

from interp.model import Model
from interp.padding import stands_for


def on_modules(model: Model, what: str) -> Model:
    """The same weights on plain Hugging Face modules, for what has to know where the stream is written and read.

    Args:
        what: Why; a subject and its verb, for the message.

    Raises:
        ValueError: A model of which there are none: a native or rewritten bridge, one on a server, one under steering.
    """
    from interp.backends.huggingface import HuggingFaceModel

    if isinstance(model, HuggingFaceModel):
        return model
    module = model.hugging_face()
    if module is None:
        raise ValueError(
            f"{what} Hugging Face modules with the weights as published, and {model.name} on {model.backend} has none; "
            f"load the Hugging Face model itself with interp.load(module)"
        )
    plain = HuggingFaceModel(module, model.tokenizer, model.name, model.bos)
    stands_for(plain, model)
    return plain
