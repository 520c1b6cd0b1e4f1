"""The engine: many sets of edits, each alone, on one batch of prompts, in as few passes as possible."""

import os
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import Edit
from interp.metrics import Metric, metrics_of, of_stream
from interp.model import Model, Prompts
from interp.progress import Progress, bar
from interp.recording import Recording, record
from interp.replay import replay, way_of, why_full
from interp.sites import STREAM, Site
from interp.traces import Tokens
from interp.visits import Visits

Cell = Sequence[Edit]

ENGINES = {
    "packed": "rows born at their block, unchanged tokens left out",
    "rows": "rows born at their block",
    "full": "full passes",
}


@dataclass(frozen=True)
class Swept:
    """What a sweep measured, and how.

    Attributes:
        values: The metrics under each cell alone.
        engine: How the rows were run: from the block of their first edit on, or from the tokens, and why.
        passes: Into how many runs the cells were packed.
        work: How many tokens were run through how many blocks, their sum over the blocks: what a sweep costs.
    """

    values: Float[Tensor, "metric cell prompt"]
    engine: str
    passes: int
    work: int

    @property
    def how(self) -> dict[str, Any]:
        """What belongs into a result's provenance."""
        return {"engine": self.engine, "passes": self.passes, "work": self.work}


def sweep(
    model: Model,
    prompts: Prompts | Recording,
    cells: Sequence[Cell],
    metrics: Sequence[Metric],
    budget: int | None = None,
    grad: bool = False,
    progress: Progress = None,
) -> Swept:
    """Metrics under each cell, a set of edits, alone; every cell is a row for each prompt.

    Args:
        prompts: What to run; or a recording of it (`recording.record`), to sweep it several times.
        budget: Bytes that the activations of one pass may take, though a cell is never split; by default a quarter of
            the free memory, at most 256 MiB on a CPU and 8 GiB on a GPU, for larger passes are no faster.
        grad: Keep the graph, so that gradients reach the tensors that the edits were made of.
        progress: Called with the number of cells done and of all; by default a bar where someone is watching.

    Raises:
        ValueError: An edit with "batch" among its indices; a metric that reads padding; one without a gradient, if one
            is wanted; what `Model.run` raises for an edit.
    """
    tokens = prompts.tokens if isinstance(prompts, Recording) else model.tokens(prompts)
    edits = [edit for cell in cells for edit in cell]
    model.check(edits=edits)
    births = [_birth(cell, model.shape.n_layers) for cell in cells]
    for metric in (metrics := metrics_of(metrics)):
        tokens.column(metric.at)  # which is no padding
    if refused := [edit for edit in edits if "batch" in edit.at]:
        raise ValueError(f"an edit in a sweep is for all prompts; {refused[0].site} has 'batch' among its indices")
    size = max(1, (memory_of(model.device) if budget is None else budget) // _bytes_per_row(model, tokens, grad))
    sites = [edit.site for edit in edits]
    way = way_of(model) if max(births, default=-1) >= 0 else "full"
    recording: Recording | None = None
    if way != "full":
        recording = prompts if isinstance(prompts, Recording) else record(model, tokens, sites, way == "packed")
    results: list[Tensor] = [torch.empty(0)] * len(cells)
    passes = work = 0
    with bar(len(cells), "cells", progress) as advance, torch.set_grad_enabled(grad):
        for chunk in _chunks(births, max(1, size // len(tokens)), recording is not None):
            packed = _Packed(tokens, [cells[i] for i in chunk])
            if recording is None or births[chunk[0]] < 0:
                found = packed.full(model, metrics, grad)
                done = len(packed.tokens) * tokens.ids.shape[1] * model.shape.n_layers
            else:
                found, done = packed.born(model, recording, [births[i] for i in chunk], metrics)
            if grad:
                for metric, value in zip(metrics, found):
                    metric.check_gradient(value)
            for i, value in zip(chunk, torch.stack(found).unbind(1)):
                results[i] = value
            passes, work = passes + 1, work + done
            advance(len(chunk))
        values = torch.stack(results, dim=1) if cells else torch.empty(len(metrics), 0, len(tokens))
    for metric, measured in zip(metrics, values):
        metric.check_numbers(measured, lambda cell, prompt: f", first in prompt {prompt} under {_words(cells[cell])}")
    why = why_full(model) if way == "full" else ""
    return Swept(values, f"{ENGINES[way]}: {why}" if why else ENGINES[way], passes, work)


def _words(cell: Cell) -> str:
    return ", ".join(f"{edit.site} at {dict(edit.at)}" for edit in cell) or "no edit"


class Remembering:
    """A change, or what has it as a method, that keeps something of one site for another: each cell has its own."""


def _apart(cell: Cell) -> list[Edit]:
    """The edits of a cell, remembering nothing in common with those of other cells."""
    memo: dict[int, Any] = {}
    held = [getattr(edit.change, "__self__", edit.change) for edit in cell]
    return [
        replace(edit, change=deepcopy(edit.change, memo)) if isinstance(one, Remembering) else edit
        for edit, one in zip(cell, held)
    ]


class _Packed:
    """Cells that are run together: the prompts once for each, every cell's edits confined to its rows."""

    def __init__(self, tokens: Tokens, cells: Sequence[Cell]) -> None:
        self.n, self.cells, self.base = len(tokens), cells, tokens
        self.prompts = torch.arange(self.n, device=tokens.ids.device).repeat(len(cells))
        self.tokens = tokens.rows(self.prompts)
        self.edits = [self._confine(edit, i * self.n) for i, cell in enumerate(cells) for edit in _apart(cell)]

    def _confine(self, edit: Edit, first: int) -> Edit:
        """The same edit, on some rows of the batch."""
        rows: slice | Tensor = slice(first, first + self.n)
        if any(isinstance(index, str) for index in edit.at.values()):
            rows = torch.arange(first, first + self.n, device=self.prompts.device)
        return replace(edit, at={"batch": rows, **edit.at})

    def born(
        self, model: Model, recording: Recording, births: Sequence[int], metrics: Sequence[Metric]
    ) -> tuple[list[Tensor], int]:
        """Each metric (cell, prompt) of rows that are born at their block, and the work; births ascend."""
        born = [self.prompts[: self.n * births.count(i)] for i in range(model.shape.n_layers + 1)]
        visits = Visits(self.tokens, (), self.edits)
        resid, work = replay(model, recording, born, visits, self._reach(model.shape.n_layers))
        visits.finish()
        return self._decoded(model, metrics, resid), work

    def _reach(self, n_layers: int) -> Int[Tensor, "step row"]:
        """First positions that a row's edits inside each block can change and, at last, that any of its edits can."""
        reach = np.full((n_layers + 1, len(self.cells), self.n), self.tokens.ids.shape[1])
        for i, cell in enumerate(self.cells):
            for edit in cell:
                where = edit.first(self.base)
                first = where.cpu().numpy() if isinstance(where, Tensor) else where
                reach[-1, i] = np.minimum(reach[-1, i], first)
                if edit.site.layer is not None and edit.site.kind not in STREAM:
                    reach[edit.site.layer, i] = np.minimum(reach[edit.site.layer, i], first)
        return torch.from_numpy(reach).flatten(1).to(self.prompts.device)

    def full(self, model: Model, metrics: Sequence[Metric], grad: bool) -> list[Tensor]:
        """Each metric (cell, prompt) of rows that are run from their tokens on."""
        final = Site("resid_final")
        last_only = all(metric.last_only for metric in metrics)
        if last_only or not grad or final.kind not in model.editable:
            trace = model.run(self.tokens, edits=self.edits, grad=grad, last_only=last_only)
            return [self._measure(metric, metric.position(self.tokens, trace.logits)) for metric in metrics]
        # A graph keeps the logits of every position that was decoded, and there are more of them than of all the rest.
        trace = model.run(self.tokens, read=[final], edits=self.edits, grad=True, last_only=True)
        return self._decoded(model, metrics, trace[final])

    def _decoded(
        self, model: Model, metrics: Sequence[Metric], resid: Float[Tensor, "row pos d_model"]
    ) -> list[Tensor]:
        """Each metric (cell, prompt) of what enters the final norm; a position that several read is decoded once."""
        readers: dict[int | str, list[int]] = {}
        for i, metric in enumerate(metrics):
            readers.setdefault(metric.at, []).append(i)
        found: dict[int, Tensor] = {}
        for same in readers.values():
            stream, logits = metrics[same[0]].position(self.tokens, resid), None
            for i in same:
                if metrics[i].weights is not None:
                    found[i] = of_stream(metrics[i], model, stream, self.n)
                else:
                    logits = model.unembed(stream) if logits is None else logits
                    found[i] = self._measure(metrics[i], logits)
        return [found[i] for i in range(len(metrics))]

    def _measure(self, metric: Metric, logits: Float[Tensor, "row vocab"]) -> Float[Tensor, "cell prompt"]:
        return metric.over_cells(logits.unflatten(0, (len(self.cells), self.n)))


def _birth(cell: Cell, n_layers: int) -> int:
    """The block at which a cell's rows are born: that of its first edit; -1 if they must be run from the tokens."""
    if any(edit.site.kind == "embed" for edit in cell):
        return -1
    return min((_step(edit, n_layers) for edit in cell), default=n_layers)


def _step(edit: Edit, n_layers: int) -> int:
    """The block in which an edit acts; the stream that leaves a block is what enters the next."""
    if edit.site.layer is None:
        return n_layers
    return edit.site.layer + (edit.site.kind == "resid_post")


def _chunks(births: Sequence[int], size: int, by_birth: bool) -> Iterator[list[int]]:
    """Cells in packs of at most `size`, in ascending order of birth; those that are never born are on their own."""
    order = sorted(range(len(births)), key=lambda i: births[i])
    never = sum(birth < 0 for birth in births) if by_birth else 0
    for part in (order[:never], order[never:]):
        for start in range(0, len(part), size):
            yield part[start : start + size]


def _bytes_per_row(model: Model, tokens: Tokens, grad: bool) -> int:
    """A generous guess of what the activations of one prompt take."""
    shape, n_pos = model.shape, tokens.ids.shape[1]
    block = n_pos * 24 * shape.d_model + 4 * shape.n_heads * n_pos**2
    kept = shape.n_layers if grad else 1
    return (block * kept + 2 * shape.d_vocab) * max(model.dtype.itemsize, 2)


def memory_of(device: torch.device) -> int:
    """Bytes that a pass may take on a device, if nobody says otherwise."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # which torch gives out again
        return min((torch.cuda.mem_get_info(device)[0] + kept) // 4, 2**33)
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # not every system tells
        return 2**28
    return min(free // 4, 2**28)
