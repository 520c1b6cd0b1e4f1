"""From the numbers of a probe to what may be said: absent, in distribution only, decodable, used; and the checks."""

import numpy as np
import xarray as xr

from interp.arrays import Check
from interp.tasks import Labelled

WORDS = ("absent", "undecided", "in distribution only", "decodable", "used")
WAYS = ("interchange", "erasure")
LEVEL = 0.025  # one-sided, as half of the usual 5 %
LEAST = 0.05  # the share of the model's preference that a change must move to count as use


def verdicts(result: xr.Dataset) -> xr.DataArray:
    """What may be said at each place.

    * "absent": no better than under shuffled labels anywhere (p > 0.025, corrected over places), or without skill.
    * "undecided": it is read better than under any shuffle, with skill, but there are too few of these for p <= 0.025;
      or a probe of one family keeps less than half of its advantage in some other one, but not surely.
    * "in distribution only": it is read well, but surely (97.5 % of a bootstrap of groups) a probe of one family keeps
      less than half of the advantage over the majority that it, or a probe of all families, has, in some other one.
    * "decodable": it is read, also across families, if there are any: half of the advantage is kept in each.
    * "used": it is not surely in distribution only, and the model's answers follow when what is read is set to another
      class, and are lost when it is erased: more than by any placebo anywhere, and by at least 5 % of the model's
      preference.
    """
    least = _least_p(result)
    found = (result["p"] <= max(LEVEL, least)) & (result["skill"] > 0)
    if least > LEVEL:
        return _words(xr.where(found, 1, 0))
    level = xr.where(found, 3, 0)
    if "transfer" in result:
        level = xr.where(found & (result["transfer_margin"] < 0), 1, level)
        level = xr.where(found & (result["transfer_margin_high"] < 0), 2, level)
    if "interchange" in result:
        moved = [(result[f"{way}_p"] <= 0.05) & (result[way] >= LEAST) for way in WAYS]
        level = xr.where(found & (level != 2) & moved[0] & moved[1], 4, level)
    return _words(level)


def _words(level: xr.DataArray) -> xr.DataArray:
    return level.copy(data=np.array(WORDS)[level.values]).rename("verdict")


def _least_p(result: xr.Dataset) -> float:
    """The least p-value that there can be: one over the number of labellings compared."""
    return float(result.attrs.get("least_p", 0.0))


def _least(result: xr.Dataset, first: str, second: str) -> xr.DataArray:
    """The smaller of two at each place."""
    return result[first].where(result[first] < result[second], result[second])


def _chance(result: xr.Dataset) -> float:
    """The accuracy of the majority; of numbers, the R^2 of their mean."""
    return float(result.attrs.get("majority", 0.0))


def overall(result: xr.Dataset, concept: str) -> str:
    """What was found, in a sentence."""
    level = np.vectorize(WORDS.index)(result["verdict"].values)
    word = WORDS[int(level.max())]
    among = result["verdict"] == word
    best = best_index(result["skill"].where(among))
    if word == "used":
        best = best_index(_least(result, *WAYS).where(among))
    here = result.isel(best)
    place = ", ".join(f"{axis} {here[axis].item()}" for axis in result["skill"].dims)
    count = f"at {int((level == level.max()).sum())} of {level.size} places"
    skill = f"skill {float(here['skill']):.2f} at {place}"
    if word == "absent":
        if (least := float(result["p"].min())) <= LEVEL:
            told = f"where it is told from shuffled labels (p = {least:.2g}), no probe has skill"
            return f"{concept} is absent: {told}; more prompts may give one"
        return f"{concept} is absent: at none of {level.size} places is it read better than shuffled labels"
    if word == "undecided":
        read = f"accuracy {float(here['accuracy']):.2f}" if "accuracy" in here else skill
        return f"{concept} is undecided: it is read with {read} at {place}, but {why_undecided(result, here)}"
    if word == "in distribution only":
        return (
            f"{concept} is read in distribution only ({skill}): between families, accuracy falls to "
            f"{_worst(here):.2f}, so that what is read is not the concept"
        )
    if word == "decodable":
        known = "interchange" in result
        tail = "changing what is read does not change the answers" if known else "whether it is used was not tested"
        return f"{concept} is decodable {count} ({skill}); {tail}"
    effects = ", ".join(f"{way} {float(here[way]):.2f}" for way in WAYS)
    return f"{concept} is used {count} ({skill}; {effects})"


