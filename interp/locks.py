"""One thread at a time for each module: what runs it with hooks must not run those of another thread."""

from threading import Lock, RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

_LOCKS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
_GUARD = Lock()


def lock_of(module: nn.Module) -> Any:
    """The lock of a module, which one thread may take several times; a bridge has that of the model inside."""
    with _GUARD:
        return _LOCKS.setdefault(getattr(module, "original_model", module), RLock())
