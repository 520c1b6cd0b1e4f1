"""Whether to believe a lens: its identity at the last layer, its skill beside a constant distribution, its bias."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check
from interp.lens.rows import divergence
from interp.precision import widened

_PAPER = "arXiv:2303.08112"


class Marginals:
    """Mean distributions of the model and of decoded cells, added up a few rows at a time."""

    def __init__(self, cells: int) -> None:
        self.rows = 0
        self._entropy: Tensor | float = 0.0
        self._model: Tensor | float = 0.0
        self._cells: list[Tensor | float] = [0.0] * cells

    def add(self, final: Float[Tensor, "row vocab"]) -> None:
        """Count rows of the model's own log probabilities."""
        p = final.exp()
        self.rows += len(p)
        self._model = self._model + p.sum(0)
        self._entropy = self._entropy - (p * final).sum()

    def add_cell(self, cell: int, decoded: Float[Tensor, "row vocab"]) -> None:
        """Count the same rows, as decoded in a cell."""
        self._cells[cell] = self._cells[cell] + decoded.exp().sum(0)

    @property
    def mean(self) -> Float[Tensor, " vocab"]:
        """The log of the model's mean distribution: the constant one that is nearest to all rows."""
        return (torch.as_tensor(self._model) / self.rows).clamp(min=1e-30).log()

    @property
    def constant(self) -> float:
        """KL divergence (nats a row) of the model's predictions from their own mean; NaN of a single row."""
        if self.rows < 2:
            return float("nan")
        mean = self.mean
        return max(0.0, float(-(mean.exp() * mean).sum() - self._entropy / self.rows))

    @property
    def bias(self) -> Float[Tensor, " cell"]:
        """KL divergence of the model's mean distribution from the mean of what is decoded in each cell."""
        decoded = torch.stack([torch.as_tensor(cell) for cell in self._cells]) / self.rows
        return divergence(self.mean[None], decoded.clamp(min=1e-30).log())


def skill(kl: Float[Tensor, " *cell"], constant: float) -> Float[Tensor, " *cell"]:
    """1 - KL / KL of the best constant distribution: 1 is the model itself, 0 no better than ignoring the prompt."""
    return 1 - kl / constant if constant > 1e-9 else torch.full_like(kl, float("nan"))


def last_is_the_model(decoded: Float[Tensor, "row vocab"], logits: Float[Tensor, "row vocab"]) -> Check:
    """The check that the last stream, decoded, is the model's own output."""
    threshold = 1e-4 if logits.dtype.itemsize >= 4 else 1e-2
    decoded, logits = widened(decoded), widened(logits)
    error = float((decoded - logits).abs().max() / logits.std().clamp(min=1e-9))
    why = "the lens of the last layer is the model's own output; a difference means a norm, scale or cap was missed"
    return Check.at_most("last layer equals the model", error, threshold, why, otherwise="fail")


def beats_a_constant(skills: Float[Tensor, " *cell"], names: Sequence[str], rows: int) -> Check:
    """The check that every cell predicts better than a distribution that ignores the prompt."""
    why = "a prediction no nearer to the model's than one distribution for all tokens may be word frequency alone"
    flat = skills.flatten()
    if not bool(flat.isfinite().all()):
        return Check("least skill", float("nan"), 0.0, "skipped", f"{rows} rows tell nothing from a constant", _PAPER)
    worst = int(flat.argmin())
    poor = int((flat <= 0).sum())
    value, status = float(flat[worst]), "warn" if poor else "pass"
    said = f"{poor} of {len(flat)} have none, least {names[worst]}: {why}" if poor else why
    return Check("least skill over a constant distribution", value, 0.0, status, said, _PAPER)


def is_unbiased(bias: Float[Tensor, " cell"], kl: Float[Tensor, " cell"]) -> Check:
    """The check that little of the divergence is a wrong mean, which one vector a layer would mend."""
    share = (bias / kl.clamp(min=1e-9)).where(kl > 1e-3, 0.0)
    worst = float(share.max()) if len(share) else float("nan")
    why = "KL of the mean distributions over the mean KL: what of it a tuned lens mends by a constant alone"
    return Check.at_most("largest share of marginal bias", worst, 0.5, why, _PAPER)
