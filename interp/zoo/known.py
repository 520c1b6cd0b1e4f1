"""Models whose circuit is known before anything is measured, and the exhaustive measurement that tests the claim."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import xarray as xr
from torch import Tensor

from interp import circuits
from interp.arrays import labelled
from interp.circuits.ablations import ablated
from interp.circuits.patching import each
from interp.graph import Edge
from interp.metrics import Metric
from interp.model import Model
from interp.sites import Site
from interp.tasks import Task, from_rows

ABLATIONS = ("corrupt", "zero")
LEAST = 1e-4  # an effect; what does not matter is smaller by rounding alone
Draw = Callable[[random.Random], tuple[str, str]]  # a prompt and its answer


@dataclass(frozen=True)
class Known:
    """A model, a task that it does, and the edges through which it does it.

    Attributes:
        edges: By ablation, all edges that matter: exchanged alone for what they carry in the corrupt run ("corrupt"),
            or set to zero alone ("zero"), they change the task's metric on some of its clean prompts. No other edge
            changes it on any.
        directions: Known directions by name, each with the site whose last axis it lies in.
    """

    name: str
    model: Model
    task: Task
    edges: Mapping[str, frozenset[Edge]]
    directions: Mapping[str, tuple[Site, Tensor]] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(edges)} ({ablation})" for ablation, edges in self.edges.items())
        return f"Known({self.name}: {self.model!r}; edges that matter: {counts})"

    @property
    def metric(self) -> Metric:
        """What the edges matter to."""
        return self.task.logit_diff

    def mask(self, ablation: str) -> Tensor:
        """The edges that matter, as a mask (writer, reader)."""
        return circuits.graph(self.model).mask(sorted(self.edges[ablation]))


def pairs(name: str, model: Model, draw: Draw, n: int, seed: int) -> Task:
    """A task of n pairs of prompts, drawn until they are of one length and their answers differ.

    Raises:
        ValueError: A thousand tries in a row in vain.
    """
    rng = random.Random(seed)
    rows: list[dict[str, str]] = []
    for _ in range(n):
        drawn = ((draw(rng), draw(rng)) for _ in range(1000))
        unlike = next((pair for pair in drawn if _fit(*pair)), None)
        if unlike is None:
            raise ValueError(
                f"no two prompts of {name} were of one length and had different answers in a thousand tries; draw "
                f"prompts of more kinds"
            )
        (clean, right), (corrupt, wrong) = unlike
        rows.append({"clean": clean, "corrupt": corrupt, "right": right, "wrong": wrong})
    return from_rows(model, rows, name)


def _fit(one: tuple[str, str], other: tuple[str, str]) -> bool:
    return len(one[0].split()) == len(other[0].split()) and one[1] != other[1]


def effects(known: Known, ablation: str, budget: int | None = None) -> xr.DataArray:
    """How the task's metric changes in the clean run when one edge alone is ablated, for every edge: exact.

    Args:
        ablation: "corrupt" or "zero".
        budget: Bytes that the activations of one pass may take.

    Returns:
        The change by (prompt, writer, reader); NaN where there is no edge.

    Raises:
        ValueError: An unknown ablation.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"unknown ablation {ablation!r}; choose from {', '.join(ABLATIONS)}")
    model, task, metric = known.model, known.task, known.metric
    (exchange,) = ablated(model, task.clean, task.corrupt, metric, ablation)
    names = circuits.graph(model)
    values, _ = each(exchange, names.mask(), budget, progress=False)
    coords: dict[str, Sequence] = {"prompt": range(len(task))}
    coords |= {"writer": names.writers, "reader": names.readers}
    return labelled(
        values, f"change in {metric.name}", coords, model, method="edge patching, each edge alone", direction="noising",
        ablation=ablation, metric=metric.name,
    )  # fmt: skip


def edges_that_matter(effects: xr.DataArray, least: float = LEAST) -> frozenset[Edge]:
    """The edges whose effect on some prompt is larger than this."""
    largest = abs(effects).max("prompt")
    found = largest.where(largest > least).stack(edge=("writer", "reader")).dropna("edge")
    return frozenset((str(writer), str(reader)) for writer, reader in found["edge"].values)
