"""The sizes of a model, and what it keeps of tokens that it has run."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """The sizes of a model; `n_kv_heads` is smaller than `n_heads` under grouped queries.

    `n_alike` is how long a prompt may be before all its rotary embeddings are others (LongRoPE), if ever.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_model: int
    d_head: int
    d_vocab: int
    n_context: int | None
    n_alike: int | None = None


@dataclass
class Cache:
    """Keys and values of tokens that a model has run, so that it need not run them again (decision 7).

    Attributes:
        store: What the backend keeps; it is added to in each run.
        held: How many columns of the batch it covers.
    """

    store: Any
    held: int = 0
