"""One probe as a value: what it reads, and the direction or basis that edits accept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.arguments import check_finite
from interp.directions import span, tensor_of
from interp.precision import widened
from interp.probing.crossval import fitted_on_all
from interp.probing.estimators import estimator_of, predicts_numbers
from interp.probing.problems import Features
from interp.wording import shown


@dataclass(frozen=True)
class Probe:
    """A linear probe; of two classes its one output is the log odds of the second."""

    weight: Float[Tensor, "out d"]
    bias: Float[Tensor, " out"]

    def __repr__(self) -> str:
        n_outputs, width = self.weight.shape
        return f"Probe({n_outputs} {'output' if n_outputs == 1 else 'outputs'} of {width} features)"

    def __call__(self, x: Float[Tensor, "example d"]) -> Float[Tensor, "example *out"]:
        """Log odds, or numbers, (example); of more than two classes, unnormalised log probabilities of each."""
        outputs = x @ self.weight.to(x).T + self.bias.to(x)
        return outputs[:, 0] if len(self.bias) == 1 else outputs

    @property
    def direction(self) -> Float[Tensor, " d"]:
        """What the probe reads, as `edits.add`, `edits.remove` and `edits.exchange` take it.

        Raises:
            ValueError: A probe of more than two classes, which has several directions: see `basis`.
        """
        if len(self.weight) > 1:
            raise ValueError(f"a probe of {len(self.weight)} classes has no single direction; take its basis")
        return self.weight[0]

    @property
    def basis(self) -> Float[Tensor, "k d"]:
        """An orthonormal basis of what the probe reads: differences between classes, one fewer than there are."""
        return span(self.weight if len(self.weight) == 1 else self.weight[1:] - self.weight[:1])


def fit(
    x: Float[Tensor, "example d"] | Float[np.ndarray, "example d"],
    y: Shaped[Tensor, " example"] | np.ndarray | Sequence[Any],
    penalty: float | None = None,
    by: Any = "logistic",
) -> Probe:
    """One probe of given features, in their own units, on their device.

    Args:
        y: Classes, as integers (or booleans) from 0 on; numbers if `by` predicts those.
        penalty: In the unit of the estimator: of "logistic" and "ridge" the L2 penalty on standardised features, of
            "lda" the shrinkage, below 1; by default 1, 1 and 0.2. Others have none.
        by: "logistic", "lda", "mass_mean", "ridge", or an estimator of scikit-learn.

    Raises:
        ValueError: Features that are not finite; labels of one class only, or not one for each example; a penalty that
            is not above 0; see `estimators.estimator_of`.
    """
    x = tensor_of(x)
    if not isinstance(y, Tensor) and (given := np.asarray(y)).dtype.kind not in "biuf":
        raise TypeError(
            f"labels are numbers or truth values, not {shown(given.tolist()[0])}; number the classes from 0 on"
        )
    labels = torch.as_tensor(y).to(x.device)
    if labels.shape != x.shape[:1]:
        raise ValueError(f"{len(x)} examples and labels of shape {tuple(labels.shape)} were given; one each is needed")
    numbers = predicts_numbers(by)
    classes = labels.unique()
    if not numbers and len(classes) < 2:
        raise ValueError(f"a probe needs labels of two classes or more, not {classes.tolist()}")
    if not numbers and classes.tolist() != list(range(len(classes))):
        raise ValueError(f"classes are numbered from 0 on, not {classes.tolist()[:8]}; for numbers choose by='ridge'")
    check_finite(x)
    n_classes = 0 if numbers else len(classes)
    wide = widened(x)
    estimator = estimator_of(by, n_classes)
    chosen = wide.new_tensor([estimator.penalty(penalty)])
    target = labels.to(wide) if numbers else labels.long()
    fits = fitted_on_all(Features(wide[None]), target, chosen, n_classes, estimator)
    return Probe(fits.weight[0, 0], fits.bias[0, 0])


def accuracy(probe: Probe, x: Float[Tensor, "example d"], y: Shaped[Tensor, " example"]) -> float:
    """The share of examples whose class is the likeliest."""
    outputs = probe(x)
    guess = (outputs > 0).long() if outputs.ndim == 1 else outputs.argmax(-1)
    return float((guess == y.to(guess)).double().mean())


def probe_at(result: xr.Dataset, **place: Any) -> Probe:
    """The probe that `probing.probe` found at a place, such as `layer=2, pos="END"`, fitted on all prompts.

    Raises:
        ValueError: Axes that are missing, or labels that there are not.
    """
    weight = result["weight"]
    needed = [axis for axis in weight.dims if axis not in ("out", "feature")]
    if set(place) != set(needed):
        raise ValueError(f"a probe is found by {', '.join(map(str, needed))}; given were {', '.join(place) or 'none'}")
    if "pos" in place:
        place["pos"] = str(place["pos"])  # labels of positions are text, for some are roles
    try:
        here = result[["weight", "bias"]].sel(place)
    except KeyError:
        known = {axis: result[axis].values.tolist() for axis in needed}
        raise ValueError(f"there is no probe at {place}; places are {known}") from None
    return Probe(torch.tensor(here["weight"].values), torch.tensor(here["bias"].values))
