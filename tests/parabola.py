"""An experiment without a model, for tests of what surrounds experiments: how high is a parabola?"""

import os
import time
from dataclasses import dataclass
from typing import Literal

from experiments.lab import option

QUESTION = "How high is a parabola?"
VERSION = 1


@dataclass(frozen=True)
class Config:
    x: float = option(0.0, "where")
    seed: int = option(0, "of the noise")
    sign: Literal["up", "down"] = option("down", "which way it opens")
    powers: tuple[int, ...] = option((1, 2), "which powers are kept")
    wait: float = option(0.0, "seconds to wait first", where=True)
    log: str = option("", "a file that gets a line for each run", where=True)


def square(x):
    """A number, and the process that squared it: work for engines."""
    return x * x, os.getpid()


def inputs(cfg):
    return ([3, "a plain value"],)


def run(cfg):
    import logging
    import warnings

    import torch
    import xarray as xr

    time.sleep(cfg.wait)
    if cfg.log:
        with open(cfg.log, "a") as file:
            file.write(f"{os.getpid()} {cfg.x} {cfg.seed}\n")
    if cfg.x < 0:
        raise ValueError("a parabola of negative x is not measured; give x from 0 on")
    logging.getLogger("experiments.parabola").info("measuring at %s", cfg.x)
    if cfg.x > 1000:
        warnings.warn("x is large", stacklevel=1)
    sign = 1 if cfg.sign == "up" else -1
    noise = torch.rand(4, generator=torch.Generator().manual_seed(cfg.seed))
    checks = (
        '[{"name": "low", "value": 1.0, "threshold": 2.0, "status": "warn", "why": "a </script> & <b>", "source": ""}]'
    )
    height = xr.DataArray(
        [sign * (cfg.x - 1) ** 2 + 0 * float(v) for v in noise], dims="prompt", attrs={"checks": checks}
    )
    powers = xr.DataArray([cfg.x**p for p in cfg.powers], dims="power", coords={"power": list(cfg.powers)})
    return {"height": height, "table": xr.Dataset({"powers": powers, "odd": powers > 1}), "noise": noise.bfloat16()}


def numbers(arrays):
    return {"height": float(arrays["height"].mean())}


def answer(arrays):
    return f"It is {numbers(arrays)['height']:.3f} high."


def draw(arrays):
    import pandas as pd
    import plotly.graph_objects as go

    return {
        "height": go.Figure(go.Scatter(y=arrays["height"].values), layout_title_text="Height </script>"),
        "rows": pd.DataFrame({"name": ["a <b>", "c"], "value": [1.5, float("nan")]}),
    }
