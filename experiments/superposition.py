"""How many dimensions are used, by how many features, and are the coordinates themselves meant?

Superposition, and the dimensions that each feature has: Elhage et al. 2022 (arXiv:2209.10652). Privileged bases, by the
kurtosis of coordinates: Elhage et al. 2023, "Privileged Bases in the Transformer Residual Stream". Participation ratio:
Gao et al. 2017 (bioRxiv 214262). The first token of a text is left out: its activations are of another size
(arXiv:2402.17762).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.geometry import Reader, dimensions, kurtosis, own, rotated, spectrum
from experiments.lab.subjects import open_model, open_texts
from experiments.lab.wording import within

if TYPE_CHECKING:
    import xarray as xr
    from torch import Generator, Tensor

    from interp import Model

QUESTION = "How many features share how many dimensions, and do the coordinates matter?"
VERSION = 1
_KINDS = {"resid_post": "residual stream", "mlp_post": "neurons"}


@dataclass(frozen=True)
class Config(OnModel):
    data: str = option("", "own texts: a file with one on each line")
    n: int = option(128, "how many texts")
    length: int = option(24, "how many tokens of each are read")
    draws: int = option(99, "of bases and of directions at random, for what there is by chance")
    features: int = option(512, "directions of how many tokens, at most")


def inputs(cfg: Config) -> tuple[Any, ...]:
    if cfg.draws < 19:
        raise ValueError(f"of draws={cfg.draws} at random, none can show p ≤ 0.05; give 19 or more")
    if min(cfg.features, cfg.length) < 2:
        raise ValueError(
            f"features={cfg.features} and length={cfg.length} should be 2 or more: the first token is left out"
        )
    model = open_model(cfg)
    return model, open_texts(cfg, model, cfg.length)


def run(cfg: Config) -> Arrays:
    import torch

    from interp import probing

    model, tokens = inputs(cfg)
    generator = torch.Generator().manual_seed(cfg.seed)
    read, bare = (Reader(each, tokens, cfg.length) for each in (model, probing.untrained(model, cfg.seed)))
    kinds = [kind for kind in _KINDS if kind in model.editable]
    over = lambda measure: torch.stack([torch.stack([measure(s) for s in model.sites(kind)]) for kind in kinds])
    found = {
        "dimensions": over(lambda site: dimensions(read(site), read.text, cfg.seed)),
        "kurtosis": over(lambda site: read.by_text(kurtosis(read(site)))),
        "untrained": over(lambda site: bare.by_text(kurtosis(bare(site)))),
        "rotated": torch.stack([rotated(read, kind, cfg.draws, generator) for kind in kinds]),
        "spectrum": torch.stack([spectrum(read(site)) for site in model.sites("resid_post")]),
    }
    return _named(found, model, kinds, len(read.text)) | _features(cfg, model, generator)


def numbers(arrays: Arrays) -> dict[str, float]:
    table, last = _kurtoses(arrays), arrays["dimensions"].isel(layer=-1)
    found = {f"dimensions_{_short(kind)}": float(last["mean"].sel(kind=kind)) for kind in last["kind"].values}
    found |= {f"kurtosis_{_short(kind)}": float(table["mean"].sel(kind=kind).max()) for kind in last["kind"].values}
    feature = arrays["feature_table"]
    return found | {f"share_{name}": float(feature["mean"].sel(set=name)) for name in feature["set"].values}


def answer(arrays: Arrays) -> str:
    used = arrays["dimensions"].sel(kind=_KINDS["resid_post"]).isel(layer=-1)
    table, features = _kurtoses(arrays), arrays["feature_table"]
    said = [
        f"After the last block the residual stream uses {within(used)} of its {arrays['spectrum'].sizes['component']} dimensions "
        f"(were its coordinates independent, {float(used['independent']):.0f})."
    ]
    said += [_basis(table.sel(kind=kind), str(kind)) for kind in table["kind"].values]
    here = features.sel(set="unembedding")
    alone, low, high, random, best = (float(here[name]) for name in ("mean", "low", "high", "random", "best"))
    start = "More words than dimensions" if best < 1 else "No more words than dimensions"
    evenly = "less evenly than" if high < float(here["random_low"]) else "as evenly as"
    evenly = "more evenly than" if low > float(here["random_high"]) else evenly
    said.append(
        f"{start}: each of {int(here['n'])} words has {alone:.3f} ({low:.3f} to {high:.3f}) of a dimension of the unembedding to itself. At random it "
        f"would be {random:.3f}, at best {best:.3f}: words are spread {evenly} directions at random."
    )
    return " ".join(said)


def draw(arrays: Arrays) -> Shown:
    from interp import plots, stats

    used, bands = arrays["dimensions"], _kurtoses(arrays)
    bare, spectrum = stats.interval(arrays["untrained"]), arrays["spectrum"].cumsum("component")
    curves: dict[str, Any] = {}
    basis: dict[str, Any] = {}
    for kind in used["kind"].values:
        name = _short(kind)
        curves |= {name: used.sel(kind=kind), f"{name}, independent": used["independent"].sel(kind=kind)}
        basis |= {name: bands.sel(kind=kind), f"{name}, untrained": bare.sel(kind=kind)}
    basis["rotated"] = arrays["rotated"].isel(kind=0).mean("rotation")
    last, step = spectrum.sizes["layer"] - 1, max(1, spectrum.sizes["layer"] // 5)
    cumulated = {f"block {layer}": spectrum.sel(layer=layer) for layer in sorted({*range(0, last, step), last})}
    shares = plots.lines(
        cumulated, "component", "Variance of the stream in its largest components", "share of variance"
    )
    kurtosis = plots.lines(basis, "layer", "Kurtosis of a token's coordinates", "kurtosis")
    kurtosis.update_yaxes(type="log", tickvals=[1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000])
    table = arrays["feature_table"]
    features = plots.bars(_beside(table), "directions", "Dimensions that each word has to itself", "dimensions")
    features.add_hline(float(table["best"]), line=dict(color="#888", dash="dot"), annotation_text="as even as can be")
    return {
        "dimensions": plots.lines(curves, "layer", "Effective dimensions", "participation ratio"),
        "spectrum": shares.update_traces(mode="lines"),
        "basis": kurtosis,
        "features": features,
    }


def _named(found: dict[str, "Tensor"], model: "Model", kinds: list[str], n: int) -> dict[str, Any]:
    """Measurements by kind and layer as labelled arrays, with a check that there were tokens enough."""
    from interp.arrays import Check, labelled

    least, why = n / model.shape.d_model, "with fewer tokens, the smallest components are chance"
    check = Check.at_least("tokens for each dimension of the stream", least, 5, why)
    places = {"kind": [_KINDS[kind] for kind in kinds], "layer": range(model.shape.n_layers)}
    axes = {
        "dimensions": places | {"of": ["mean", "low", "high", "independent"]},
        "kurtosis": places | {"prompt": range(found["kurtosis"].shape[-1])},
        "untrained": places | {"prompt": range(found["kurtosis"].shape[-1])},
        "rotated": places | {"rotation": range(found["rotated"].shape[-1])},
        "spectrum": {"layer": places["layer"], "component": range(1, found["spectrum"].shape[-1] + 1)},
    }
    arrays: dict[str, Any] = {
        name: labelled(found[name], name, coords, model, [check] if name == "spectrum" else [], tokens=n)
        for name, coords in axes.items()
    }
    return arrays | {"dimensions": arrays["dimensions"].to_dataset("of", promote_attrs=True)}


def _kurtoses(arrays: Arrays) -> "xr.Dataset":
    """Kurtosis with its interval, what rotations give, and its p-value among all places."""
    from interp import stats

    table = stats.interval(arrays["kurtosis"])
    rotated = arrays["rotated"]
    largest = rotated.max(["kind", "layer"])
    p = (1 + (largest >= table["mean"]).sum("rotation")) / (1 + rotated.sizes["rotation"])
    return table.assign(p=p, rotated=rotated.mean("rotation"), untrained=arrays["untrained"].mean("prompt"))


def _basis(table: "xr.Dataset", kind: str) -> str:
    """Whether a kind of activation has coordinates that mean something, where they do most."""
    at = table.isel(layer=int(table["mean"].argmax("layer")))
    sure = (
        "Coordinates matter"
        if float(at["p"]) <= 0.05 and float(at["low"]) > float(at["rotated"])
        else "Coordinates do not matter"
    )
    return (
        f"{sure} in the {kind}: kurtosis is {within(at)} after block {int(at['layer'])}, {float(at['rotated']):.2f} in bases at random "
        f"(p = {float(at['p']):.2g}) and {float(at['untrained']):.2f} without training."
    )


def _features(cfg: Config, model: "Model", generator: "Generator") -> dict[str, Any]:
    """How many dimensions the directions of words have to themselves, beside directions at random of their lengths."""
    import torch

    from interp import stats, weights
    from interp.arrays import labelled

    special = set(getattr(model.tokenizer, "all_special_ids", []))
    pool = torch.tensor([i for i in range(model.shape.d_vocab) if i not in special])
    ids = pool[torch.randperm(len(pool), generator=generator)[: cfg.features].sort().values].to(model.device)
    sets = {"embedding": weights.embedding(model, ids), "unembedding": weights.unembedding(model, ids)}
    alone = torch.stack([own(x - x.mean(0)) for x in sets.values()])
    coords: dict[str, Any] = {"set": [*sets], "feature": ids.tolist()}
    values = labelled(alone, "dimensions of its own", coords, model, vocabulary=len(pool))
    random = []
    for x in sets.values():
        length = (x - x.mean(0)).norm(dim=-1, keepdim=True)
        noise = [torch.randn(x.shape, generator=generator).to(x) for _ in range(cfg.draws)]
        random.append(torch.stack([own(length * y / y.norm(dim=-1, keepdim=True)).mean() for y in noise]))
    chance = labelled(torch.stack(random), "dimensions of its own", {"set": [*sets], "draw": range(cfg.draws)}, model)
    low, high = (chance.quantile(q, "draw", keep_attrs=False).drop_vars("quantile") for q in (0.025, 0.975))
    best = min(1.0, model.shape.d_model / len(ids))
    table = stats.interval(values, over="feature", seed=cfg.seed)
    table = table.assign(random=chance.mean("draw"), random_low=low, random_high=high, best=best, n=len(ids))
    return {"features": values, "random": chance, "feature_table": table}


def _beside(table: "xr.Dataset") -> "xr.Dataset":
    """Measured directions beside random ones, with the intervals of both."""
    import xarray as xr

    found = table[["mean", "low", "high"]]
    chance = table[["random", "random_low", "random_high"]].rename(random="mean", random_low="low", random_high="high")
    names = [f"{name}{what}" for what in ("", ", at random") for name in table["set"].values]
    both = xr.concat([found, chance], "set").assign_coords(set=names).rename(set="directions")
    return both.sortby("directions")


def _short(kind: Any) -> str:
    return str(kind).split()[-1]
