"""The engine: many edits, each alone, on one batch of prompts, in as few forward passes as possible."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.edits import Edit
from interp.metrics import Metric
from interp.model import Model, Prompts
from interp.traces import Trace


def sweep(
    model: Model,
    prompts: Prompts,
    cells: Sequence[Sequence[Edit]],
    metric: Metric,
    rows: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "cell prompt"]:
    """The metric under each set of edits alone; the prompts are repeated, and each set is confined to its rows.

    Args:
        rows: How many rows to run at once.
        progress: Called with the number of cells done and of all cells.
    """
    tokens = model.tokens(prompts)
    n = len(tokens)
    size = max(1, rows // n)
    results: list[Tensor] = []
    for start in range(0, len(cells), size):
        chunk = cells[start : start + size]
        tiled = tokens.rows(torch.arange(n, device=tokens.ids.device).repeat(len(chunk)))
        confined = [_confine(edit, i * n, n, tokens.ids.device) for i, cell in enumerate(chunk) for edit in cell]
        trace = model.run(tiled, edits=confined, last_only=metric.last_only)
        for i in range(len(chunk)):
            part = slice(i * n, (i + 1) * n)
            results.append(metric(Trace(tokens, trace.logits[part], {})))
        if progress:
            progress(len(results), len(cells))
    return torch.stack(results)


def _confine(edit: Edit, first: int, n: int, device: torch.device) -> Edit:
    """The same edit, on some rows of the batch."""
    if "batch" in edit.at:
        raise ValueError(f"an edit in a sweep is for all prompts; {edit.site} has 'batch' among its indices")
    needs_rows = any(isinstance(index, str) for index in edit.at.values())
    rows: slice | Tensor = torch.arange(first, first + n, device=device) if needs_rows else slice(first, first + n)
    return replace(edit, at={**edit.at, "batch": rows})
