"""How much nearer to the final prediction is a tuned lens than the logit lens? KL divergence by block, on held-out text.

Belrose et al. 2023 (arXiv:2303.08112).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lab import Arrays, OnModel, Shown, option
from experiments.lab.subjects import lines_of, open_model, speaks_embedded
from experiments.lab.wording import between, percent

if TYPE_CHECKING:
    import xarray as xr

    from interp import Model, Tokens

QUESTION = "How much of the logit lens's error does a tuned lens take away?"
VERSION = 2
_TUNED, _LOGIT = "tuned lens", "logit lens"


@dataclass(frozen=True)
class Config(OnModel):
    n: int = option(480, "how many documents the lens is tuned on")
    data: str = option(
        "", "own text: a file with a document on each line; else the language or the writing of the model"
    )
    held_out: int = option(96, "how many other documents both lenses are measured on")
    length: int = option(60, "how many tokens of a document are read")
    steps: int = option(300, "of tuning, down the divergence")
    rate: float = option(0.15, "of the first step, in standard deviations")


def inputs(cfg: Config) -> tuple[Any, ...]:
    model = open_model(cfg)
    return model, _given(cfg, model)


def run(cfg: Config) -> Arrays:
    from interp import lens, stats
    from interp.zoo import corpus

    model, documents = inputs(cfg)
    if documents is None:
        documents = _sampled(cfg, model)
    fresh = documents.rows(slice(-cfg.held_out, None))
    tuned = lens.tune(
        model, documents.rows(slice(0, -cfg.held_out)), steps=cfg.steps, rate=cfg.rate, seed=cfg.seed
    )  # fmt: skip
    texts = {"held_out": fresh, "shuffled": _shuffled(fresh, cfg.seed)}
    if not cfg.data and speaks_embedded(model):
        texts["sentences"] = _read(model, _drawn(cfg, "sentences", cfg.held_out, [corpus.draw_repetition]), cfg.length)
    found = {name: _by_layer(lens.compare(model, {_TUNED: tuned}, text)) for name, text in texts.items()}
    kl = {name: dataset["kl"] for name, dataset in found.items()}
    left = {
        f"{name}_left": stats.ratio(x.sel(lens=_TUNED), x.sel(lens=_LOGIT), seed=cfg.seed) for name, x in kl.items()
    }
    return {**found, **left}


def numbers(arrays: Arrays) -> dict[str, float]:
    kl = arrays["held_out"]["kl"].mean("prompt")
    found = {"logit": float(kl.sel(lens=_LOGIT).mean()), "tuned": float(kl.sel(lens=_TUNED).mean())}
    found["constant"] = float(arrays["held_out"]["constant"].mean())
    for name, given in {"left": "held_out_left", "sentences_left": "sentences_left"}.items():
        left = arrays[given]["mean"].to_series() if given in arrays else {}
        found |= {f"{name}_{layer}": float(value) for layer, value in left.items()}
    return found


def answer(arrays: Arrays) -> str:
    held_out, left = arrays["held_out"], arrays["held_out_left"]
    layers = left["layer"].values.tolist()
    if len(layers) > 8:  # a few of many
        layers = [layers[i * (len(layers) - 1) // 4] for i in range(5)]
    before = held_out["kl"].sel(lens=_LOGIT).mean("prompt")
    shares = ", ".join(
        f"{between(left, layer=layer)} of {float(before.sel(layer=layer)):.2f} nats after block {layer}"
        for layer in layers
    )
    other = arrays["shuffled_left"]["mean"]
    return (
        f"On text that it was not tuned on, the tuned lens leaves {shares} of the logit lens's divergence from the final "
        f"prediction. {_against_constant(held_out)} With the words of that text in random order it leaves "
        f"{percent(other.min())} to {percent(other.max())}.{_without_repeats(arrays)}"
    )


def draw(arrays: Arrays) -> Shown:
    from interp import plots, stats

    held_out = arrays["held_out"]
    curves = {str(name): stats.interval(held_out["kl"].sel(lens=name)) for name in held_out["lens"].values}
    constant = held_out["constant"].expand_dims(layer=held_out["layer"].values)
    same = {str(name): stats.interval(held_out["agreement"].sel(lens=name)) for name in held_out["lens"].values}
    names = {"held_out": "held-out text", "shuffled": "its words shuffled", "sentences": "sentences, no repeats"}
    left = {name: arrays[f"{key}_left"] for key, name in names.items() if key in arrays}
    return {
        "kl": plots.lines(
            curves | {"one distribution for all": stats.interval(constant)}, "layer",
            "Divergence from the final prediction, held-out text", "nats a token",
        ),
        "left": plots.lines(left, "layer", "What tuning leaves of the logit lens's divergence", "share").update_yaxes(rangemode="tozero"),
        "agreement": plots.lines(same, "layer", "Same likeliest next token as in the end", "share of tokens"),
        "blocks": _table(arrays),
    }  # fmt: skip


def _without_repeats(arrays: Arrays) -> str:
    """What is left on sentences alone, in words."""
    if "sentences_left" not in arrays:
        return ""
    left = arrays["sentences_left"]
    shares = ", ".join(between(left, layer=layer) for layer in left["layer"].values)
    return (
        " One word of four in this text is a random word said again, which early blocks cannot foresee; on sentences "
        f"without them it leaves {shares}."
    )


def _against_constant(found: "xr.Dataset") -> str:
    """How both lenses stand against a prediction that ignores the text, in words."""
    skill, constant = found["skill"], float(found["constant"].mean())
    poor = {
        name: [int(x) for x in skill["layer"].values if not skill.sel(lens=name, layer=x) > 0]
        for name in (_LOGIT, _TUNED)
    }
    said = f"One distribution for all tokens, the best there is, is {constant:.2f} nats away: "
    worse = lambda layers: (
        f"no nearer than that after {'block' if len(layers) == 1 else 'blocks'} {', '.join(map(str, layers))}"
    )
    if poor[_LOGIT] == poor[_TUNED]:
        return f"{said}both lenses are {worse(poor[_LOGIT]) if poor[_LOGIT] else 'nearer everywhere'}."
    logit, tuned = (worse(poor[name]) if poor[name] else "nearer everywhere" for name in (_LOGIT, _TUNED))
    return f"{said}the logit lens is {logit}, the tuned lens {tuned}."


def _table(arrays: Arrays) -> Any:
    import pandas as pd

    mean = arrays["held_out"][["kl", "agreement"]].mean("prompt")
    columns = {f"KL, {name}": mean["kl"].sel(lens=name).values for name in (_LOGIT, _TUNED)}
    columns["left"] = arrays["held_out_left"]["mean"].values
    columns["left, words shuffled"] = arrays["shuffled_left"]["mean"].values
    if "sentences_left" in arrays:
        columns["left, no repeats"] = arrays["sentences_left"]["mean"].values
    columns |= {f"agreement, {name}": mean["agreement"].sel(lens=name).values for name in (_LOGIT, _TUNED)}
    columns |= {f"skill, {name}": arrays["held_out"]["skill"].sel(lens=name).values for name in (_LOGIT, _TUNED)}
    return pd.DataFrame({"after block": mean["layer"].values, **columns}).round(3)


def _by_layer(found: "xr.Dataset") -> "xr.Dataset":
    """Streams by the block that they leave."""
    layers = [int(str(site).rpartition(".")[2]) for site in found["site"].values]
    return found.rename(site="layer").assign_coords(layer=layers)


def _given(cfg: Config, model: "Model") -> "Tokens | None":
    """Documents of a file or of the embedded language; None where the model is to write them itself."""
    total = cfg.n + cfg.held_out
    if min(cfg.n, cfg.held_out) < 1 or cfg.length < 2:
        raise ValueError(
            f"n={cfg.n} and held_out={cfg.held_out} should be 1 or more, and length={cfg.length} 2 or more: a lens needs text to "
            "be tuned on, and other text to be measured on"
        )
    if cfg.data:
        return _read(model, _lines(cfg, total), cfg.length)
    if not speaks_embedded(model):
        return None
    return _read(model, _drawn(cfg, "", total), cfg.length)


def _drawn(cfg: Config, kind: str, n: int, without: Sequence[Any] = ()) -> list[str]:
    """Documents of the embedded language, others for each kind, without the sentences of some rules."""
    import random

    from interp.zoo import corpus

    draws = (random.Random(f"{cfg.seed} {kind}{i}") for i in range(n))
    return [" ".join(corpus.draw_text(rng, cfg.length, without=without)) for rng in draws]


def _lines(cfg: Config, total: int) -> list[str]:
    lines = lines_of(cfg.data)[:total]
    if len(lines) < cfg.held_out + 10:
        raise ValueError(
            f"{Path(cfg.data).name} has {len(lines)} documents, of which held_out={cfg.held_out} are measured on; at least ten more "
            "are needed to tune on: give more lines, or a smaller held_out="
        )
    return lines


def _sampled(cfg: Config, model: "Model") -> "Tokens":
    """What the model writes of itself, at temperature 1."""
    import torch

    from interp.generation import Sampling, continuations

    start = getattr(model.tokenizer, "bos_token_id", None)
    generator = torch.Generator().manual_seed(cfg.seed)
    total = cfg.n + cfg.held_out
    drawn = torch.randint(model.shape.d_vocab, (total, 1), generator=generator)
    first = drawn if start is None else torch.full_like(drawn, start)
    ids = [
        continuations(
            model, (some, torch.ones_like(some)), cfg.length - 1, sampling=Sampling(1.0, seed=cfg.seed + i)
        ).tokens.ids
        for i, some in enumerate(first.split(64))
    ]
    every = torch.cat(ids)
    return model.tokens((every, torch.ones_like(every)))


def _read(model: "Model", texts: Sequence[str], length: int) -> "Tokens":
    """The first tokens of each document; documents may be longer than what the model can take."""
    import torch

    if model.tokenizer is None:
        raise ValueError(f"{model.name} has no tokenizer, so that it cannot read text; leave data= out")
    start = [model.tokenizer.bos_token_id] if model.bos else []
    rows = [[*start, *model.tokenizer.encode(text, add_special_tokens=False)][:length] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return model.tokens((ids, mask))


def _shuffled(tokens: "Tokens", seed: int) -> "Tokens":
    """The same words of each document in random order; the first, which may be none of the text, stays."""
    import torch

    from interp import Tokens

    generator = torch.Generator().manual_seed(seed)
    ids = tokens.ids.clone()
    for row, mask in zip(ids, tokens.mask.bool()):
        places = mask.nonzero()[1:, 0]
        row[places] = row[places[torch.randperm(len(places), generator=generator).to(places.device)]]
    return Tokens(ids, tokens.mask)
