"""Prompts to change, each with a source, and how strongly the model then answers as fits the source."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.metrics import Metric, logit_diff
from interp.model import Model
from interp.tasks import Labelled
from interp.traces import Tokens


@dataclass(frozen=True)
class Pairs:
    """Prompts, and where what is put into them comes from.

    Attributes:
        tokens: The prompts to change.
        base, source: Their numbers, and those of their sources.
        metric: Logit of the answers of the source's class minus that of another class, which is the prompt's own unless
            the two are the same.
    """

    tokens: Tokens
    base: Int[Tensor, " pair"]
    source: Int[Tensor, " pair"]
    metric: Metric


def paired(
    data: Labelled, most: int, seed: int, among: Int[Tensor, " some"] | None = None, alike: bool = False
) -> Pairs:
    """Some prompts, each with a source drawn from its family.

    Args:
        among: The prompts to choose from, for both.
        alike: Whether the source may be of the same class.

    Raises:
        ValueError: Data without answers or classes.
    """
    if data.answers is None or not data.classes:
        raise ValueError(f"{data.name} has no answers of classes; tasks.from_labels(..., answers=) takes them")
    generator = torch.Generator().manual_seed(seed)
    pool = torch.arange(len(data)) if among is None else among
    base = pool[torch.randperm(len(pool), generator=generator)[:most]].sort().values
    families, y, numbers = data.families or [""] * len(data), data.y.tolist(), pool.tolist()
    source = []
    for i in base.tolist():
        others = [j for j in numbers if j != i and (alike or y[j] != y[i])]
        near = [j for j in others if families[j] == families[i]] or others
        source.append(near[int(torch.randint(0, len(near), (1,), generator=generator))])
    wanted, own = data.y[source], data.y[base]
    shift = torch.randint(1, len(data.classes), wanted.shape, generator=generator)
    other = torch.where(wanted == own, (wanted + shift) % len(data.classes), own)
    return Pairs(data.prompts.rows(base), base, torch.tensor(source), answering(data, base, wanted, other))


def margin(model: Model, pairs: Pairs) -> Float[Tensor, " pair"]:
    """How much rather than the source's class a model answers as the prompt's own, in logits."""
    return -pairs.metric(model.run(pairs.tokens, last_only=pairs.metric.last_only)).float()


def follows(margins: Float[Tensor, " pair"]) -> int:
    """1 if answers surely follow the labels (two standard errors), -1 if they surely go against them, else 0."""
    mean, error = float(margins.mean()), float(margins.std(correction=0)) / len(margins) ** 0.5
    return int(mean > 2 * error) - int(mean < -2 * error)


def answering(data: Labelled, base: Int[Tensor, " pair"], wanted: Tensor, other: Tensor) -> Metric:
    """How much rather prompts are answered as one class than as another: a difference of mean logits."""
    assert data.answers is not None
    rows, answers = torch.arange(len(base)), data.answers[base]
    metric = logit_diff(answers[rows, wanted], answers[rows, other])
    return Metric(f"answers of one class rather than another ({data.name})", metric.of, weights=metric.weights)
