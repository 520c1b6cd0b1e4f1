"""Mechanistic interpretability of small language models: run, read, edit, measure."""

from interp import ablation as ablation
from interp import attribution as attribution
from interp import attribution_patching as attribution_patching
from interp import edits as edits
from interp import english as english
from interp import lens as lens
from interp import metrics as metrics
from interp import patching as patching
from interp import plots as plots
from interp import probing as probing
from interp import stats as stats
from interp import steering as steering
from interp import tasks as tasks
from interp.backends import BACKENDS as BACKENDS
from interp.backends import load as load
from interp.checking import check as check
from interp.edits import Edit as Edit
from interp.generation import generate as generate
from interp.model import Model as Model
from interp.sites import Site as Site
from interp.traces import Tokens as Tokens
from interp.traces import Trace as Trace
