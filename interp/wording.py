"""How what was given is named in an error."""

from typing import Any


def shown(thing: Any) -> str:
    """A thing as Python writes it or, where that is long, what kind of thing it is."""
    text = repr(thing)
    return text if len(text) <= 60 else f"a {type(thing).__name__}"
