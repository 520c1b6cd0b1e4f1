"""One thread at a time for each module: what runs it with hooks must not run those of another thread."""

from threading import Lock, RLock
from typing import Any
from weakref import finalize

from torch import nn

_LOCKS: dict[int, Any] = {}  # by the id of what they belong to, for as long as that lives
_GUARD = Lock()


def lock_of(module: nn.Module) -> Any:
    """The lock of a module, which one thread may take several times; a bridge has that of the model inside.

    Models that were made of one configuration share theirs: a run says in the configuration which attention it takes.
    """
    inside: Any = getattr(module, "original_model", module)
    config = getattr(inside, "config", None)
    owner = config if hasattr(config, "_attn_implementation_internal") else inside
    with _GUARD:
        if id(owner) not in _LOCKS:
            _LOCKS[id(owner)] = RLock()
            finalize(owner, _LOCKS.pop, id(owner), None)
        return _LOCKS[id(owner)]
