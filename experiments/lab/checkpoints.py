"""The models that one training left on its way, and when it left them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.lab.options import OnModel
from experiments.lab.subjects import checkpoints, open_model

if TYPE_CHECKING:
    from interp import Model


def training(model: str, earlier: Sequence[str]) -> dict[str, float]:
    """The step of each model of a training, oldest first: those given and then `model`; the embedded model has its own.

    A step is the number that a name ends in. Where the names have no rising numbers, it is their order, from 1 on.

    Raises:
        ValueError: No earlier models are known.
    """
    if model == "embedded" and not earlier:
        return {f"embedded@{step}": float(step) for step in checkpoints()} | {model: _last_step()}
    if not earlier:
        raise ValueError(
            f"no checkpoints of the training of {model} are known; name them, oldest first, by "
            "checkpoints=[FOLDER,NAME@REVISION,...], or leave model= out for the embedded model"
        )
    names = [*earlier, model]
    found = [re.search(r"(\d+)\W*$", name) for name in names]
    steps = [float(match[1]) for match in found if match]
    rising = len(steps) == len(names) and all(a < b for a, b in pairwise(steps))
    return dict(zip(names, steps if rising else map(float, range(1, len(names) + 1))))


def opened(cfg: OnModel, names: Sequence[str], last: "Model") -> Iterator["Model"]:
    """Each model in turn, with the tokenizer of the last if it brings none.

    Raises:
        ValueError: A model of another shape.
    """
    import interp

    for name in names:
        model = open_model(replace(cfg, model=name))
        if model.shape != last.shape:
            raise ValueError(
                f"checkpoints of one training have one shape, but {name} has {model.shape}, the last {last.shape}"
            )
        if model.tokenizer is None:
            model = interp.load(model.module, tokenizer=last.tokenizer, bos=last.bos)
        yield model


def _last_step() -> float:
    """When the training of the embedded model ended."""
    from interp.backends import EMBEDDED

    return float(json.loads(Path(EMBEDDED / "training_log.json").read_text())[-1]["step"])
