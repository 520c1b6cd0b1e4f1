"""Models and prompts that a config names."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lab.options import OnModel

if TYPE_CHECKING:
    from interp import Model
    from interp.tasks import Task

_EMBEDDED = "embedded"


def open_model(cfg: OnModel) -> "Model":
    """The model of a config; in one process, each is loaded once."""
    return _open(cfg.model, cfg.backend, cfg.dtype, cfg.device, cfg.remote)


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


@lru_cache(maxsize=2)
def _open(name: str, backend: str, dtype: str, device: str, remote: str) -> "Model":
    import torch

    import interp

    more: dict[str, Any] = {"backend": backend}
    more["dtype"] = None if dtype == "auto" else getattr(torch, dtype)
    source: Any = None if name == _EMBEDDED else name
    if name.startswith(f"{_EMBEDDED}@"):
        source = _checkpoint(name.partition("@")[2])
        more["tokenizer"] = interp.load().tokenizer
    if device == "spread":
        source, more["tokenizer"] = _spread(source, more.pop("dtype"), more.get("tokenizer"))
    elif device != "auto":
        more["device"] = device
    if remote:
        more["remote"] = True if remote == "ndif" else remote
    return interp.load(source, **more)


def checkpoints() -> list[str]:
    """The training steps of which the embedded model's weights are kept."""
    return sorted(path.name for path in _checkpoint_folder().iterdir() if path.is_dir())


def _checkpoint(step: str) -> str:
    if step not in checkpoints():
        raise ValueError(f"there is no checkpoint {step!r} of the embedded model; there are {', '.join(checkpoints())}")
    return str(_checkpoint_folder() / step)


def _checkpoint_folder() -> Path:
    from interp import zoo

    return Path(str(zoo.__file__)).parent / "checkpoints"


def _spread(source: Any, dtype: Any, tokenizer: Any) -> tuple[Any, Any]:
    """A Hugging Face model whose layers are spread over all devices, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp.backends import EMBEDDED

    name = str(EMBEDDED if source is None else source)
    model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype or "auto", device_map="auto")
    return model.eval(), AutoTokenizer.from_pretrained(name) if tokenizer is None else tokenizer
