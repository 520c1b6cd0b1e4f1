"""Logit lens: any metric of what each layer would predict.

nostalgebraist 2020, "interpreting GPT: the logit lens"; with `by`, the tuned lens of Belrose et al. 2023
(arXiv:2303.08112).
"""

import torch
import xarray as xr

from interp.arrays import labelled
from interp.components import last_stream
from interp.lens.judging import Marginals, beats_a_constant, last_is_the_model, skill
from interp.lens.places import axes_of, names_of, places
from interp.lens.rows import Rows, divergence, log_probs
from interp.lens.tuned import TunedLens, check_lens
from interp.metrics import Metric, as_metric
from interp.model import Model, Prompts
from interp.precision import widened


@torch.no_grad()
def logit_lens(
    model: Model, prompts: Prompts, metric: Metric, kind: str = "resid_post", by: TunedLens | None = None
) -> xr.DataArray:
    """A metric of the logits decoded from each layer by the model's own final norm and unembedding.

    Args:
        kind: A stream, what a part adds to it, or `z` for heads; see `decode`.
        by: A tuned lens; by default the logit lens.

    Returns:
        Values by (layer, head, prompt), without those that there are not. Checks: the last layer is the model's own
        output; skill over the best constant distribution, at the position that the metric reads.

    Raises:
        ValueError: What `decode` raises.
    """
    check_lens(by, model)
    tokens, found = model.tokens(prompts), places(model, kind, by)
    rows, last = Rows.of(tokens, as_metric(metric).at), last_stream(model)
    trace = model.run(tokens, read={*(place.site for place in found), last}, last_only=True)
    final, marginals = log_probs(model, rows.take(trace[last])), Marginals(0)
    marginals.add(final)
    values, divergences = [], []
    for place in found:
        logits = model.unembed(place.vectors(trace, rows).to(model.dtype))
        values.append(metric.of_logits(logits))
        metric.check_numbers(values[-1])
        divergences.append(divergence(final, widened(logits).log_softmax(-1)).mean())
    skills = skill(torch.stack(divergences), marginals.constant)
    checks = [
        last_is_the_model(model.unembed(trace[last][:, -1]), trace.logits[:, -1]),
        beats_a_constant(skills, names_of(found), marginals.rows),
    ]
    axes = axes_of(found)
    how = {"method": "logit lens" if by is None else "tuned lens", "site": kind, "metric": metric.name, "at": metric.at}
    shaped = torch.stack(values).reshape(*map(len, axes.values()), len(tokens))
    return labelled(shaped, metric.name, axes | {"prompt": range(len(tokens))}, model, checks, **how)
