"""Addition modulo p by Fourier components, in one layer: the algorithm of Zhong et al. 2023 (arXiv:2306.17844), exact.

The frequencies and their amplitudes are set by hand, after what Nanda et al. 2023 (arXiv:2301.05217) found in networks
that had learned to add.
"""

import random
from collections.abc import Hashable, Sequence
from math import gcd

import numpy as np

from interp.zoo.handset.blank import BOS, Blank
from interp.zoo.known import Known, pairs

_GAIN = 10.0


def adder(
    p: int = 59, frequencies: Sequence[int] = (4, 11, 18, 25), n: int = 16, seed: int = 0, backend: str | None = None
) -> Known:
    """What is a + b modulo p? One layer of two heads, an MLP of squared rectifiers; prompts such as "<bos> 7 12 =".

    * `embed` gives a number n the cosine and sine of 2 pi k n / p for each frequency k, and nothing else.
    * L0H0 and L0H1 take half of the frequencies each. They attend everywhere alike, so that "=" is given the mean over
      both numbers, cos(w (a - b) / 2) times the cosine and sine of w (a + b) / 2, where w = 2 pi k / p.
    * mlp0 doubles the angle, from squares: cos(w (a - b) / 2) squared times the cosine and sine of w (a + b).
    * The logit of c is 10 times the sum over k of cos(w (a - b) / 2) squared times cos(w (a + b - c)).

    There are five edges, and all matter under both ablations: `embed` to each head's values, heads to MLP to logits.

    Raises:
        ValueError: An even p, for which amplitudes may vanish; frequencies that are not two or more different whole
            numbers below p / 2, or have a divisor in common with p, so that they do not tell all sums apart.
    """
    different = len(set(frequencies)) == len(frequencies) > 1
    if p % 2 == 0 or not different or not all(k in range(1, (p + 1) // 2) for k in frequencies):
        raise ValueError(
            f"an adder needs an odd p and two or more different frequencies from 1 to (p - 1) / 2; p={p} and "
            f"{tuple(frequencies)} were given"
        )
    if (common := gcd(p, *map(int, frequencies))) > 1:
        raise ValueError(f"{tuple(frequencies)} and p={p} are all multiples of {common}: sums would not be told apart")
    waves = [(wave, k) for k in frequencies for wave in ("cos", "sin")]
    kinds: dict[str, list[Hashable]] = {kind: [(kind, *wave) for wave in waves] for kind in ("number", "mean", "sum")}
    features = [feature for kind in kinds.values() for feature in kind]
    numbers = [str(i) for i in range(p)]
    blank = Blank.of(features, [*numbers, "="], 1, 2, n_neurons=8 * len(frequencies), n_context=8, activation="relu2")
    for i, number in enumerate(numbers):
        angles = [(np.cos if wave == "cos" else np.sin)(2 * np.pi * k * i / p) for wave, k in waves]
        blank.embed(number, dict(zip(kinds["number"], angles)))
        blank.unembed(number, {feature: _GAIN * value for feature, value in zip(kinds["sum"], angles)})
    moved = list(zip(kinds["number"], kinds["mean"]))
    middle = 2 * (len(frequencies) // 2)
    for head, some in enumerate((moved[:middle], moved[middle:])):
        blank.head(0, head, [], [({one: 1.0}, {other: 2.0}) for one, other in some])  # of four positions, two count
    for i, k in enumerate(frequencies):
        _double(blank, 8 * i, k)

    def draw(rng: random.Random) -> tuple[str, str]:
        a, b = rng.randrange(p), rng.randrange(p)
        return f"{BOS} {a} {b} =", str((a + b) % p)

    model, every = blank.model(backend), {("mlp0", "logits")}
    for name in ("L0H0", "L0H1"):
        every |= {("embed", f"{name}.v"), (name, "mlp0")}
    edges = {"corrupt": frozenset(every), "zero": frozenset(every)}
    return Known("adder", model, pairs("adder", model, draw, n, seed), edges)


def _double(blank: Blank, first: int, k: int) -> None:
    """Neurons that make the cosine and sine of twice an angle, from cos^2 - sin^2 and (cos + sin)^2 - (cos - sin)^2."""
    x, y = ("mean", "cos", k), ("mean", "sin", k)
    squares: list[tuple[dict[Hashable, float], dict[Hashable, float]]] = [
        ({x: 1.0}, {("sum", "cos", k): 1.0}),
        ({y: 1.0}, {("sum", "cos", k): -1.0}),
        ({x: 1.0, y: 1.0}, {("sum", "sin", k): 0.5}),
        ({x: 1.0, y: -1.0}, {("sum", "sin", k): -0.5}),
    ]
    for i, (reads, writes) in enumerate(squares):
        for j, sign in enumerate((1.0, -1.0)):  # a square is two squared rectifiers
            signed = {feature: sign * amount for feature, amount in reads.items()}
            blank.neuron(0, first + 2 * i + j, signed, 0.0, writes)
