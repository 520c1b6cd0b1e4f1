"""A metric as a differentiable function of the tensor at one site: what captum's methods need to work there."""

from dataclasses import dataclass, field
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import put
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.recording import Recording
from interp.replay import run_recorded
from interp.sites import Site
from interp.sweep import sweep
from interp.traces import Tokens


@final
@dataclass(frozen=True)
class SiteFunction:
    """The metric when a site holds given values, for rows that may be in any number and order.

    Every captum method that takes a function takes this one, at any site and on any backend that gives gradients:
    `Saliency(f).attribute(f.value, additional_forward_args=(f.rows,))`. Methods that need modules (DeepLIFT, LRP,
    guided backpropagation) do not; captum's layer and neuron methods are the same methods at another site.

    Attributes:
        value: What the site holds in the run of the prompts: the input to attribute.
        rows: Whose value each row is; captum repeats it as it repeats the input.
    """

    model: Model
    tokens: Tokens
    site: Site
    metric: Metric
    value: Float[Tensor, "prompt *rest"]
    _starts: dict[tuple[int, ...], Tokens | Recording] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, model: Model, prompts: Prompts, site: Site, metric: Metric) -> "SiteFunction":
        """Run the prompts.

        Raises:
            ValueError: A site that the model lacks or cannot edit.
        """
        model.check(edits=[put(site, torch.zeros(()))])
        tokens = model.tokens(prompts)
        trace = model.run(tokens, read=[site], last_only=True)
        return cls(model, tokens, site, as_metric(metric), trace[site].detach())

    @property
    def rows(self) -> Int[Tensor, " prompt"]:
        return torch.arange(len(self.value), device=self.value.device)

    def __call__(
        self, value: Float[Tensor, "row *rest"], rows: Int[Tensor, " row"] | None = None
    ) -> Float[Tensor, " row"]:
        """The metric of each row.

        Args:
            value: What the site holds in each row, shaped like `self.value` but for the number of rows.
            rows: The prompt of each row; by default there is one row for each prompt, in order.

        Raises:
            ValueError: Values of another shape.
        """
        rows = self.rows if rows is None else rows
        if value.shape[1:] != self.value.shape[1:] or len(value) != len(rows):
            shapes = f"{tuple(value.shape)} for {len(rows)} rows of {tuple(self.value.shape[1:])}"
            raise ValueError(f"values at {self.site} were {shapes}; where captum repeats rows, give it `rows` as well")
        prompts, at = rows.unique(return_inverse=True)
        nth = (rows[:, None] == rows).tril(-1).sum(1)  # how many rows of the same prompt come before
        cells = []
        for i in range(int(nth.max()) + 1):
            mine = (nth == i).nonzero().flatten()
            held = self.value[prompts].to(value.dtype)  # rows that a cell lacks are as they were
            cells.append([put(self.site, held.index_copy(0, at[mine], value[mine]))])
        metric = self.metric.among(prompts, len(self.value))
        grad = torch.is_grad_enabled() and value.requires_grad
        found = sweep(self.model, self._start(prompts), cells, [metric], grad=grad, progress=False)
        return found.values[0][nth, at]

    def _start(self, prompts: Tensor) -> Tokens | Recording:
        """What sweeps of some of the prompts start from; kept for the next call, which is mostly of the same ones."""
        key = tuple(prompts.tolist())
        if key not in self._starts:
            tokens = self.tokens.rows(prompts)
            recorded = None if self.site.kind == "embed" else run_recorded(self.model, tokens, [self.site], [], True)[1]
            self._starts.clear()
            self._starts[key] = recorded or tokens
        return self._starts[key]