def why_undecided(result: xr.Dataset, here: xr.Dataset) -> str:
    """Why it cannot be told whether a place reads a concept, and what to do about it."""
    least = _least_p(result)
    if least <= LEVEL:
        return f"between families, accuracy falls to {_worst(here):.2f}, perhaps by chance; give more groups"
    n = round(1 / least) - 1
    if result.attrs["labellings"] == "all":
        there, remedy = f"its groups allow only {n} other labellings", "give more groups of each class"
    else:
        there, remedy = f"only {n} shuffles were drawn", f"give shuffles={round(1 / LEVEL) - 1} or more"
    return f"{there}, so that the least p-value is {least:.2g}, which is above {LEVEL}; {remedy}"


def best_index(values: xr.DataArray) -> dict[str, int]:
    """The place of the largest value, by index."""
    where = np.unravel_index(int(np.nanargmax(values.values)), values.shape)
    return {str(axis): int(i) for axis, i in zip(values.dims, where)}


def _worst(here: xr.Dataset) -> float:
    matrix = here["transfer"].values
    return float(matrix[~np.eye(len(matrix), dtype=bool)].min())


def checks(result: xr.Dataset, data: Labelled) -> list[Check]:
    """Whether to believe the best place."""
    here = result.isel(best_index(result["skill"]))
    n_groups = len(set(data.groups)) if data.groups is not None else 0
    why = "folds must keep together what is alike; of few groups, any may be an accident"
    rows = [Check.at_least("groups", n_groups, 10, why)]
    rows += [_above(here, "skill_low", "lower bound of the skill", "a probe must beat the shares of the classes", "")]
    why = "few groups, or few shuffles, leave no room for a low p-value"
    rows += [Check.at_most("least p-value that there can be", _least_p(result), LEVEL, why)]
    rows += [_p(here, "p", "p-value of the best place", "the best place must beat the best under shuffled labels", "")]
    rows += _controls(here, _chance(result)) + _spread(here) + _transfer(result) + _use(result)
    return rows


def _controls(here: xr.Dataset, majority: float) -> list[Check]:
    rows = []
    if "selectivity_low" in here:
        why = "a probe must read the labels better than labels without meaning, one for each type of word"
        rows.append(_above(here, "selectivity_low", "lower bound of the selectivity", why, "arXiv:1909.03368"))
        control, why = float(here["control_accuracy"]), "labels without meaning are read by heart only"
        rows.append(Check.at_most("accuracy of the control task", control, majority + 0.1, why))
    for rival, what in (
        ("bag", "the words without order"),
        ("token", "the token that is read"),
        ("untrained", "an untrained copy"),
    ):
        if (name := f"gain_over_{rival}_low") in here:
            why = f"what {what} tells need not have been computed by the model"
            rows.append(_above(here, name, f"lower bound of the gain over {what}", why, "arXiv:2102.12452"))
    if "compression" in here:
        ratio = float(here["compression"] / here["control_compression"])
        why = "the labels must take fewer bits than labels without meaning"
        rows.append(Check.above("code of the control over the labels'", ratio, 1.0, why, "arXiv:2003.12298"))
    return rows


def _spread(here: xr.Dataset) -> list[Check]:
    cosine, ample = float(here["stability"]), float(here["examples_per_dimension"])
    why = "folds that disagree on the direction have not found one"
    rows = [Check.at_least("cosine between folds' directions", cosine, 0.7, why)]
    why = "with fewer examples than five for each dimension that varies, much of a fit is chance"
    return [*rows, Check.at_least("examples per effective dimension", ample, 5.0, why)]


def _transfer(result: xr.Dataset) -> list[Check]:
    if "transfer" not in result:
        return []
    here = result.isel(best_index(result["skill"]))
    worst, margin, high = _worst(here), float(here["transfer_margin"]), float(here["transfer_margin_high"])
    status = "pass" if margin >= 0 else "fail" if high < 0 else "warn"
    why = "a probe of the concept must hold in other families of prompts: half of its advantage at least"
    return [Check("worst transfer between families", worst, worst - margin, status, why, "arXiv:2310.06824")]


def _use(result: xr.Dataset) -> list[Check]:
    if "interchange" not in result:
        why = "answers are unknown or do not follow the labels, or the causal check was switched off"
        return [Check("causal use", float("nan"), LEAST, "skipped", why, "arXiv:2006.00995")]
    shown = {way: result[way].where(result[f"{way}_p"] <= 0.05, 0) for way in WAYS}
    best = float(_least(xr.Dataset(shown), *WAYS).max())
    why = "setting and erasing what is read must both change the answers, more than placebos of the same size"
    return [Check.at_least("causal use, at the best place for it", best, LEAST, why, "arXiv:2006.00995")]


def _above(here: xr.Dataset, name: str, what: str, why: str, source: str) -> Check:
    return Check.above(what, float(here[name]), 0.0, why, source)


def _p(here: xr.Dataset, name: str, what: str, why: str, source: str) -> Check:
    return Check.at_most(what, float(here[name]), LEVEL, why, source)
