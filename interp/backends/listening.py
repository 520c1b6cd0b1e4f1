"""Tell a listener what every run of a Hugging Face model writes to its residual stream and reads, by hooks."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from interp.backends.readers import Layer, Projection, Room, Wiring
from interp.recording import first_of, with_first

Expand = Callable[[Tensor, Room | None], Float[Tensor, "row writer pos d_model"]]  # linear


def whole(piece: Float[Tensor, "row pos d_model"], room: Room | None) -> Float[Tensor, "row 1 pos d_model"]:
    """One writer, of what it adds to the stream."""
    return piece[:, None]


class Listener(ABC):
    """What is told of every writer and every reader of a run, in the order of the forward pass."""

    @abstractmethod
    def write(self, first: int, piece: Tensor, expand: Expand) -> None:
        """Some writers, from number `first` on, have added `expand(piece, None)` to the stream."""

    def replaces(self, layer: int, projection: Projection) -> bool:
        """Whether what this projection returns will be replaced, so that it need not be made."""
        return False

    @abstractmethod
    def read_attention(
        self, layer: int, projection: Projection, stream: Float[Tensor, "row pos d_model"], output: Tensor
    ) -> Tensor | None:
        """A projection has read the stream; what is returned, if anything, replaces its output."""

    @abstractmethod
    def read_mlp(self, layer: int, stream: Float[Tensor, "row pos d_model"], entering: Tensor) -> Tensor | None:
        """An MLP is about to be given the normed stream; what is returned, if anything, replaces it."""

    @abstractmethod
    def read_logits(self, stream: Float[Tensor, "row pos d_model"]) -> Tensor | None:
        """The final norm is about to be given the stream; what is returned, if anything, replaces it."""


@contextmanager
def listening(
    wiring: Wiring, listener: Listener, n_pos: int, first: int = 0, blocks_only: bool = False
) -> Iterator[None]:
    """For a while, tell a listener what every run of the model writes and reads.

    Args:
        n_pos: How many positions are run.
        first: The first layer to tell of.
        blocks_only: Do not tell of what enters the first block and the final norm.

    Raises:
        RuntimeError: A module that was never reached, so that what it writes or reads is not known.
    """
    with wiring.model.alone, ExitStack() as stack:
        hooks = _Hooks(wiring, listener, n_pos, stack)
        if not blocks_only:
            hooks.on_input(wiring.layers[0].block, lambda resid: listener.write(0, resid, whole))
            hooks.on_leaving(wiring.layers[-1].block, listener.read_logits)
        for i, layer in enumerate(wiring.layers[first:], start=first):
            hooks.place(i, layer)
        yield
        if hooks.silent:
            names = sorted({type(module).__name__ for module in hooks.silent})
            raise RuntimeError(f"{len(hooks.silent)} modules were never reached in this run: {', '.join(names)}")


@dataclass(frozen=True)
class _Hooks:
    wiring: Wiring
    listener: Listener
    n_pos: int
    stack: ExitStack
    silent: set[nn.Module] = field(default_factory=set)

    def place(self, i: int, layer: Layer) -> None:
        graph, listener = self.wiring.graph, self.listener
        held: dict[nn.Module, Tensor] = {}
        for norm in {norm for norm in (layer.attn_norm, layer.mlp_norm) if norm is not None}:
            self.on_input(norm, lambda stream, norm=norm: held.__setitem__(norm, stream))

        for projection in layer.projections:

            def read(entering: Tensor, output: Tensor, projection: Projection = projection) -> Tensor | None:
                return listener.read_attention(
                    i, projection, held[layer.attn_norm] if layer.attn_norm else entering, output
                )

            spared = lambda projection=projection: listener.replaces(i, projection)
            self.on_output(projection.module, read, spared)
        added = lambda y: y if layer.scale == 1 else y * layer.scale
        if layer.out is None:
            self.on_output(layer.attn_out, lambda _, y: listener.write(graph.before_attention(i), added(y), whole))
        else:
            expand = lambda z, room: layer.heads(z, graph.n_heads, room)
            self.on_input(layer.out, lambda z: listener.write(graph.before_attention(i), z, expand))
        self.on_input(layer.mlp, lambda x: listener.read_mlp(i, held[layer.mlp_norm] if layer.mlp_norm else x, x))
        self.on_output(layer.mlp_out, lambda _, y: listener.write(graph.wrote_mlp(i), added(y), whole))

    def on_input(self, module: nn.Module, tell: Any) -> None:
        """Tell of a module's first argument, and replace it by what comes back, if anything does."""

        def hook(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            self.silent.discard(module)
            name = "" if args else next(iter(kwargs))
            given = args[0] if args else kwargs[name]
            new = tell(self._grid(given))
            if new is None:
                return None
            new = new.reshape(given.shape)
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, name: new})

        self.silent.add(module)
        self.stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def on_leaving(self, block: nn.Module, tell: Any) -> None:
        """Tell of the stream that a block returns, and replace it by what comes back, if anything does."""

        def hook(_: nn.Module, args: tuple, output: Any) -> Any:
            self.silent.discard(block)
            stream = first_of(output)
            new = tell(self._grid(stream))
            return None if new is None else with_first(output, new.reshape(stream.shape))

        self.silent.add(block)
        self.stack.callback(block.register_forward_hook(hook).remove)

    def on_output(self, module: nn.Module, tell: Any, spared: Callable[[], bool] = lambda: False) -> None:
        """Tell of a module's first argument and its output, and replace the output by what comes back.

        Args:
            spared: Whether it surely will be replaced: then the module is given one position to work on.
        """
        given: list[Tensor] = []

        def before(_: nn.Module, args: tuple) -> tuple | None:
            given[:] = args[:1]
            return (args[0][..., :1, :], *args[1:]) if spared() else None

        def after(_: nn.Module, args: tuple, output: Any) -> Any:
            self.silent.discard(module)
            entered, made = given.pop(), first_of(output)
            new = tell(self._grid(entered), made if args[0].shape != entered.shape else self._grid(made))
            if new is None:
                return None
            return with_first(output, new.reshape(*entered.shape[:-1], -1))

        self.silent.add(module)
        self.stack.callback(module.register_forward_pre_hook(before).remove)
        self.stack.callback(module.register_forward_hook(after).remove)

    def _grid(self, tensor: Tensor) -> Tensor:
        """(row, pos, feature), also where a family flattens the first two, or all rows are packed into one."""
        return tensor.reshape(-1, self.n_pos, tensor.shape[-1])
