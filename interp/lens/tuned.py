"""A tuned lens: an affine map for each layer into the stream that leaves the last one.

Belrose et al. 2023 (arXiv:2303.08112); maps in closed form after Din et al. 2023 (arXiv:2303.09435).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.arguments import check_folder
from interp.components import last_stream
from interp.model import Model
from interp.precision import widened
from interp.sites import Site

_FORMAT = "interp tuned lens 1"


@dataclass(frozen=True)
class Translator:
    """The affine map of one site: a stream h becomes h + h @ weight + bias."""

    weight: Float[Tensor, "d_model d_model"]
    bias: Float[Tensor, " d_model"]

    def __repr__(self) -> str:
        return f"Translator(d_model {len(self.bias)})"

    def __call__(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The stream as the last layer would leave it, at least in single precision."""
        wide = widened(resid)
        return wide + wide @ self.weight.to(wide) + self.bias.to(wide)


@dataclass(frozen=True)
class TunedLens:
    """Translators of some sites of one model, `lens[site](resid)`; what leaves the last block needs none.

    Attributes:
        translators: By site.
        fingerprint: Of the model whose streams they translate, `Model.fingerprint`.
        made: How, as plain values.
    """

    translators: Mapping[Site, Translator]
    fingerprint: str
    made: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"TunedLens({', '.join(map(str, self.translators))})"

    def __getitem__(self, site: Site) -> Translator:
        if site not in self.translators:
            known = ", ".join(map(str, self.translators))
            raise KeyError(f"this tuned lens has no translator for {site}; it has {known}; tune one with sites=")
        return self.translators[site]

    def save(self, path: str | Path) -> None:
        """Write the translators as safetensors, with the fingerprint and how they were made in its metadata.

        Raises:
            FileNotFoundError: A folder that is not there.
        """
        from safetensors.torch import save_file

        check_folder(path)
        tensors: dict[str, Tensor] = {}
        for site, translator in self.translators.items():
            tensors |= {f"{site}.weight": translator.weight, f"{site}.bias": translator.bias}
        held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        about = {"format": _FORMAT, "fingerprint": self.fingerprint, "made": json.dumps(dict(self.made))}
        save_file(held, str(path), about)


def load(path: str | Path, model: Model, transfer: bool = False) -> TunedLens:
    """A tuned lens from a file, for the model whose weights it was tuned on.

    Args:
        transfer: Accept another model of the same width, such as one fine-tuned from it.

    Raises:
        ValueError: Another file; translators of another model, or of another width.
        FileNotFoundError: No file.
    """
    about, tensors = _read(Path(path))
    tensors = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    names = sorted({name.rpartition(".")[0] for name in tensors})
    translators = {_site(name): Translator(tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in names}
    found = TunedLens(translators, about["fingerprint"], json.loads(about["made"]))
    _check_width(found, model)
    if not transfer:
        check_lens(found, model)
        return found
    return TunedLens(translators, model.fingerprint(), {**found.made, "transferred from": found.fingerprint})


def identity(model: Model, sites: Sequence[Site] | None = None) -> TunedLens:
    """Translators that change nothing: the logit lens."""
    width, dtype = model.shape.d_model, torch.promote_types(model.dtype, torch.float32)
    zero = torch.zeros(width, width, device=model.device, dtype=dtype)
    none = Translator(zero, zero[0])
    return TunedLens({site: none for site in tuned_sites(model, sites)}, model.fingerprint(), {"method": "identity"})


def tuned_sites(model: Model, sites: Sequence[Site] | None) -> list[Site]:
    """The sites that get a translator: by default the stream that leaves each block but the last.

    Raises:
        ValueError: A site that is not of the residual stream's width; none at all.
    """
    chosen = model.sites("resid_post")[:-1] if sites is None else [site for site in sites if site != last_stream(model)]
    if not chosen:
        raise ValueError("a tuned lens needs a stream before the last; give sites, such as model.sites('resid_pre')")
    if wrong := [site for site in chosen if site.axes[-1] != "d_model"]:
        raise ValueError(f"a tuned lens translates the residual stream; {wrong[0]} has axes {', '.join(wrong[0].axes)}")
    return sorted(chosen, key=lambda site: site.order)


def check_lens(lens: Any, model: Model) -> None:
    """Refuse a lens of another model; all weights are hashed each time, for they may have changed in place.

    Args:
        lens: A tuned lens, a future lens, or None: the logit lens, which is every model's own.

    Raises:
        TypeError: What is no lens.
        ValueError: One of other weights.
    """
    if lens is None:
        return
    if not hasattr(lens, "fingerprint"):
        raise TypeError(f"a lens is what lens.tune or lens.load gives, not {lens!r}; None is the logit lens")
    own = model.fingerprint()
    if lens.fingerprint != own:
        raise ValueError(
            f"this lens belongs to a model with weights {lens.fingerprint}, but those of {model.name} are "
            f"{own}; tune one on this model, or load it with transfer=True if its streams mean the same"
        )


def _check_width(lens: TunedLens, model: Model) -> None:
    for site, translator in lens.translators.items():
        model.check([site])
        if len(translator.bias) != model.shape.d_model:
            raise ValueError(
                f"this tuned lens is {len(translator.bias)} wide, but {model.name} has d_model {model.shape.d_model}; "
                "load it with the model that it was tuned on"
            )


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What a file says of itself, and its tensors."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; give one written by TunedLens.save")
    try:
        with safe_open(str(path), "pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        about, tensors = {}, {}
    if about.get("format") != _FORMAT:
        raise ValueError(f"{path.name} is no tuned lens; give a file written by TunedLens.save")
    return about, tensors


def _site(name: str) -> Site:
    kind, _, layer = name.partition(".")
    return Site(kind, int(layer)) if layer else Site(kind)
