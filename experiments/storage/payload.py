"""What a run leaves, as files that other tools open: netCDF, safetensors, plotly JSON, CSV."""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

TENSORS = "tensors.safetensors"
LOG = "log.txt"
_SUFFIXES = {"figure": ".plotly.json", "table": ".csv", "array": ".nc", "dataset": ".nc"}


def encode(
    arrays: Mapping[str, Any], shown: Mapping[str, Any], log: str
) -> tuple[dict[str, bytes], dict[str, dict[str, str]]]:
    """The files of a run by name, and what kind of thing each name in `arrays` and in `shown` is.

    Raises:
        TypeError: Something that no file format here can keep, with its name.
    """
    from safetensors.torch import save

    kinds = {
        "arrays": {name: _kind(name, thing, ("array", "dataset", "tensor")) for name, thing in arrays.items()},
        "shown": {name: _kind(name, thing, ("figure", "table")) for name, thing in shown.items()},
    }
    files, tensors = {LOG: log.encode()}, {}
    for name, thing in arrays.items():
        if kinds["arrays"][name] == "tensor":
            tensors[name] = _own(name, thing)
        else:
            files[file_of(name, kinds["arrays"][name])] = _netcdf(name, thing)
    for name, thing in shown.items():
        is_figure = kinds["shown"][name] == "figure"
        text = thing.to_json() if is_figure else _with_index(thing).to_csv(index=False)
        files[file_of(name, kinds["shown"][name])] = str(text).encode()
    if tensors:
        files[TENSORS] = save(tensors)
    return files, kinds


def _with_index(table: Any) -> Any:
    """A table with what names its rows as columns, unless that is their number."""
    import pandas as pd

    return table if isinstance(table.index, pd.RangeIndex) and table.index.name is None else table.reset_index()


def keepable(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Those of some arrays that `encode` can keep."""
    kept = {}
    for name, thing in arrays.items():
        with suppress(Exception):
            encode({name: thing}, {}, "")
            kept[name] = thing
    return kept


def decode(kind: str, data: bytes) -> Any:
    """A DataArray, data set, tensors by name, figure or table from its file."""
    if kind == "tensor":
        from safetensors.torch import load

        return dict(load(data))
    if kind == "figure":
        import plotly.io

        return plotly.io.from_json(data.decode())
    if kind == "table":
        import pandas as pd

        return pd.read_csv(io.BytesIO(data), keep_default_na=False, na_values=[""])  # "NA" is a text
    import xarray as xr

    if kind == "array":
        return xr.load_dataarray(io.BytesIO(data), engine="h5netcdf")
    return xr.load_dataset(io.BytesIO(data), engine="h5netcdf")


def file_of(name: str, kind: str) -> str:
    """The file that holds a result."""
    return TENSORS if kind == "tensor" else f"{name}{_SUFFIXES[kind]}"


def checks_in(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checks that the arrays carry, each with the name of its array; a check that several share, once."""
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        for row in json.loads(getattr(array, "attrs", {}).get("checks", "[]")):
            found.setdefault(json.dumps(row), {"array": name, **row})
    return list(found.values())


def _kind(name: str, thing: Any, kinds: tuple[str, ...]) -> str:
    import pandas as pd
    import plotly.graph_objects as go
    import torch
    import xarray as xr

    types = {
        "array": xr.DataArray,
        "dataset": xr.Dataset,
        "tensor": torch.Tensor,
        "figure": go.Figure,
        "table": pd.DataFrame,
    }
    for kind in kinds:
        if isinstance(thing, types[kind]):
            return kind
    raise TypeError(
        f"{name!r} is of type {type(thing).__name__}, which the store cannot keep there; `run` returns xarray arrays and "
        "tensors, `draw` plotly figures and pandas data frames"
    )


def _own(name: str, tensor: Any) -> Any:
    """The tensor with memory of its own: safetensors refuses two that share theirs, such as a tensor and its slice."""
    import torch

    try:
        return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    except RuntimeError as error:
        raise TypeError(f"{name!r} cannot be kept as a dense tensor: {error}") from error


def _netcdf(name: str, thing: Any) -> bytes:
    try:
        # Into memory first: a full disk then is an error of writing bytes, not one inside the HDF5 library.
        return bytes(thing.to_netcdf(None, engine="h5netcdf"))
    except Exception as error:  # each library between here and the file has errors of its own
        raise TypeError(
            f"{name!r} cannot be kept as netCDF, which knows numbers and text as attributes and plain coordinates: {error}"
        ) from error
