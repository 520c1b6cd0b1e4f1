"""What a run says while it works: kept with it, and shown where someone is watching."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class Record(logging.Handler):
    """The lines of one run, each with the seconds since its start."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.start = time.perf_counter()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.lines.append(f"{time.perf_counter() - self.start:8.2f} s  {record.levelname.lower():7}  {text}")

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)


@contextmanager
def recorded() -> Iterator[Record]:
    """Record what is logged, and every warning, for a while; loggers are left as they were."""
    root, ours, record = logging.getLogger(), logging.getLogger("experiments"), Record()
    level = ours.level
    root.addHandler(record)
    if ours.getEffectiveLevel() > logging.INFO:
        ours.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _logged  # put back by the context manager
            yield record
    finally:
        root.removeHandler(record)
        ours.setLevel(level)


def show(verbose: bool = False) -> None:
    """Show what experiments log: warnings always, the rest on a terminal or if asked to, and never in CI."""
    watched = sys.stderr.isatty() and not os.environ.get("CI")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO if verbose or watched else logging.WARNING)
    logger = logging.getLogger("experiments")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def _logged(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    logging.getLogger("experiments.warnings").warning("%s: %s", category.__name__, message)
