"""From prompts with a concept and without it to a vector that writes it and reads it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arrays import Check
from interp.model import Model, Prompts
from interp.precision import widened
from interp.sites import Site
from interp.steering.activations import Sides, collect
from interp.steering.concept import Concept, concept_of, exchange_of
from interp.steering.estimators import (
    METHODS,
    OF_PAIRS,
    agreement,
    auroc,
    cut,
    means_of,
    p_of_separation,
    stability,
)
from interp.steering.vector import Vector, Vectors, check_place, many
from interp.tasks import Labelled

_BRAUN = "arXiv:2505.22637"


@torch.no_grad()
def mean_difference(
    model: Model, positive: Prompts, negative: Prompts, site: Site, at: int | str = -1
) -> Float[Tensor, "*rest"]:
    """Mean activation on positive prompts minus that on negative ones, at one position of each: a tensor, no more.

    Returns:
        A tensor with the site's axes after `pos`, such as (d_model) or (head, d_head).
    """
    means = []
    for prompts in (positive, negative):
        trace = model.run(prompts, read=[site], last_only=True)
        means.append(widened(trace.at(site, at)).mean(0))
    return means[0] - means[1]


def extract(
    model: Model,
    concept: Concept | Labelled,
    site: Site,
    at: int | str = -1,
    method: str = "mean_difference",
    reader: str = "lda",
    head: int | None = None,
    held_out: float = 0.3,
    seed: int = 0,
) -> Vector:
    """A steering vector of a concept at one site; see `extract_each`."""
    return extract_each(model, concept, [site], at, method, reader, head, held_out, seed)[0]


def extract_each(
    model: Model,
    concept: Concept | Labelled,
    sites: Sequence[Site],
    at: int | str = -1,
    method: str = "mean_difference",
    reader: str = "lda",
    head: int | None = None,
    held_out: float = 0.3,
    seed: int = 0,
) -> list[Vector]:
    """A steering vector of a concept at each site, from one pass over its prompts.

    Directions and their signs are fitted on one part of the prompts. On the other, which shares no group with it, the
    reader's threshold is set, and both are tested. Of a single pair nothing can be held out, and of a few nothing could
    be told from chance: the checks say so.

    Args:
        concept: Of `contrast_pairs` or `labelled_set`; or prompts labelled True and False by `tasks.from_labels`.
        at: The position read: an index, or a role of the prompts.
        method: How to find the writer: "mean_difference", "lda", "logistic", or of pairs alone "svd", "pca"
            (arXiv:2310.01405) and "pca_ordered", which subtracts the concept and is there to be compared with.
        reader: The same for the reader; a covariance-aware one detects better, the mean difference writes better.
        head: Which head, at sites that have them.
        held_out: Share of the groups that is held out.

    Raises:
        ValueError: An unknown method; one that needs pairs, of prompts that are none; classes that do not differ.
    """
    concept = concept_of(concept)
    for site in sites:
        check_place(site, head)
    for name in (method, reader):
        check_method(name, concept)
    fit, test = concept.split(held_out, seed)
    fitted = collect(model, fit, sites, [at], head)
    tested = None if test is None else collect(model, test, sites, [at], head)
    how: dict[str, Any] = {
        "model": model.name, "weights": model.fingerprint(), "precision": str(model.dtype), "concept": concept.name,
        "data": concept.fingerprint, "writer": method, "reader": reader, "seed": seed,
        "held_out": held_out,
        "fitted_on": f"{len(fit.positive)} with, {len(fit.negative)} without",
        "tested_on": "none" if test is None else f"{len(test.positive)} with, {len(test.negative)} without",
    }  # fmt: skip
    return [
        _vector(site, fitted[site, at], None if tested is None else tested[site, at], (fit, test), head, at, how)
        for site in sites
    ]


def check_method(method: str, concept: Concept) -> None:
    """Refuse a method that there is not, or that needs pairs where there are none."""
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose from {', '.join(METHODS)}")
    if method in OF_PAIRS and not (concept.paired and len(concept.positive) > 1):
        raise ValueError(f"{method!r} needs several pairs; make them by contrast_pairs, or use 'mean_difference'")


def _vector(
    site: Site,
    fitted: Sides,
    tested: Sides | None,
    parts: tuple[Concept, Concept | None],
    head: int | None,
    at: int | str,
    how: dict[str, Any],
) -> Vector:
    gap = METHODS["mean_difference"](*fitted)
    if not bool(gap.any()):
        raise ValueError(f"the classes do not differ at {site}, position {at!r}; choose another site or position")
    directions = {}
    for role in ("writer", "reader"):
        unit = torch.nn.functional.normalize(METHODS[how[role]](*fitted), dim=0)
        directions[role] = unit if float(gap @ unit) >= 0 else -unit
    reader = directions["reader"]
    return Vector(
        site=site,
        writer=directions["writer"] * (gap @ directions["writer"]).abs(),
        reader=reader,
        mean=(fitted[0].mean(0) + fitted[1].mean(0)) / 2,
        sigma=_spread(directions["writer"], fitted),
        norm=float(torch.cat(fitted).norm(dim=-1).mean()),
        threshold=cut(*(side @ reader for side in tested or fitted)),
        head=head,
        at=at,
        how=how,
        checks=_checks(directions, fitted, tested, parts, how),
    )


def _spread(unit: Tensor, sides: Sides) -> float:
    """The standard deviation of the projection on a direction, within the classes."""
    within = [(side - side.mean(0)) @ unit for side in sides]
    return float((torch.cat(within).square().sum() / max(sum(map(len, within)) - 2, 1)).sqrt())


def _checks(
    directions: dict[str, Tensor], fitted: Sides, tested: Sides | None, parts: tuple[Concept, Concept | None], how: Any
) -> list[Check]:
    """Whether writer and reader tell the classes apart on held-out prompts, and would come out again."""
    rows, (fit, test) = [], parts
    for role, unit in directions.items():
        readings = None if tested is None or test is None else [side @ unit for side in tested]
        rows.append(_tells_apart(role, readings, None if test is None else test.groups))
        method = METHODS[how[role]]
        again = stability(method, *fitted, fit.paired, how["seed"])
        why = "mean cosine of the directions of two random halves; an unstable one is one of many"
        rows.append(Check.at_least(f"stability of the {role}", again, 0.7, why))
    alike = agreement(*fitted) if fit.paired else float("nan")
    why = (
        "mean cosine of two pairs' differences; where they disagree, steering is unreliable (no threshold in the paper)"
    )
    rows.append(Check.at_least("agreement of the pairs", alike, 0.1, why, _BRAUN))
    if how["writer"].startswith("pca"):
        share = _explained(directions["writer"], fitted)
        why = (
            "share of the mean difference that lies along the principal component: this method subtracts a mean, and "
            "with it the concept, or finds the largest nuisance; mean_difference does neither"
        )
        rows.append(Check.at_least("mean difference along the component", share, 0.7, why, "arXiv:2310.01405"))
    return rows


def _tells_apart(role: str, readings: Sequence[Tensor] | None, groups: Sequence[Sequence[str]] | None) -> Check:
    """The check that held-out prompts with the concept read higher, by more than chance: groups are its units."""
    score, p = float("nan"), float("nan")
    if readings is not None and groups is not None:
        score = auroc(readings[0], readings[1])
        p = p_of_separation(*(means_of(side, names) for side, names in zip(readings, groups)))
    if p == p:
        why = f"how often a held-out prompt with the concept reads higher than one without; {p:.2g} by Mann & Whitney"
        why += " over the held-out groups, which must be 0.05 or less"
    else:
        why = "too few groups are held out to tell reading from chance: three on each side can; give more"
    status = "skipped" if p != p else "pass" if score >= 0.8 and p <= 0.05 else "warn"
    return Check(f"held-out AUROC of the {role}", score, 0.8, status, why)


def _explained(unit: Tensor, fitted: Sides) -> float:
    return float(torch.cosine_similarity(METHODS["mean_difference"](*fitted), unit, dim=0).abs())


@torch.no_grad()
def permuted_like(
    model: Model, concept: Concept | Labelled, vectors: Vectors, n: int = 20, seed: int = 0
) -> list[list[Vector]]:
    """What extraction makes of the same prompts under exchanged labels, n times: the null of the whole procedure.

    Prompts that were held out when the vectors were fitted are held out here. Labels are exchanged within pairs, or
    between prompts, whole groups at a time; the vectors have the length that they come out with.

    Raises:
        ValueError: A vector of which it is not known by what method it was found, such as an imported one.
    """
    concept, vectors, generator = concept_of(concept), many(vectors), torch.Generator().manual_seed(seed)
    for vector in vectors:
        if (method := vector.how.get("writer")) not in METHODS:
            raise ValueError(
                f"by what method the vector of {vector.site} was found is not known (how['writer'] is {method!r}), so "
                "that it cannot be found again under exchanged labels; give one of steering.extract"
            )
    fit = concept.split(float(vectors[0].how.get("held_out", 0.0)), int(vectors[0].how.get("seed", 0)))[0]
    exchanges = [exchange_of(fit, generator) for _ in range(n)]
    sides = [collect(model, fit, [v.site], [v.at], v.head)[v.site, v.at] for v in vectors]
    return [[_rewritten(vector, exchange(held)) for vector, held in zip(vectors, sides)] for exchange in exchanges]


def _rewritten(vector: Vector, sides: Sides) -> Vector:
    """The vector that its method finds in other activations."""
    gap = METHODS["mean_difference"](*sides)
    unit = torch.nn.functional.normalize(METHODS[vector.how["writer"]](*sides), dim=0)
    writer = unit * (gap @ unit)
    return replace(vector, writer=writer, sigma=_spread(unit, sides), mean=(sides[0].mean(0) + sides[1].mean(0)) / 2)
