"""Backends: the same `Model`, over different libraries."""

import copy
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.arguments import check_switch
from interp.model import Model
from interp.quick import prepack_matrices

BACKENDS = ("huggingface", "transformer_lens", "nnsight")
EMBEDDED = Path(__file__).parents[1] / "zoo" / "weights"


def load(
    source: Any = None,
    *,
    backend: str | None = None,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    bos: bool | None = None,
    prepack: bool = False,
    remote: bool | str = False,
) -> Model:
    """A model ready to be run, read and edited; what was given is never changed.

    Args:
        source: Nothing (the embedded model), a hub name, a local folder, a Hugging Face model, a TransformerLens
            bridge, or an nnsight model.
        backend: "huggingface" (the default), "transformer_lens" or "nnsight"; a bridge or an nnsight model has its own.
        tokenizer: For a model object that does not bring one: itself, its name or its folder; without any, the model
            works on token ids.
        device: Where to run; by default where the model is.
        dtype: The floating-point type; by default that of the weights.
        bos: Whether texts begin with the beginning-of-sequence token; by default as the tokenizer does it.
        prepack: Keep large matrices in the order of the fast product as well, which takes up to a quarter off runs
            of few tokens for up to twice the weights' memory; on processors where oneDNN is faster (AMD, AVX-512), in
            single precision. It is the module's until it is loaded without. Changes of the weights by operations of
            torch and by optimizers are followed; a few elements written through `.data` or an array of numpy are not.
        remote: For nnsight alone: True runs a model on NDIF, by its hub name; an address on another server; "local"
            rehearses a remote run here. Not tried on a real server; see `interp/backends/nnsight.py`.

    Raises:
        TypeError: What is no causal language model of transformers, a bridge or an nnsight model; a switch that is
            neither True nor False.
        ValueError: An unknown backend; a device that is not there; a bridge or an nnsight model with another backend;
            `remote` without nnsight; a model whose files are broken or lack weights, or whose weights are on the meta
            device.
        FileNotFoundError: A folder or a model that is not there.
    """
    check_switch("prepack", prepack)
    if bos is not None:
        check_switch("bos", bos)
    if device is not None:
        _check_device(device)
    own = _backend_of(source)
    backend = backend or own or "huggingface"
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend {backend!r}; choose from {', '.join(BACKENDS)}")
    if own and backend != own:
        raise ValueError(f"a model that belongs to {own} cannot be run by {backend}; leave backend= out")
    if remote is not False and backend != "nnsight":
        raise ValueError(f"remote={remote!r} is for backend='nnsight'; {backend} runs models on this machine only")
    if prepack and remote:
        raise ValueError("prepack=True is for models that run on this machine; leave it or remote= out")
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"dtype is one of torch, such as torch.float64 or 'float64', not {dtype!r}")
    if isinstance(tokenizer, str | Path):
        tokenizer = _tokenizer_at(str(tokenizer))
    module, found, name = _open_remote(source, remote) or _open(source, device, dtype)
    tokenizer = found if tokenizer is None else tokenizer
    bos = _adds_bos(tokenizer) if bos is None else bos
    if bos and getattr(tokenizer, "bos_token_id", None) is None:
        raise ValueError(f"bos=True, but the tokenizer of {name} has no beginning-of-sequence token; pass bos=False")
    options = {"remote": remote} if remote else {}
    model = import_module(f"interp.backends.{backend}").wrap(module, tokenizer, name, bos, **options)
    prepack_matrices(model.module, prepack)
    return model


