"""Hashes of what a run depends on, so that equal keys mean equal inputs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_OF_THE_FILE = {"transformers_version", "dtype", "torch_dtype", "architectures"}  # and not of what is computed


def identify(inputs: Sequence[Any]) -> tuple[list[str], list[dict[str, Any]]]:
    """The fingerprint of each input, and a description of those that are models."""
    from interp import Model

    prints, models = [], []
    for thing in inputs:
        if isinstance(thing, Model):
            models.append(_description(thing))
            words = json.dumps(sorted(thing.tokenizer.get_vocab().items())) if thing.tokenizer is not None else ""
            prints.append(fingerprint(["Model", models[-1]["weights"], _settings(thing), words, thing.bos]))
        else:
            prints.append(fingerprint(thing))
    return prints, models


def fingerprint(thing: Any) -> str:
    """Sixteen hexadecimal digits for a task, labelled prompts, tokens, array, tensor, file, or a plain value, list or mapping of these.

    Raises:
        TypeError: Something whose content cannot be told.
    """
    digest = hashlib.sha256()
    _feed(digest, thing)
    return digest.hexdigest()[:16]


def _feed(digest: Any, thing: Any) -> None:
    import numpy as np
    import torch

    from interp import Tokens
    from interp.tasks import Labelled, Task

    kind = type(thing).__name__
    if isinstance(thing, Tokens):
        _feed_all(digest, kind, [thing.ids, thing.mask, dict(thing.roles)])
    elif isinstance(thing, Task):
        _feed_all(digest, kind, [thing.name, thing.clean, thing.corrupt, thing.right, thing.wrong, dict(thing.labels)])
    elif isinstance(thing, Labelled):
        about = [thing.labels, thing.groups, thing.families, thing.answers]
        _feed_all(digest, kind, [thing.name, thing.prompts, *about])
    elif isinstance(thing, torch.Tensor):
        plain = thing.detach().cpu().contiguous()
        _feed_all(digest, "Tensor", [str(plain.dtype), list(plain.shape)])
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
        _feed_all(digest, "array", [str(thing.dtype), list(thing.shape)])
        digest.update(np.ascontiguousarray(thing).tobytes())
    elif isinstance(thing, Path):
        digest.update(hashlib.sha256(thing.read_bytes()).digest())
    elif isinstance(thing, Mapping):
        _feed_all(digest, "mapping", [part for item in sorted(thing.items()) for part in item])
    elif isinstance(thing, Sequence) and not isinstance(thing, str | bytes):
        _feed_all(digest, "sequence", thing)
    elif isinstance(thing, str | int | float | bool | None):
        digest.update(json.dumps([kind, thing]).encode())
    else:
        raise TypeError(
            f"the content of a {kind} cannot be hashed; inputs are models, tasks, tokens, arrays, paths or plain values"
        )


def _feed_all(digest: Any, kind: str, parts: Sequence[Any]) -> None:
    digest.update(f"{kind}:{len(parts)}:".encode())
    for part in parts:
        _feed(digest, part)


def _settings(model: Any) -> str:
    """What the configuration of a model says beside its weights, such as the activation or the base of positions."""
    config: Any = getattr(getattr(model.module, "original_model", model.module), "config", None)
    said = config.to_dict() if hasattr(config, "to_dict") else {}
    told = {name: value for name, value in said.items() if not name.startswith("_") and name not in _OF_THE_FILE}
    return json.dumps(told, sort_keys=True, default=str)


def _description(model: Any) -> dict[str, Any]:
    away = any(tensor.is_meta for tensor in model.module.state_dict().values())
    return {
        "name": model.name,
        "backend": model.backend,
        "weights": f"on a server, as {model.name}" if away else model.fingerprint(),
        "dtype": str(model.dtype),
        "device": str(model.device),
    }
