"""Open the model that a config names."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.lab.options import OnModel

if TYPE_CHECKING:
    from interp import Model

_EMBEDDED = "embedded"


def open_model(cfg: OnModel) -> "Model":
    """The model of a config; in one process, each is loaded once."""
    return _open(cfg.model, _state(Path(cfg.model)), cfg.backend, cfg.dtype, cfg.device, cfg.remote)


def _state(folder: Path) -> tuple[Any, ...]:
    """Where a folder is and when its files were written: weights may be trained on, and another folder be entered."""
    if not folder.is_dir():
        return ()
    files = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    return (folder.resolve(), *((name, stat.st_mtime_ns, stat.st_size) for name, stat in files))


@lru_cache(maxsize=2)
def _open(name: str, state: tuple[Any, ...], backend: str, dtype: str, device: str, remote: str) -> "Model":
    import torch

    import interp

    more: dict[str, Any] = {"backend": backend}
    more["dtype"] = None if dtype == "auto" else getattr(torch, dtype)
    source: Any = None if name == _EMBEDDED else name
    if name.startswith(f"{_EMBEDDED}@"):
        source = _checkpoint(name.partition("@")[2])
        more["tokenizer"] = interp.load().tokenizer
    if device == "spread":
        source, more["tokenizer"] = _opened(source, more.pop("dtype"), more.get("tokenizer"), device_map="auto")
    elif _revision(source):
        source, more["tokenizer"] = _opened(source, more.pop("dtype"))
    if device not in ("spread", "auto"):
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


def _revision(source: Any) -> str:
    """What follows the @ in the hub name of a model; nothing, if there is none or it is a folder's name."""
    return "" if source is None or Path(source).exists() else str(source).partition("@")[2]


def _opened(source: Any, dtype: Any, tokenizer: Any = None, **where: Any) -> tuple[Any, Any]:
    """A Hugging Face model, at a revision or with its layers spread over all devices, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from interp.backends import EMBEDDED

    revision = _revision(source) or "main"
    name = str(EMBEDDED if source is None else source).removesuffix(f"@{revision}")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=dtype or "auto", **where)
        words = AutoTokenizer.from_pretrained(name, revision=revision) if tokenizer is None else tokenizer
    except OSError as error:
        said = str(error).splitlines()[0]
        raise ValueError(f"{name!r} could not be had at revision {revision!r}: {said}") from error
    return model.eval(), words
