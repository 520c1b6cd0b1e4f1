"""What goes into a run and what comes out of it: tokens, and a trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.sites import Site


@dataclass(frozen=True)
class Tokens:
    """A batch of prompts, padded on the left, so that position -1 is always the last token.

    Attributes:
        ids: Token ids.
        mask: 1 on tokens, 0 on padding.
        roles: Positions by name, one per prompt, such as `{"S2": tensor([9, 11])}`.
        generated: How many of the last positions hold tokens that were generated, not given.
    """

    ids: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    roles: Mapping[str, Int[Tensor, " batch"]] = field(default_factory=dict)
    generated: int = 0

    def __post_init__(self) -> None:
        if taken := {"prompt", "generated"} & self.roles.keys():
            raise ValueError(
                f"{taken.pop()!r} is the name of all positions that were given or generated; name it otherwise"
            )
        if self.roles:  # counted from the left, for text grows on the right
            n, n_pos = self.ids.shape
            roles = {name: torch.as_tensor(at, device=self.ids.device) for name, at in self.roles.items()}
            roles = {name: torch.where(at < 0, at + n_pos, at).expand(n) for name, at in roles.items()}
            object.__setattr__(self, "roles", roles)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return (
            f"Tokens({self.ids.shape[0]} prompts of {self._lengths} tokens; roles: {', '.join(self.roles) or 'none'})"
        )

    @property
    def _lengths(self) -> str:
        shortest, longest = (int(n) for n in self.mask.sum(-1).aminmax())
        return str(longest) if shortest == longest else f"{shortest} to {longest}"

    @property
    def positions(self) -> Int[Tensor, "batch pos"]:
        """The position of each token in its own prompt, counted without padding."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)

    @property
    def spans(self) -> Mapping[str, slice]:
        """The positions that were given and those that were generated, by the names that edits know them by."""
        given = self.ids.shape[1] - self.generated
        return {"prompt": slice(0, given), "generated": slice(given, None)}

    @property
    def unpadded(self) -> list[tuple[int, ...]]:
        """The token ids of each prompt, without padding."""
        rows = zip(self.ids.tolist(), self.mask.tolist())
        return [tuple(i for i, real in zip(ids, mask) if real) for ids, mask in rows]

    def role(self, name: str) -> Int[Tensor, " batch"]:
        """The position of a role in each prompt."""
        if name not in self.roles:
            known = ", ".join(self.roles) or "none"
            raise ValueError(f"these prompts have no role {name!r}; their roles: {known}")
        return self.roles[name]

    def column(self, at: int | str) -> Int[Tensor, " batch"]:
        """One position of each prompt, an index for all or the name of a role, counted from the left.

        Raises:
            IndexError: A position outside the prompts.
            ValueError: A role that they do not have; a position that is padding.
        """
        n, n_pos = self.ids.shape
        if isinstance(at, str):
            found = self.role(at)
        elif -n_pos <= at < n_pos:
            found = torch.full((n,), int(at) % n_pos, device=self.ids.device)
        else:
            raise IndexError(f"position {at} is out of range: the prompts have {n_pos} positions")
        if at != -1 and bool((missed := self.mask.gather(1, found[:, None])[:, 0] == 0).any()):
            raise ValueError(
                f"position {at!r} is padding in prompts {missed.nonzero().flatten().tolist()[:5]}; count from the end, "
                f"or use a role"
            )
        return found

    def to(self, device: torch.device) -> "Tokens":
        """The same tokens on another device."""
        roles = {name: positions.to(device) for name, positions in self.roles.items()}
        return Tokens(self.ids.to(device), self.mask.to(device), roles, self.generated)

    def rows(self, index: int | Sequence[int] | Tensor | slice) -> "Tokens":
        """Some of the prompts, in the order given, or one."""
        index = [int(index)] if isinstance(index, Integral) else index
        roles = {name: positions[index] for name, positions in self.roles.items()}
        return Tokens(self.ids[index], self.mask[index], roles, self.generated)

    def followed_by(self, others: "Tokens") -> "Tokens":
        """These prompts and then others of the same width, with the roles that all have."""
        if others.ids.shape[1] != self.ids.shape[1]:
            widths = f"{self.ids.shape[1]} and {others.ids.shape[1]}"
            raise ValueError(
                f"prompts of {widths} positions do not stand in one batch; give model.tokens all their texts"
            )
        roles = {name: torch.cat([at, others.roles[name]]) for name, at in self.roles.items() if name in others.roles}
        return Tokens(torch.cat([self.ids, others.ids]), torch.cat([self.mask, others.mask]), roles)

    def append(self, ids: Int[Tensor, " batch"]) -> "Tokens":
        """The prompts with one more token each, which was generated."""
        column = ids.reshape(-1, 1)
        ids, mask = torch.cat([self.ids, column], 1), torch.cat([self.mask, torch.ones_like(column)], 1)
        return Tokens(ids, mask, self.roles, self.generated + 1)


@dataclass(frozen=True)
class Trace:
    """What one run produced; `trace[site]` is the tensor that the rest of the model saw.

    Attributes:
        tokens: What was run.
        logits: For every position, or for those that the run was asked for.
        activations: The sites that were read.
    """

    tokens: Tokens
    logits: Float[Tensor, "batch pos vocab"]
    activations: Mapping[Site, Tensor]

    def __repr__(self) -> str:
        return f"Trace(of {self.tokens!r}; read: {', '.join(map(str, self.activations)) or 'none'})"

    def __getitem__(self, site: Site) -> Tensor:
        if site not in self.activations:
            known = ", ".join(map(str, self.activations)) or "none"
            raise KeyError(f"{site} was not read in this run; sites that were: {known}. Pass it in `read=`")
        return self.activations[site]

    def at(self, site: Site, pos: int | str) -> Float[Tensor, "batch *rest"]:
        """A site's tensor at one position of each prompt: an index for all, or the name of a role.

        Raises:
            ValueError: A site without a position axis; a role that the prompts do not have; padding.
            IndexError: A position outside the prompts.
        """
        if "pos" not in site.axes:
            raise ValueError(f"{site} has no position axis; its axes are {', '.join(site.axes)}")
        value = self[site]
        return value[torch.arange(len(value), device=value.device), self.tokens.column(pos).to(value.device)]


def check_aligned(clean: Tokens, corrupt: Tokens) -> None:
    """Refuse prompts that do not match position by position.

    Raises:
        ValueError: Batches of different shapes; pairs of different lengths.
    """
    if clean.ids.shape != corrupt.ids.shape:
        shapes = f"{tuple(clean.ids.shape)} and {tuple(corrupt.ids.shape)}"
        raise ValueError(f"clean and corrupt must be aligned token by token; their shapes are {shapes}")
    if bool((uneven := (clean.mask != corrupt.mask).any(-1)).any()):
        raise ValueError(
            f"clean and corrupt must be aligned token by token; pairs {uneven.nonzero().flatten().tolist()[:5]} are of "
            f"different lengths"
        )


def visible(scores: Float[Tensor, "*axes"]) -> Bool[Tensor, "*axes"]:
    """Which keys the model lets each query see: those whose score is not masked."""
    return scores > torch.finfo(scores.dtype).min / 2
