"""Options of an experiment: a frozen dataclass whose fields say what they mean."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

# What `run` returns: labelled arrays and data sets (xarray), and tensors, by name.
Arrays = Mapping[str, Any]
# What `draw` returns: plotly figures, and pandas data frames for tables, by name.
Shown = Mapping[str, Any]


def option(default: Any, meaning: str, where: bool = False) -> Any:
    """A field of a config.

    Args:
        meaning: One line for `--help` and for the report.
        where: It says where or how to run, not what: results do not depend on it, and neither does their key.
    """
    return field(default=default, metadata={"meaning": meaning, "where": where})


@dataclass(frozen=True)
class OnModel:
    """Options of every experiment that runs a model on prompts."""

    model: str = option("embedded", "embedded, embedded@01000 (a checkpoint), a hub name, name@revision, or a folder")
    backend: Literal["huggingface", "transformer_lens", "nnsight"] = option("huggingface", "the library that runs it")
    dtype: Literal["auto", "float64", "float32", "bfloat16", "float16"] = option("auto", "of the weights")
    data: str = option("", "own prompts: a .csv or .jsonl with clean, corrupt, right and wrong")
    n: int = option(48, "how many pairs of prompts are drawn")
    seed: int = option(0, "of what is drawn at random")
    device: str = option("auto", "cpu, cuda, cuda:1, or spread: over all devices (needs accelerate)", where=True)
    remote: str = option("", "of nnsight: ndif, an address, or local, which rehearses a remote run", where=True)


@dataclass(frozen=True)
class Described:
    """One option as `--help` shows it."""

    name: str
    type: str
    default: Any
    meaning: str
    where: bool


def describe(config: type) -> list[Described]:
    """The options of a config, in their order."""
    hints = get_type_hints(config)
    return [
        Described(f.name, _readable(hints[f.name]), _default(f), f.metadata.get("meaning", ""), _is_where(f))
        for f in dataclasses.fields(config)
    ]


def chosen(given: Sequence[str], known: Collection[str], option: str) -> list[str]:
    """Names from a list, each once.

    Raises:
        ValueError: None; one that is not in the list.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{option}: there is no {name!r}{hint} Choose from {', '.join(known)}")
    if not given:
        raise ValueError(f"{option}: none was given; choose from {', '.join(known)}")
    return list(dict.fromkeys(given))


def configured(config: type, words: Sequence[str]) -> Any:
    """A config from words such as "n=8", "task=ioi" or "shares=[0.1,0.2]".

    Raises:
        ValueError: A word that is no key=value, no option of the config, or not of its type.
    """
    hints = get_type_hints(config)
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} is no key=value")
        chosen([name], hints, "options")
        values[name] = _parsed(text, hints[name], name)
    return config(**values)


def settings(cfg: Any) -> dict[str, Any]:
    """What a run depends on, as plain values in the types that the options declare."""
    return {name: value for name, value in _plain(cfg).items() if name not in wheres(cfg)}


def wheres(cfg: Any) -> dict[str, Any]:
    """Where and how it was run: what is no part of a run's key."""
    values = _plain(cfg)
    return {f.name: values[f.name] for f in dataclasses.fields(cfg) if _is_where(f)}


def from_settings(config: type, values: Mapping[str, Any]) -> Any:
    """A config from stored settings.

    Raises:
        ValueError: Settings that the config no longer has.
    """
    hints = get_type_hints(config)
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(
            f"{config.__module__} has no option {', '.join(unknown)} any more; it has {', '.join(sorted(hints))}"
        )
    return config(**{name: _as_declared(value, hints[name]) for name, value in values.items()})


def _plain(cfg: Any) -> dict[str, Any]:
    hints = get_type_hints(type(cfg))
    values = {f.name: _as_declared(getattr(cfg, f.name), hints[f.name]) for f in dataclasses.fields(cfg)}
    return {name: _listed(value) for name, value in values.items()}


def _listed(value: Any) -> Any:
    """The value as it will be read back from JSON."""
    return [_listed(part) for part in value] if isinstance(value, list | tuple) else value


def _as_declared(value: Any, hint: Any) -> Any:
    """1 as 1.0, a list as a tuple and a number of numpy as one of Python, where the option is declared so.

    Equal configs have equal keys.
    """
    value = value.item() if hasattr(value, "item") else value
    if get_origin(hint) in (Union, UnionType):
        kinds = get_args(hint)
        return _as_declared(value, float) if float in kinds and int not in kinds else value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) in (tuple, list) and isinstance(value, list | tuple):
        inner = get_args(hint)[0]
        return get_origin(hint)(_as_declared(part, inner) for part in value)
    return value


def _parsed(text: str, hint: Any, option: str) -> Any:
    """The value that a word stands for where an option is declared so; ValueError if it stands for none."""
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return {str(part): part for part in parts}[chosen([text], [*map(str, parts)], option)[0]]
    if get_origin(hint) in (Union, UnionType):
        kinds = [part for part in parts if part is not NoneType]
        return None if text == "null" and kinds != [*parts] else _parsed(text, kinds[0], option)
    if get_origin(hint) in (tuple, list):
        words = [word.strip() for word in text.removeprefix("[").removesuffix("]").split(",")]
        return tuple(_parsed(word, parts[0], option) for word in words if word)
    if hint is bool:
        return chosen([text.lower()], ("true", "false"), option) == ["true"]
    try:
        return hint(text)
    except ValueError:
        raise ValueError(f"{option} is of type {_readable(hint)}, not {text!r}") from None


def _readable(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if get_origin(hint) in (Union, UnionType):
        return " | ".join("null" if part is NoneType else _readable(part) for part in get_args(hint))
    if get_origin(hint) in (tuple, list):
        return f"[{_readable(get_args(hint)[0])}, …]"
    return getattr(hint, "__name__", str(hint))


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _is_where(f: dataclasses.Field[Any]) -> bool:
    return bool(f.metadata.get("where"))
