"""Two directions of which both can be decoded and only one is used."""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from interp.sites import Site
from interp.tasks import from_rows
from interp.zoo.handset.blank import BOS, Blank, Features
from interp.zoo.known import Known

_HEAT, _RAIN = ("hot", "cold"), ("wet", "dry")
_SIZE, _SHARP = 16, 20.0


def planted(seed: int = 0, strength: float = 1.0, idle_strength: float = 2.0, backend: str | None = None) -> Known:
    """Was it hot or cold? One layer of two heads; prompts such as "<bos> cold-wet and :".

    Words say plus or minus `strength` along the direction "used" (hot, cold), and plus or minus `idle_strength` along
    "idle" (wet, dry). Both are random, of length one and at right angles, the sum of their entries zero. L0H0 moves the
    first to ":", L0H1 the second, so that both can be decoded there with no error; the logits read the first alone.
    Nothing about the idle direction changes any logit, though it is the larger.

    The task's labels are what each clean prompt says along each.

    Raises:
        ValueError: A strength of 0, with which there is nothing to be answered.
    """
    if strength == 0:
        raise ValueError("strength=0 leaves nothing that tells hot from cold; give another number")
    used, idle = _random_pair(seed)
    feature = lambda vector: {("coordinate", i): float(x) for i, x in enumerate(vector)}
    blank = Blank.of(
        [*feature(used), "asks", "is word"], [*map("-".join, product(_HEAT, _RAIN)), *_HEAT, "and", ":"], 1, 2
    )
    for (i, heat), (j, rain) in product(enumerate(_HEAT), enumerate(_RAIN)):
        said = strength * (1 - 2 * i) * used + idle_strength * (1 - 2 * j) * idle
        blank.embed(f"{heat}-{rain}", feature(said) | {"is word": 1.0})
    blank.embed(":", {"asks": 1.0})
    ask: Features = {"asks": 1.0}
    for head, direction in enumerate((used, idle)):
        blank.head(0, head, [(ask, {"is word": 1.0}, _SHARP)], [(feature(direction), feature(direction))])
    for word, sign in zip(_HEAT, (5.0, -5.0)):
        blank.unembed(word, feature(sign * used))
    model = blank.model(backend)
    rows = [
        {
            "clean": f"{BOS} {a}-{b} and :",
            "corrupt": f"{BOS} {c}-{d} and :",
            "right": a,
            "wrong": c,
            "used": a,
            "idle": b,
        }
        for a, b, c, d in product(_HEAT, _RAIN, _HEAT, _RAIN)
        if a != c
    ]
    shared = {("embed", "L0H0.v"), ("L0H0", "logits")}
    edges = {"corrupt": frozenset(shared), "zero": frozenset(shared | {("embed", "L0H0.q"), ("embed", "L0H0.k")})}
    wide = torch.nn.functional.pad(torch.stack([used, idle]), (0, model.shape.d_model - _SIZE))
    directions = {name: (Site("resid_post", 0), vector) for name, vector in zip(("used", "idle"), wide)}
    return Known("planted", model, from_rows(model, rows, "planted"), edges, directions)


def _random_pair(seed: int) -> Float[Tensor, "2 size"]:
    """Two random directions at right angles to each other and to the vector of ones."""
    vectors = torch.randn(3, _SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors[0] = 1.0
    return torch.linalg.qr(vectors.T)[0].T[1:]