def _check_device(device: str | torch.device) -> None:
    """Refuse a device that nothing can be computed on."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch has several ways to say so
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ValueError(f"device={device} cannot be computed on here; there is {', '.join(here)}") from error


def _backend_of(source: Any) -> str | None:
    """The library that a model object belongs to, found without importing any."""
    modules = {cls.__module__.partition(".")[0] for cls in type(source).__mro__}
    return next((name for name in ("transformer_lens", "nnsight") if name in modules), None)


def _open_remote(source: Any, remote: bool | str) -> tuple[Any, Any, str] | None:
    """A hub name that a server is to run, without its weights; None for whatever is opened here."""
    if not remote or remote == "local" or not isinstance(source, str) or Path(source).expanduser().is_dir():
        return None
    envoy = import_module("interp.backends.nnsight").by_name(source)
    return envoy, envoy.tokenizer, source


def _open(source: Any, device: Any, dtype: torch.dtype | None) -> tuple[Any, Any, str]:
    """The model object, its tokenizer if it has one, and its name."""
    source = getattr(source, "_orig_mod", source)  # of torch.compile: a compiled graph has no place for hooks
    if source is None:
        source = EMBEDDED
    if isinstance(source, str | Path):
        module, tokenizer = _from_pretrained(str(source), dtype)
        name = "embedded" if source == EMBEDDED else str(source)
        return module if device is None else module.to(device), tokenizer, name
    if not isinstance(source, nn.Module) and _backend_of(source) is None:
        raise TypeError(
            f"load takes a name, a folder, a model or nothing, not {type(source).__name__}; see help(interp.load)"
        )
    if _backend_of(source) is None:
        _check_causal(source)
    if _backend_of(source) is None and any(parameter.is_meta for parameter in source.parameters()):
        raise ValueError(f"{type(source).__name__} is on the meta device, so it has no weights; load them first")
    if device is not None or dtype is not None:
        source = copy.deepcopy(source).to(device=device, dtype=dtype)
    return source, getattr(source, "tokenizer", None), getattr(source, "name_or_path", "") or type(source).__name__


def _check_causal(module: nn.Module) -> None:
    """Refuse what is no causal language model of Hugging Face, and one that was taken apart."""
    config: Any = getattr(module, "config", None)
    head: Any = getattr(module, "get_output_embeddings", None)
    if config is None or head is None or head() is None or getattr(config, "is_encoder_decoder", False):
        raise TypeError(
            f"{type(module).__name__} is not a causal language model of transformers with its unembedding; give the "
            f"whole model, such as GPT2LMHeadModel or what AutoModelForCausalLM makes, or a TransformerLens bridge"
        )
    if module._compiled_call_impl is not None:
        raise ValueError(
            f"this {type(module).__name__} is compiled in place, and what is compiled has no place for hooks; load it "
            f"before .compile()"
        )
    if any(_backend_of(part) == "transformer_lens" for part in module.modules()):
        raise ValueError(
            f"the parts of this {type(module).__name__} belong to a TransformerLens bridge; load the bridge itself"
        )


def _tokenizer_at(name: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(Path(name).expanduser()))


def _from_pretrained(name: str, dtype: torch.dtype | None) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    is_path = os.path.sep in name and (name.startswith((".", os.path.sep, "~")) or name.count(os.path.sep) > 1)
    if is_path and not Path(name).expanduser().is_dir():
        raise FileNotFoundError(f"there is no folder {name!r}; give a folder written by save_pretrained, or a hub name")
    name = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype="auto" if dtype is None else dtype, output_loading_info=True
        )
    except OSError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a local folder with a model nor a model that the hub could give: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except Exception as error:  # a broken file raises the error of whichever library reads it
        raise ValueError(
            f"{name!r} cannot be loaded as a causal language model: {str(error).splitlines()[0]}"
        ) from error
    finally:
        if bar:
            logging.enable_progress_bar()
    module, info = loaded
    if absent := sorted(info["missing_keys"]):
        raise ValueError(
            f"{name!r} lacks {len(absent)} weights of its model, such as {absent[0]}; they would be random"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError):
        tokenizer = None  # a model without one works on ids
    return module.eval(), None if _knows_no_words(tokenizer) else tokenizer


def _knows_no_words(tokenizer: Any) -> bool:
    """Whether all tokens are special ones: what transformers makes up for a folder that holds no tokenizer."""
    return tokenizer is not None and {*range(len(tokenizer))} <= {
        *tokenizer.all_special_ids,
        *tokenizer.added_tokens_decoder,
    }


def _adds_bos(tokenizer: Any) -> bool:
    """Whether a tokenizer itself begins a text with its beginning-of-sequence token."""
    first = getattr(tokenizer, "bos_token_id", None)
    return first is not None and tokenizer("a").input_ids[:1] == [first]
