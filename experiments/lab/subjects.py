"""The model and the prompts that a config names."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lab.opening import checkpoints as checkpoints
from experiments.lab.opening import open_model as open_model
from experiments.lab.options import OnModel

if TYPE_CHECKING:
    from interp import Model, Tokens
    from interp.tasks import Task


def open_task(cfg: OnModel, model: "Model", name: str) -> "Task":
    """Prompts of a task that fit the model: your own, the embedded language's, or English ones.

    Args:
        name: One of `interp.tasks.EMBEDDED`.

    Raises:
        ValueError: A model that no prompts are shipped for.
    """
    from interp import english, tasks

    if cfg.data:
        return tasks.from_file(model, cfg.data)
    if speaks_embedded(model):
        return tasks.EMBEDDED[name](model, cfg.n, cfg.seed)
    if hasattr(english, name):
        return getattr(english, name)(model, cfg.n, cfg.seed)  # type: ignore[no-any-return]
    raise ValueError(
        f"no prompts of {name!r} are shipped for {model.name}, which does not speak the embedded language; "
        "give your own by data=FILE, a .csv or .jsonl with clean, corrupt, right and wrong"
    )


def open_two(cfg: OnModel, model: "Model", name: str) -> tuple["Task", "Task"]:
    """Pairs to find something on, as `open_task` gives them, and others to test it on; your own are split in two.

    Raises:
        ValueError: Fewer than two pairs to test on that are not among the first; what `open_task` raises.
    """
    task = open_task(cfg, model, name)
    if cfg.data:
        task, others = (task.rows(range(first, len(task), 2)) for first in (0, 1))
    else:
        others = open_task(replace(cfg, seed=cfg.seed + 1), model, name)
    known = {*_pairs(task)}
    fresh = [i for i, pair in enumerate(_pairs(others)) if pair not in known]
    if len(fresh) < 2:
        raise ValueError(
            f"what is found is tested on other pairs of prompts, at least two, of which there are {len(fresh)} beside the "
            f"{len(task)} that it is found on; give more by {'data=' if cfg.data else 'n='}"
        )
    return task, others.rows(fresh)


def embedded_task(cfg: OnModel, model: "Model", name: str, **more: Any) -> "Task":
    """Prompts of the embedded language, for what is asked of its models alone.

    Raises:
        ValueError: A model that does not speak it.
    """
    from interp import tasks

    if cfg.data or not speaks_embedded(model):
        what = "data=" if cfg.data else f"{model.name}"
        raise ValueError(f"{name!r} needs labels that only the embedded language has; {what} has no such prompts")
    return tasks.EMBEDDED[name](model, cfg.n, cfg.seed, **more)


def open_induction(cfg: OnModel, model: "Model", period: int) -> "Task":
    """Random tokens that begin to repeat: words of the embedded language, or any tokens of another model.

    Raises:
        ValueError: Own prompts, or a period for which there are too few tokens.
    """
    from interp import tasks

    if cfg.data:
        raise ValueError("induction draws random tokens and takes no data=; leave it out")
    if speaks_embedded(model):
        return tasks.induction(model, cfg.n, cfg.seed, period)
    return _random_repeats(cfg, model, period)


def open_texts(cfg: OnModel, model: "Model", words: int = 24) -> "Tokens":
    """n texts in a language that the model knows: lines of your own file, the embedded language, or English prompts.

    Args:
        words: The length of texts of the embedded language.

    Raises:
        ValueError: No file, or too few lines in it; a model that no texts are shipped for.
    """
    import random

    from interp import english
    from interp.zoo import corpus

    if cfg.n < 1:
        raise ValueError(f"n={cfg.n} texts cannot be read; give 1 or more")
    if cfg.data:
        return model.tokens(_lines(cfg))
    if speaks_embedded(model):
        rng = random.Random(cfg.seed)
        return model.tokens([" ".join(corpus.draw_text(rng, words)) for _ in range(cfg.n)])
    try:
        made = [getattr(english, name)(model, cfg.n, cfg.seed).texts[0] for name in ("ioi", "facts", "agreement")]
    except ValueError as error:
        raise ValueError(
            f"no texts are shipped for {model.name} ({error}); give a text on each line by data=FILE"
        ) from error
    return model.tokens([made[i % len(made)][i] for i in range(cfg.n)])


def lines_of(name: str) -> list[str]:
    """The texts of a file, one on each line; empty lines are left out.

    Raises:
        ValueError: No file.
    """
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"there is no file {name!r}; give one with a text on each line")
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _lines(cfg: OnModel) -> list[str]:
    lines = lines_of(cfg.data)
    if len(lines) < cfg.n:
        raise ValueError(
            f"{cfg.data} has {len(lines)} texts, one on a line, and n={cfg.n} were asked for; give n={len(lines)}"
        )
    return lines[: cfg.n]


def speaks_embedded(model: "Model") -> bool:
    """Whether every word of the embedded language is a token of the model."""
    from interp.zoo import lexicon

    return model.tokenizer is not None and {*lexicon.CONTENT} <= {*model.tokenizer.get_vocab()}


def _pairs(task: "Task") -> list[tuple[tuple[int, ...], ...]]:
    """The tokens of each pair, without padding."""
    sides = [
        [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(tokens.ids, tokens.mask)]
        for tokens in (task.clean, task.corrupt)
    ]
    return list(zip(*sides))


def _random_repeats(cfg: OnModel, model: "Model", period: int) -> "Task":
    """Random tokens, repeated up to the middle; in the corrupt prompt another token followed there."""
    import torch

    from interp import Tokens
    from interp.tasks import Task

    special = getattr(model.tokenizer, "all_special_ids", [])
    tokens = torch.tensor([i for i in range(model.shape.d_vocab) if i not in special])
    if not 3 <= period < len(tokens):
        raise ValueError(f"period={period} is not from 3 to {len(tokens) - 1}, as the tokens of {model.name} allow")
    generator = torch.Generator().manual_seed(cfg.seed)
    drawn = torch.stack([tokens[torch.randperm(len(tokens), generator=generator)[: period + 1]] for _ in range(cfg.n)])
    block, other = drawn[:, :-1], drawn[:, -1:]
    at = period // 2
    changed = torch.cat([block[:, : at + 1], other, block[:, at + 2 :]], 1)
    start = torch.full((cfg.n, 1), model.tokenizer.bos_token_id) if model.bos else block[:, :0]
    shift = start.shape[1]
    places = {"first": at, "source": at + 1, "END": period + at}
    roles = {name: torch.full((cfg.n,), shift + place, device=model.device) for name, place in places.items()}
    ids = [torch.cat([start, side, block[:, : at + 1]], 1).to(model.device) for side in (block, changed)]
    clean, corrupt = (Tokens(side, torch.ones_like(side), roles) for side in ids)
    right, wrong = block[:, at + 1 : at + 2].to(model.device), other.to(model.device)
    return Task("induction", clean, corrupt, right, wrong, {}, ([], []))
