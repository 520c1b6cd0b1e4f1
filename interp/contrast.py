"""A clean and a corrupt run of the same prompts, and how far between the two an edit takes a metric."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.metrics import Metric, metrics_of
from interp.model import Model, Prompts
from interp.recording import Recording
from interp.replay import run_recorded
from interp.sites import Site
from interp.traces import Tokens, Trace

DIRECTIONS = {"denoising": "share restored", "noising": "share lost"}
UNSHARED = "choose other prompts, or pass normalize=False"


@dataclass(frozen=True)
class Contrast:
    """Two runs: activations of the source are put into the base.

    Attributes:
        source: The clean run when denoising, the corrupt one when noising.
        base: The other.
        recording: Of the base, for sweeps, where the model allows it.
        metrics: What is measured in both.
        start, end: The metrics in the base and in the source.
    """

    source: Trace
    base: Trace
    recording: Recording | None
    metrics: Sequence[Metric]
    start: Float[Tensor, "metric prompt"]
    end: Float[Tensor, "metric prompt"]

    @property
    def sweepable(self) -> Tokens | Recording:
        """What a sweep of the base starts from."""
        return self.recording or self.base.tokens

    def change(self, values: Float[Tensor, "metric *cell prompt"]) -> Float[Tensor, "metric *cell prompt"]:
        """How far metrics lie from those of the base."""
        return values - _along(self.start, values)

    def share(
        self, changes: Float[Tensor, "metric *cell prompt"], hint: str = UNSHARED
    ) -> Float[Tensor, "metric *cell prompt"]:
        """Changes as shares of the way to the source: 0 as the base, 1 as the source.

        Raises:
            ValueError: A gap between the runs too small to divide by, or not finite.
        """
        gaps = zip(changes, self.end - self.start, self.metrics)
        return torch.stack([share(change, gap, f"gap in {metric.name}", hint) for change, gap, metric in gaps])


def contrast(
    model: Model,
    clean: Prompts,
    corrupt: Prompts,
    metrics: Sequence[Metric],
    direction: str = "denoising",
    read: Collection[Site] = (),
    read_base: Collection[Site] = (),
    grad: bool = False,
) -> Contrast:
    """Run both prompts.

    Args:
        direction: "denoising": the clean run is the source; "noising": the corrupt one.
        read, read_base: Sites to keep of the source, and of the base.
        grad: Keep the graph of the base, which is then not recorded.

    Raises:
        ValueError: An unknown direction; no metrics, or two of one name.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"unknown direction {direction!r}; choose from {', '.join(DIRECTIONS)}")
    metrics = metrics_of(metrics)
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"metrics need names that tell them apart, not {names}; rename by dataclasses.replace")
    source, base = (clean, corrupt) if direction == "denoising" else (corrupt, clean)
    last_only = all(metric.last_only for metric in metrics)
    with torch.no_grad():
        there = model.run(source, read=read, last_only=last_only)
        if grad:
            here, recording = model.run(base, read=read_base, grad=True, last_only=last_only), None
        else:
            here, recording = run_recorded(model, model.tokens(base), list(read), read_base, last_only)
        end, start = (torch.stack([metric(run) for metric in metrics]) for run in (there, here))
    return Contrast(there, here, recording, metrics, start, end)


def _along(values: Float[Tensor, "metric prompt"], like: Tensor) -> Tensor:
    return values.view(len(values), *(1,) * (like.ndim - 2), -1)


def share(
    values: Float[Tensor, "*cell prompt"], whole: Float[Tensor, " prompt"], what: str, hint: str = UNSHARED
) -> Tensor:
    """Values as a share of one number for each prompt.

    Raises:
        ValueError: One that is not finite, or too small to divide by.
    """
    _refuse(~whole.isfinite(), f"{what} is not a finite number", hint)
    _refuse(whole.abs() < 1e-3 * whole.abs().mean().clamp(min=1e-6), f"{what} is nearly zero", hint)
    return values / whole


def _refuse(bad: Bool[Tensor, " prompt"], why: str, hint: str) -> None:
    if bool(bad.any()):
        raise ValueError(
            f"the {why} in prompts {bad.nonzero().flatten().tolist()[:5]}, so that a share of it means nothing; {hint}"
        )
