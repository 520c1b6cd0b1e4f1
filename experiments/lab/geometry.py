"""How activations and directions lie in their space: dimensions, spectra, kurtosis, interference."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from interp import Model, Site, Tokens

_TRIED = 512  # tokens that rotations are tried on


class Reader:
    """Activations of a model by token, about their mean, without the first token of each text."""

    def __init__(self, model: "Model", tokens: "Tokens", length: int) -> None:
        self.model, self.tokens = model, tokens
        self.chosen = tokens.mask.bool() & (tokens.positions > 0) & (tokens.positions < length)
        self.text = self.chosen.nonzero()[:, 0]

    def __call__(self, site: "Site") -> "Tensor":
        from interp.precision import widened

        x = widened(self.model.run(self.tokens, site, last_only=True)[site][self.chosen])
        return x - x.mean(0)

    def by_text(self, values: "Tensor") -> "Tensor":
        """The mean over the tokens of each text."""
        total = values.new_zeros(len(self.tokens)).index_add(0, self.text, values)
        return total / values.new_zeros(len(self.tokens)).index_add(0, self.text, values * 0 + 1)


def dimensions(x: "Tensor", text: "Tensor", seed: int) -> "Tensor":
    """The participation ratio (trace C)^2 / trace C^2, its interval over texts, and that of independent coordinates.

    Pairs of tokens of one text are left out of trace C^2: a token beside itself, or beside one that is alike, would make
    the stream look narrower, the more so the fewer texts there are.
    """
    import numpy as np
    import torch

    n = int(text.max()) + 1
    inside = torch.nn.functional.one_hot(text, n).to(x)
    pairs = inside.T @ (x @ x.T) ** 2 @ inside
    pairs.fill_diagonal_(0)
    size = inside.sum(0)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=2000)
    drawn = torch.cat([torch.ones(1, n), torch.tensor(weights)]).to(x)
    variance = drawn @ (inside.T @ (x * x).sum(-1)) / (drawn @ size)
    counts = (drawn @ size) ** 2 - drawn**2 @ size**2
    found = variance**2 * counts / ((drawn @ pairs) * drawn).sum(-1)
    own = x.var(0, correction=0)
    bounds = found[1:].quantile(found.new_tensor([0.025, 0.975]))
    return torch.stack([found[0], *bounds, own.sum() ** 2 / (own * own).sum()])


def spectrum(x: "Tensor") -> "Tensor":
    """The share of variance along each principal component, the largest first."""
    import torch

    found = torch.linalg.eigvalsh(x.T @ x).flip(0).clamp(min=0)
    return found / found.sum()


def kurtosis(x: "Tensor") -> "Tensor":
    """The kurtosis of each token's coordinates; 3 for a Gaussian."""
    about = x - x.mean(-1, keepdim=True)
    return (about**4).mean(-1) / (about**2).mean(-1) ** 2


def rotated(read: Reader, kind: str, draws: int, generator: "Generator") -> "Tensor":
    """The mean kurtosis in each of many random bases, by layer; the same basis for all layers."""
    import torch

    some = [read(site)[:: max(1, len(read.text) // _TRIED)] for site in read.model.sites(kind)]
    found = []
    for _ in range(draws):
        basis = torch.linalg.qr(torch.randn(some[0].shape[1], some[0].shape[1], generator=generator).to(some[0]))[0]
        found.append(torch.stack([kurtosis(x @ basis).mean() for x in some]))
    return torch.stack(found, dim=1)


def own(x: "Tensor") -> "Tensor":
    """The dimensions of each feature: its length squared over the sum of what it shares with all, itself among them."""
    shared = (x / x.norm(dim=-1, keepdim=True)) @ x.T
    return (x * x).sum(-1) / (shared * shared).sum(-1)
