"""Directions that are known, one used and one not; a head that is repaired; and what is found where nothing is."""

from collections.abc import Iterator

import torch

from interp import components, edits, effects, metrics, patching, probing, stats, steering, tasks
from interp.model import Model
from interp.tasks.labelled import Answers
from interp.zoo.handset import planted, self_repair
from interp.zoo.scorecard.rows import Row


def directions(seed: int) -> Iterator[Row]:
    """Does each extraction find the direction of what it is asked for, though the other one is larger?"""
    made = planted(seed)
    for name, (site, direction) in made.directions.items():
        words = made.task.labels[name]
        concept = steering.labelled_set(made.model, name, made.task.clean, [word == words[0] for word in words])
        for method in ("mean_difference", "lda", "logistic"):
            vector = steering.extract(made.model, concept, site, method=method, seed=seed)
            wanted = direction.to(vector.writer)
            cosine = abs(float(torch.nn.functional.cosine_similarity(vector.writer, wanted, dim=0)))
            least = None if method == "logistic" else 0.95  # of many planes that separate, it takes any
            yield Row("Planted directions", name, method, "cosine of the writer", cosine, least=least)


def decodable_or_used(seed: int) -> Iterator[Row]:
    """Both directions can be read without error; the model uses one of them."""
    made = planted(seed)
    drawn = [(heat, rain, n) for heat in ("hot", "cold") for rain in ("wet", "dry") for n in range(12)]
    prompts = [" ".join(["<bos>", *["and"] * n, f"{heat}-{rain}", "and", ":"]) for heat, rain, n in drawn]
    for i, (name, (site, _)) in enumerate(made.directions.items()):
        labels = [one[i] for one in drawn]
        answers: Answers = dict(zip(dict.fromkeys(labels), ("hot", "cold")))
        data = tasks.from_labels(made.model, prompts, labels, list(map(str, drawn)), answers=answers, name=name)
        found = probing.probe(made.model, data, [site], shuffles=99, causal=True, seed=seed, progress=False)
        yield Row("Decodable or used", name, "probe", "accuracy", float(found.accuracy.max()), least=0.95)
        verdict = str(found.verdict.values.ravel()[0])
        wanted = "used" if name == "used" else "decodable"
        yield Row("Decodable or used", name, "probe", "verdict is right", float(verdict == wanted), least=1)


def repair(seed: int) -> Iterator[Row]:
    """The backup head makes up for the share of its twin that it was built to."""
    for built in (0.3, 0.8):
        made = self_repair(built)
        found = effects.decompose(made.model, made.task.clean, components.each(made.model, edits.zero), made.metric)
        value = float(effects.self_repair(found, seed=seed)["mean"].sel(component="L0H0").mean())
        yield Row(
            "Self-repair",
            f"built to repair {built:g}",
            "total and direct effects",
            "error",
            abs(value - built),
            most=0.05,
        )


def stars(model: Model, n: int, draws: int, seed: int) -> Iterator[Row]:
    """How often patching finds a significant head where chance says which answer counts as right.

    Each effect then has either sign with the same chance. (To draw which prompt of a pair is clean would not do: heads
    whose effects differ between the two directions, which some do, keep a mean effect.)
    """
    for name in ("induction", "ioi"):
        task = tasks.EMBEDDED[name](model, n, seed)
        found = 0
        for draw in range(draws):
            flip = torch.rand(len(task), generator=torch.Generator().manual_seed(seed + draw)) < 0.5
            right, wrong = (
                torch.where(flip[:, None], a, b) for a, b in ((task.wrong, task.right), (task.right, task.wrong))
            )
            given = model, task.clean, task.corrupt, model.sites("z"), metrics.logit_diff(right, wrong)
            effect = patching.patch(*given, over=["head"], normalize=False, progress=False)
            found += bool(stats.summary(effect, seed=seed + draw).significant.any())
        yield Row("False positives", name, "patching, a star on any head", "rate", found / draws, most=0.1)


def probes(model: Model, draws: int, seed: int) -> Iterator[Row]:
    """How often shuffled labels are said to be decodable anywhere; wanted is one time in forty."""
    data = tasks.CONCEPTS["sentiment"](model, 96, seed)
    sites = model.sites("resid_post")
    activations = probing.collect(model, data.prompts, sites, progress=False)
    found = 0
    for draw in range(draws):
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed + draw)).tolist()
        labels = [data.labels[i] for i in order]
        shuffled = tasks.from_labels(model, data.prompts, labels, [str(i) for i in range(len(data))], name="shuffled")
        result = probing.probe(
            model, shuffled, sites, shuffles=99, controls=False, seed=draw, activations=activations, progress=False
        )
        found += bool((result.verdict != "absent").any())
    yield Row("False positives", "shuffled labels", "probes, decodable anywhere", "rate", found / draws, most=0.1)
