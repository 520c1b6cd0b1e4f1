"""A bar for long work, where someone is watching."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from tqdm import tqdm

Progress = Callable[[int, int], None] | bool | None


@contextmanager
def bar(total: int, unit: str, progress: Progress = None) -> Iterator[Callable[[int], None]]:
    """Something to call with how much more was done.

    Args:
        progress: Called with how much is done and how much there is; or True or False for a bar or none; by default a
            bar on a terminal or in a notebook, once the work has taken two seconds. Where TQDM_DISABLE=1 was in the
            environment when this was imported, there are no bars.
    """
    if callable(progress):
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            progress(done, total)

        yield advance
        return
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    shown = watched if progress is None else progress
    make = tqdm if shown else partial(tqdm, disable=True)  # an explicit False would overrule the environment
    with make(total=total, unit=f" {unit}", delay=2 if progress is None else 0) as line:

        def update(more: int) -> None:
            line.update(more)

        yield update
