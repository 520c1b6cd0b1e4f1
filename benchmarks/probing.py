"""A probe at every place, against scikit-learn's LogisticRegression place by place: `python -m benchmarks.probing`.

Both sides do the same: standardise, choose a penalty of five for each of five folds on the other folds alone, refit,
predict the fold. The second table is of one fit at each place, under one penalty, on four fifths of the examples. In one
process; CPU seconds, of single fits medians of five turns. A sweep is done once: for scikit-learn it would be more than a
thousand fits, so that it is given two of the layers of a large case, and ~ marks what was scaled up. Held-out losses
are means over examples.

The large case is synthetic: 12 layers of 768 features of 4,000 examples, whose variances fall with their rank r as
1 / r, as those of language models roughly do ("steep"), or not at all ("flat"); the label is a noisy sum of twenty of
the underlying variables.
"""

import argparse
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

import interp
from interp import probing, tasks
from interp.probing.crossval import losses, out_of_fold
from interp.probing.estimators import ESTIMATORS
from interp.probing.problems import Features, Problems
from interp.probing.splits import folds_of

OUT = Path(__file__).parent / "results" / "probing.md"
PENALTIES = ESTIMATORS["logistic"].penalties
Case = tuple[str, Tensor, Tensor, Tensor]  # its name, features (place, example, feature), labels, folds


def embedded() -> Case:
    """The embedded model's residual stream, at every layer and three positions of sentences about sentiment."""
    model = interp.load()
    data = tasks.concepts.sentiment(model, n=1000)
    sites = [*model.sites("resid_pre", layers=[0]), *model.sites("resid_post")]
    at = ["END", "adjective", "thing"]
    parts = [probing.collect(model, data.prompts, [site], at, batch=1000) for site in sites]
    x = torch.stack([part.at_place(place) for part in parts for place in part.places])
    name = f"embedded model, 5 layers x {len(at)} positions, 128 features, 1,000 examples"
    return name, x, data.y, folds_of(data.y, 2, data.groups)


def large(places: int, fall: float, name: str) -> Case:
    """Some layers of 768 features of 4,000 examples, whose variances fall as a power of their rank."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4000, 768, generator=generator)
    scale = torch.arange(1, 769) ** (-fall / 2)
    turns = [torch.linalg.qr(torch.randn(768, 768, generator=generator))[0] for _ in range(places)]
    x = torch.stack([(hidden * scale) @ turn for turn in turns])
    y = (hidden[:, :20].sum(1) / 20**0.5 + 0.5 * torch.randn(4000, generator=generator) > 0).long()
    return f"{places} layers, 768 features, 4,000 examples, {name} spectrum", x, y, folds_of(y, 2, None, split="random")


def ours_nested(x: Tensor, y: Tensor, fold: Tensor) -> float:
    """Held-out loss of this library's sweep."""
    return float(out_of_fold(Features(x), y[None], 2, fold, ESTIMATORS["logistic"]).loss(y[None]).mean())


def theirs_nested(x: Tensor, y: Tensor, fold: Tensor) -> float:
    """Held-out loss of the same by scikit-learn."""
    total = 0.0
    for values in x.numpy():
        for f in range(5):
            sums = []
            for penalty in PENALTIES:
                inner = [(~np.isin(fold, (f, g)), fold.numpy() == g) for g in range(5) if g != f]
                sums.append(sum(_loss(values, y.numpy(), train, test, penalty).sum() for train, test in inner))
            best = PENALTIES[int(np.argmin(sums))]
            total += _loss(values, y.numpy(), fold.numpy() != f, fold.numpy() == f, best).sum()
    return total / len(x) / len(y)


def ours_once(x: Tensor, y: Tensor, fold: Tensor, penalty: float) -> float:
    """Held-out loss of one fit at each place."""
    problems = Problems(y[None], (fold != 0)[None], torch.full((1, 1), penalty), 2)
    fits = ESTIMATORS["logistic"].fit(Features(x), problems)
    return float(losses(fits(x[:, fold == 0])[:, 0], y[fold == 0].expand(len(x), -1), 2).mean())


def theirs_once(x: Tensor, y: Tensor, fold: Tensor, penalty: float) -> float:
    """The same by scikit-learn."""
    train, test = fold.numpy() != 0, fold.numpy() == 0
    return float(np.mean([_loss(values, y.numpy(), train, test, penalty) for values in x.numpy()]))


def _loss(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
    scaler = StandardScaler().fit(x[train])
    model = LogisticRegression(C=1 / penalty, max_iter=5000).fit(scaler.transform(x[train]), y[train])
    scores = model.decision_function(scaler.transform(x[test]))
    return np.logaddexp(0, scores) - y[test] * scores


def turns(sides: list[Callable[[], float]], repeats: int) -> list[tuple[float, float]]:
    """Median CPU seconds and the result of each side, the sides taking turns."""
    times: list[list[float]] = [[] for _ in sides]
    results = [0.0 for _ in sides]
    for _ in range(repeats):
        for i, side in enumerate(sides):
            start = process_time()
            results[i] = side()
            times[i].append(process_time() - start)
    return [(median(spent), result) for spent, result in zip(times, results)]


def row(name: str, sides: list[Any], repeats: int, part: float = 1) -> str:
    """A row of a table; the other side had only this part of the work to do."""
    (mine, loss), (other, reference) = turns(sides, repeats)
    about = "" if part == 1 else "~"
    return f"| {name} | {mine:.2f} | {about}{other / part:.2f} | {other / part / mine:.1f} | {loss:.4f} | {reference:.4f} |"


def nested(name: str, x: Tensor, y: Tensor, fold: Tensor) -> str:
    """The row of a sweep; of many large places, scikit-learn is given two."""
    some = x[:2] if x[0].numel() > 1e6 else x
    return row(name, [lambda: ours_nested(x, y, fold), lambda: theirs_nested(some, y, fold)], 1, len(some) / len(x))


def run(places: int) -> str:
    """Measure, and write the tables."""
    cases = [embedded(), large(places, 1.0, "steep"), large(places, 0.0, "flat")]
    head = "| | this library (s) | scikit-learn (s) | times faster | held-out loss | scikit-learn's |\n|---|---|---|---|---|---|"
    single = [
        row(
            f"{name}, penalty {penalty:g}",
            [lambda: ours_once(*case, penalty), lambda: theirs_once(*case, penalty)],
            repeats=5,
        )
        for (name, *case), penalty in product(cases, (1.0, 100.0))
    ]
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    lines = [
        "# Probes at every place",
        "",
        f"`python -m benchmarks.probing`: torch {torch.__version__}, scikit-learn {sklearn.__version__}, single precision,",
        f"{threads} of {os.cpu_count()} cores; CPU seconds, of single fits medians of five, in one process.",
        "",
        "## The sweep: five folds, five penalties chosen inside of them",
        "",
        head,
        *[nested(*case) for case in cases],
        "",
        "## One fit at each place",
        "",
        head,
        *single,
        "",
        "A sweep is many problems that share their examples: one matrix product serves all. A single fit has no such company;",
        "what is left there is the preconditioner, which pays where the penalty is weak and the spectrum steep.",
        "",
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("\n".join(lines))
    return OUT.read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--places", type=int, default=12, help="layers of the large cases; with fewer, it is over sooner"
    )
    torch.set_num_threads(1)
    with threadpool_limits(1):  # scikit-learn's linear algebra takes all cores otherwise, and waits on them
        print(run(parser.parse_args().places))
