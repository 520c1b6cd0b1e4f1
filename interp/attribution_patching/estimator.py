"""How patching is estimated: where gradients are taken, and what is done about their known faults."""

from dataclasses import dataclass

from interp.quadrature import gauss_legendre


@dataclass(frozen=True)
class Estimator:
    """How patching is estimated.

    Attributes:
        path: Where gradients are taken: None, in the corrupt run; "inputs", averaged along the straight path of the
            token embeddings to those of the clean run; "own", along each node's own path, one pass for each node and
            step: given steps enough, that is the exact effect.
        steps: Points on the path (Gauss-Legendre).
        qk_fix: For `q` and `k`: take the change of the attention pattern exactly, and the gradient from there on.
        grad_drop: Leave the gradient through each layer out in turn, and average the sizes of the estimates (AtP*), so
            that contributions of different layers cannot cancel; the estimate has no sign then.
    """

    path: str | None = None
    steps: int = 1
    qk_fix: bool = False
    grad_drop: bool = False

    def __post_init__(self) -> None:
        if self.path not in (None, "inputs", "own"):
            raise ValueError(f"gradients are taken along None, 'inputs' or 'own', not {self.path!r}")
        if self.steps < 1 or (self.path is None and self.steps != 1):
            raise ValueError(f"steps={self.steps} on path {self.path!r}; a path has steps from 1 on, None has just one")
        if self.path == "own" and (self.qk_fix or self.grad_drop):
            raise ValueError("along a node's own path the estimate becomes exact; leave qk_fix and grad_drop out")

    @property
    def plain(self) -> bool:
        """Whether the gradient of the corrupt run as it is is all that is needed."""
        return self.path is None and not (self.qk_fix or self.grad_drop)

    def points(self) -> list[tuple[float, float]]:
        """Points on the path, from 0 at the corrupt run to 1 at the clean one, with their weights."""
        if self.path is None:
            return [(0.0, 1.0)]
        rule = gauss_legendre(self.steps)
        return list(zip(rule.points, rule.weights))


ATP = Estimator()
ATP_STAR = Estimator(qk_fix=True, grad_drop=True)
INPUTS = Estimator("inputs", steps=5)
