"""Which heads move the name to where it is said, and what tells them which name? Path patching of every head.

Wang et al. 2022 (arXiv:2211.00593).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.arrays import by_head, gap, starred
from experiments.lab.subjects import open_model, open_two
from experiments.lab.wording import between, largest, listed, percent, within

if TYPE_CHECKING:
    import xarray as xr

    from interp import Model
    from interp.graph import Graph
    from interp.tasks import Task

QUESTION = "Which heads move the name?"
VERSION = 1


@dataclass(frozen=True)
class Config(OnModel):
    movers: int = option(3, "how many of the heads that matter most to the logits are traced further back")
    free: Literal["mlps", "nothing"] = option("mlps", "what passes on what a head says, beside the direct path")
    draws: int = option(50, "how many random sets of heads the movers are held against")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, *open_two(cfg, model, "ioi")


def run(cfg: Config) -> Arrays:
    from interp import circuits, stats

    model, task, test = inputs(cfg)
    graph = circuits.graph(model)
    heads = _heads(model, graph)
    free = [name for name in graph.writers if name.startswith("mlp")] if cfg.free == "mlps" else []
    said = _lost(model, task, ["logits"], {name: [name] for name in heads}, free)
    table = stats.summary(said, seed=cfg.seed)
    sure = table["mean"].where(table["significant"] & (table["mean"] > 0)).dropna("sender")
    movers = [str(name) for name in sure.sortby(sure, ascending=False)["sender"].values[: cfg.movers]]
    arrays = {"heads": said, "heads_table": table, "gap": gap(model, task), "gap_held_out": gap(model, test)}
    arrays |= _attention(model, task)
    if not movers:
        return arrays
    reads = _reads(model, task, graph, movers, ["embed", *heads], free)
    arrays |= reads | {f"{name}_table": stats.summary(array, seed=cfg.seed) for name, array in reads.items()}
    sets = {"movers": movers} | _rivals([name for name in heads if name not in movers], len(movers), cfg)
    held_out = _lost(model, test, ["logits"], sets, free).assign_attrs(movers=", ".join(movers))
    return arrays | {"held_out": held_out}


def numbers(arrays: Arrays) -> dict[str, float]:
    from interp.graph import place_of

    table, nothing = arrays["heads_table"], float("nan")
    best = str(table["mean"].idxmax("sender").item())
    found = {"lost": float(table["mean"].max()), "best_layer": place_of(best)[0], "best_head": place_of(best)[2]}
    if "held_out" not in arrays:
        return found | {"together": nothing, "random": nothing, "told": nothing}
    shares = arrays["held_out"].mean("prompt") / arrays["gap_held_out"].mean()
    rivals = shares.drop_sel(sender="movers")
    return found | {
        "together": float(shares.sel(sender="movers")),
        "random": float(rivals.max()) if rivals.size else nothing,
        "told": float(arrays["receivers_table"]["mean"].max()),
    }


def answer(arrays: Arrays) -> str:
    from interp import stats

    table, far = arrays["heads_table"], stats.interval(arrays["gap"])
    if not float(far["low"]) > 0:
        return f"None: the model does not tell who is given something. Clean and corrupt runs are {within(far)} logits apart."
    apart = float(far["mean"])
    if "held_out" not in arrays:
        return (
            f"None for certain: cut off from the logits, no head costs more of the {apart:.1f} logits than by chance."
        )
    movers = arrays["held_out"].attrs["movers"].split(", ")
    also = f"; {listed(movers[1:])} {'does' if len(movers) == 2 else 'do'} so next" if movers[1:] else ""
    sure = int(table["significant"].sum())
    return (
        f"{movers[0]} most: cut off from the logits it costs {within(table, sender=movers[0])} of {apart:.1f} logits{also} ({sure} "
        f"of {table.sizes['sender']} heads have an effect that is not chance). {_controlled(arrays)}{_looking(arrays, movers)} "
        f"{_told(arrays, movers[0])}"
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots

    table = by_head(arrays["heads_table"])
    stars, lost = "(★ p ≤ 0.05)", table["mean"].rename("logits lost")
    shown = {"heads": plots.heatmap(lost, f"Heads cut off from the logits {stars}", significant=table["significant"])}
    if "looks" in arrays:
        looks = by_head(arrays["looks"].mean("prompt"))
        shift = (looks.sel(name="right") - looks.sel(name="wrong")).rename("attention")
        shown["looks"] = plots.heatmap(shift, "Attention from the last word: right name minus other", diverging=True)
    if "held_out" not in arrays:
        return shown
    whole, senders = arrays["receivers_table"], arrays["senders_table"].transpose("receiver", "sender")
    told = senders["mean"].rename("logits lost")
    return shown | {
        "receivers": plots.bars(whole, "receiver", "All that a mover reads, from the corrupt prompt", "logits lost"),
        "senders": plots.heatmap(told, f"Who tells them, each alone {stars}", text=starred(senders)),
        "held_out": plots.distributions(_rivalry(arrays), "Movers and random heads on other prompts, a dot a prompt"),
    }


def _heads(model: "Model", graph: "Graph") -> list[str]:
    if not graph.splits:
        raise ValueError(
            f"the heads of {model.name} cannot be told apart in what attention writes, because a norm stands between; "
            "indirect_object patches their z, which can be had"
        )
    return [name for name in graph.writers if name.startswith("L")]


def _lost(
    model: "Model", task: "Task", receivers: Sequence[str], senders: Mapping[str, Sequence[str]], free: Sequence[str]
) -> "xr.DataArray":
    """Logits lost when receivers hear senders as in the corrupt run, by (sender, prompt)."""
    from interp import circuits

    change = circuits.path_patch(model, task.clean, task.corrupt, receivers, task.logit_diff, senders, free)
    return change.copy(data=-change.values).rename("logits lost")


def _reads(
    model: "Model", task: "Task", graph: "Graph", movers: Sequence[str], senders: Sequence[str], free: Sequence[str]
) -> dict[str, "xr.DataArray"]:
    """What is lost when the queries, keys or values of a mover hear all of the corrupt run, and when a sender of it."""
    import xarray as xr

    from interp import circuits

    own = {name: _readers(graph, name) for name in movers}
    into = list(
        dict.fromkeys(reader for readers in own.values() for reader in readers)
    )  # keys and values may be shared
    sets = {reader: graph.mask([("*", reader)]) for reader in into}
    whole = circuits.patch_edges(model, task.clean, task.corrupt, sets, task.logit_diff, "noising")
    parts = []
    for reader in into:
        before = [name for name in senders if graph.precedes[graph.writers.index(name), graph.readers.index(reader)]]
        parts.append(
            _lost(model, task, [reader], {name: [name] for name in before}, free).reindex(sender=list(senders))
        )
    found = xr.concat(parts, "receiver", combine_attrs="drop_conflicts").assign_coords(receiver=into)
    whole = whole.copy(data=-whole.values).rename(set="receiver").rename("logits lost")
    whole = whole.assign_attrs({name: ", ".join(readers) for name, readers in own.items()})
    return {"receivers": whole, "senders": found.dropna("sender", how="all")}


def _readers(graph: "Graph", head: str) -> list[str]:
    made = graph.makes[:, graph.writers.index(head)]
    return [name for name, by_it in zip(graph.readers, made.tolist()) if by_it]


def _rivals(heads: Sequence[str], size: int, cfg: Config) -> dict[str, list[str]]:
    """Random sets of as many other heads, as far as there are others."""
    import random

    rng = random.Random(cfg.seed)
    draws = cfg.draws if len(heads) >= size else 0
    return {f"random {i}": rng.sample(list(heads), size) for i in range(draws)}


def _attention(model: "Model", task: "Task") -> dict[str, "xr.DataArray"]:
    """How much each head looks from the last word at each name, where the prompts hold both."""
    import torch

    from interp.arrays import labelled

    ids, sites = task.clean.ids, model.sites("pattern")
    seen = [ids == answers[:, :1] for answers in (task.right, task.wrong)]
    if not all(bool(where.any(-1).all()) for where in seen):
        return {}
    trace = model.run(task.clean, read=sites, last_only=True)
    pattern = torch.cat([trace[site][:, :, -1] for site in sites], 1)  # a name that is said twice is seen twice
    looks = torch.stack([(pattern * where[:, None].to(pattern)).sum(-1).T for where in seen])
    names = [f"L{site.layer}H{head}" for site in sites for head in range(model.shape.n_heads)]
    coords: dict[str, Any] = {"name": ["right", "wrong"], "sender": names, "prompt": range(len(task))}
    return {"looks": labelled(looks, "attention", coords, model, method="attention", site="pattern")}


def _rivalry(arrays: Arrays) -> "xr.DataArray":
    """What movers and random heads cost, as shares of the gap: by (heads, prompt)."""
    import xarray as xr

    shares = arrays["held_out"] / arrays["gap_held_out"].mean()
    rivals = shares.drop_sel(sender="movers")
    sides = {"movers": shares.sel(sender="movers", drop=True)}
    if rivals.sizes["sender"]:
        sides["costliest random set"] = rivals.sel(sender=rivals.mean("prompt").idxmax("sender"), drop=True)
        sides["random sets, mean"] = rivals.mean("sender")
    return xr.concat(sides.values(), "heads").assign_coords(heads=list(sides)).rename("share of the gap")


def _controlled(arrays: Arrays) -> str:
    """What movers and random heads cost on prompts that the movers were not found on, in words."""
    from interp import stats

    apart, values = arrays["gap_held_out"], arrays["held_out"]
    costs = values.sel(sender="movers", drop=True)
    share = stats.ratio(costs, apart)
    if bool(share["mean"].isnull()):
        return "On other pairs the two runs are not told apart, so that nothing can be a share of their gap."
    who = "together they cost" if "," in values.attrs["movers"] else "it costs"
    said = f"On other pairs {who} {between(share)} of the gap"
    rivals = values.drop_sel(sender="movers").mean("prompt") / float(apart.mean())
    if not rivals.size:
        return f"{said}."
    return f"{said}, {rivals.size} random sets of as many other heads at most {percent(rivals.max())}."


def _told(arrays: Arrays, name: str) -> str:
    """By which of its inputs a head is told what to do, and by whom, in words."""
    whole, senders = arrays["receivers_table"], arrays["senders_table"]
    own = arrays["receivers"].attrs[name].split(", ")
    reader = largest(whole["mean"].sel(receiver=own))["receiver"]
    teller = str(senders["mean"].sel(receiver=reader).idxmax("sender").item())
    who = "the words themselves say" if teller == "embed" else f"{teller} says"
    return (
        f"Of what it reads, {reader} matters most: all of it from the corrupt prompt costs {within(whole, receiver=reader)} "
        f"logits; what {who} there, alone {within(senders, receiver=reader, sender=teller)}."
    )


def _looking(arrays: Arrays, names: Sequence[str]) -> str:
    """Whether heads look at the name that they move, in words."""
    if "looks" not in arrays:
        return ""
    looks = arrays["looks"].mean("prompt")
    seen = [[f"{float(looks.sel(sender=head, name=name)):.2f}" for name in ("right", "wrong")] for head in names]
    pairs = listed([f"{head} {' and '.join(both)}" for head, both in zip(names, seen)])
    return f" Attention from the last word to that name and to the other: {pairs}."
