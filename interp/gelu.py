"""The tanh approximation of GELU in one step, for models that spell it out in eight."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

_SPELLED_OUT = ("NewGELUActivation", "FastGELUActivation")  # transformers' `gelu_new` and `gelu_fast`


def spelled_out(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those modules, and those inside them, that spell it out."""
    inside = (part for module in modules for part in module.modules())
    return [part for part in inside if type(part).__name__ in _SPELLED_OUT and "transformers" in type(part).__module__]


@contextmanager
def quick_gelu(modules: Sequence[nn.Module]) -> Iterator[None]:
    """For a while, let modules that spell it out give what torch makes in one step.

    The module is given nothing to work on, and what it returns is replaced before any other hook sees it. In single and
    double precision the values are the same up to rounding; in half precision the module's own rounding is kept.
    """
    with ExitStack() as stack:
        for module in modules:
            given: list[Tensor | None] = []

            def before(_: nn.Module, args: tuple, given: list[Tensor | None] = given) -> tuple | None:
                quick = len(args) == 1 and args[0].dtype.itemsize >= 4
                given.append(args[0] if quick else None)
                return (args[0][..., :0],) if quick else None

            def after(_: nn.Module, args: tuple, output: Tensor, given: list[Tensor | None] = given) -> Tensor:
                x = given.pop()
                return output if x is None else nn.functional.gelu(x, approximate="tanh")

            stack.callback(module.register_forward_pre_hook(before).remove)
            stack.callback(module.register_forward_hook(after, prepend=True).remove)
        yield
