"""Mechanistic interpretability of small language models: run, read, edit, measure."""

from interp import ablation as ablation
from interp import attribution as attribution
from interp import attribution_patching as attribution_patching
from interp import circuits as circuits
from interp import components as components
from interp import edits as edits
from interp import effects as effects
from interp import english as english
from interp import interactions as interactions
from interp import lens as lens
from interp import metrics as metrics
from interp import patching as patching
from interp import plots as plots
from interp import probing as probing
from interp import stats as stats
from interp import steering as steering
from interp import subspaces as subspaces
from interp import tasks as tasks
from interp import weights as weights
from interp.backends import BACKENDS as BACKENDS
from interp.backends import load as load
from interp.checking import check as check
from interp.completion import tidy as _tidy
from interp.edits import Edit as Edit
from interp.generation import generate as generate
from interp.model import Model as Model
from interp.sites import Site as Site
from interp.traces import Tokens as Tokens
from interp.traces import Trace as Trace
from interp.version import __version__ as __version__

__all__ = [
    "BACKENDS",
    "Edit",
    "Model",
    "Site",
    "Tokens",
    "Trace",
    "__version__",
    "ablation",
    "attribution",
    "attribution_patching",
    "check",
    "circuits",
    "components",
    "edits",
    "effects",
    "english",
    "generate",
    "interactions",
    "lens",
    "load",
    "metrics",
    "patching",
    "plots",
    "probing",
    "stats",
    "steering",
    "subspaces",
    "tasks",
    "weights",
]


def __dir__() -> list[str]:
    """What completion offers: not the modules that these are made of, which are imported by their full names."""
    return sorted(__all__)


_tidy({name: globals()[name] for name in __all__})
