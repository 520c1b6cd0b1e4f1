"""Which tokens of a sweep's rows have to be run: those that an edit can have changed, packed into one sequence.

In a causal model an edit at one position leaves every earlier position as it was in the run of the unedited prompt.
Those positions are not run again; attention reads their keys and values from that run.
"""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Keys:
    """What attention of one block worked with in the run of the unedited prompts."""

    keys: Float[Tensor, "batch kv_head pos d_head"]
    values: Float[Tensor, "batch kv_head pos d_head"]
    mask: Shaped[Tensor, "#batch 1 pos pos"] | None

    @cached_property
    def added(self) -> Float[Tensor, "#batch 1 pos pos"]:
        """The mask as what is added to the scores; none stands for a causal one."""
        return _added(self.mask, self.keys.shape[2], self.keys.dtype, self.keys.device)


def _added(
    mask: Shaped[Tensor, "#batch 1 pos pos"] | None, n_pos: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "#batch 1 pos pos"]:
    if mask is None:
        mask = torch.ones(1, 1, n_pos, n_pos, dtype=torch.bool, device=device).tril()
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


@dataclass(frozen=True)
class Joined:
    """Prompts, and then a variant of each from one position on, packed into one sequence.

    Attributes:
        n, n_pos: Numbers of prompts and of positions.
        start: The first position at which a variant may differ from its prompt.
        device: Where the tokens are.
    """

    n: int
    n_pos: int
    start: int
    device: torch.device
    _masks: dict[int, tuple[Tensor | None, Tensor]] = field(default_factory=dict, repr=False)  # with what they are of

    @property
    def n_first(self) -> int:
        """How many tokens the prompts have."""
        return self.n * self.n_pos

    def parts(self, packed: Float[Tensor, "1 token *rest"]) -> tuple[Tensor, Tensor]:
        """The prompts, to which no gradient goes, and the variants from `start` on: (row, pos, ...) each."""
        first, then = packed[0, : self.n_first].detach(), packed[0, self.n_first :]
        return first.unflatten(0, (self.n, -1)), then.unflatten(0, (self.n, -1))

    def spread(self, packed: Float[Tensor, "1 token *rest"]) -> Float[Tensor, "row pos *rest"]:
        """Every token at its place: the prompts, and then the variants with all that they share."""
        first, then = self.parts(packed)
        return torch.cat([first, torch.cat([first[:, : self.start], then], dim=1)])

    def pack(self, grid: Float[Tensor, "row pos *rest"]) -> Float[Tensor, "1 token *rest"]:
        """The inverse of `spread`."""
        return torch.cat([grid[: self.n].flatten(0, 1), grid[self.n :, self.start :].flatten(0, 1)])[None]

    def mask(
        self, mask: Shaped[Tensor, "#row 1 pos pos"] | None, dtype: torch.dtype
    ) -> Float[Tensor, "1 1 token token"]:
        """What is added to packed tokens' scores: a variant's see their own and what its prompt shares with it."""
        if id(mask) not in self._masks:
            added = _added(mask, self.n_pos, dtype, self.device)
            row, pos = self.places.row, self.places.pos
            at = (row if len(added) > 1 else torch.zeros_like(row))[:, None], 0, pos[:, None], pos
            shared = (row[:, None] == row + self.n) & (pos < self.start)
            found = added[at].masked_fill(~(shared | (row[:, None] == row)), torch.finfo(dtype).min)
            self._masks[id(mask)] = mask, found[None, None]
        return self._masks[id(mask)][1]

    @cached_property
    def places(self) -> "Packing":
        """Where each token belongs."""
        rows, positions = (torch.arange(n, device=self.device) for n in (2 * self.n, self.n_pos))
        places = Packing()
        places.turn_to(rows, (rows[:, None] < self.n) | (positions >= self.start))
        return places


@dataclass
class Packing:
    """The tokens to be run in the block at hand; empty while the keys of the unedited prompts are recorded.

    Attributes:
        recorded: The keys of each attention module.
        prompts: Of which prompt each row is a variant.
        row, pos: Where the tokens to be run belong, in the order in which they are packed.
        shape: Numbers of rows and of positions.
        start: If every row is run from the same position on, that position.
        joined: If prompts and their variants are run in one sequence, how; then nothing else is needed.
    """

    recorded: dict[nn.Module, Keys] = field(default_factory=dict)
    prompts: Int[Tensor, " row"] | None = None
    row: Int[Tensor, " token"] = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    pos: Int[Tensor, " token"] = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    shape: tuple[int, int] = (0, 0)
    start: int | None = None
    joined: Joined | None = None

    def turn_to(self, prompts: Int[Tensor, " row"], live: Bool[Tensor, "row pos"]) -> None:
        """Take up the next block, in which these tokens are run."""
        self.prompts, self.shape, self.start = prompts, (live.shape[0], live.shape[1]), None
        self.row, self.pos = live.nonzero(as_tuple=True)

    def turn_to_end(self, prompts: Int[Tensor, " row"], start: int, n_pos: int) -> None:
        """Take up blocks in which all tokens from one position on are run, padding included."""
        live = torch.arange(n_pos, device=prompts.device) >= start
        self.turn_to(prompts, live.expand(len(prompts), -1))
        self.start = start

    def take(self, grid: Float[Tensor, "row pos *rest"]) -> Float[Tensor, "1 token *rest"]:
        """The tokens to be run, out of all."""
        return grid[self.row, self.pos][None]

    def grid(self, packed: Float[Tensor, "1 token *rest"], rest: Tensor | None = None) -> Tensor:
        """The tokens that were run, at their places: (row, pos, ...); elsewhere the rest, or zero."""
        if rest is None:
            rest = packed.new_zeros((*self.shape, *packed.shape[2:]))
        if torch.is_grad_enabled():
            return rest.index_put((self.row, self.pos), packed[0])
        rest[self.row, self.pos] = packed[0]
        return rest

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Packed queries, keys and values (1, head, token, d) as those of rows, with the mask of these.

        Keys and values are those of all positions, queries too, unless every row is run from the same position on.
        """
        recorded = self.recorded[module]
        mask = recorded.added
        mask = mask[self.prompts] if len(mask) > 1 else mask
        if self.start is not None:
            query, key, value = (x.transpose(1, 2).unflatten(1, (self.shape[0], -1))[0] for x in (query, key, value))
            old = (x[self.prompts, :, : self.start] for x in (recorded.keys, recorded.values))
            key, value = (torch.cat([kept, new.transpose(1, 2)], dim=2) for new, kept in zip((key, value), old))
            return query.transpose(1, 2), key, value, mask[..., self.start :, :]
        query = self.grid(query.transpose(1, 2)).transpose(1, 2)
        kept = (x[self.prompts].transpose(1, 2) for x in (recorded.keys, recorded.values))
        key, value = (self.grid(new.transpose(1, 2), old).transpose(1, 2) for new, old in zip((key, value), kept))
        return query, key, value, mask

    def attended(self, z: Float[Tensor, "row query head d_head"]) -> Float[Tensor, "1 token head d_head"]:
        """What attention returns for the queries of `attend`, packed again."""
        return self.take(z) if self.start is None else z.flatten(0, 1)[None]
