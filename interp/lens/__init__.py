"""Lenses: what would the model predict if it stopped at a layer, and what else do its hidden states say?"""

from interp.lens.causal import fidelity as fidelity
from interp.lens.comparing import compare as compare
from interp.lens.contributions import neurons as neurons
from interp.lens.decoding import decode as decode
from interp.lens.foreseeing import foresee as foresee
from interp.lens.foreseeing import foresight as foresight
from interp.lens.future import FutureLens as FutureLens
from interp.lens.future import fit_future as fit_future
from interp.lens.logit import logit_lens as logit_lens
from interp.lens.patchscopes import inspect as inspect
from interp.lens.patchscopes import patchscope as patchscope
from interp.lens.tuned import TunedLens as TunedLens
from interp.lens.tuned import identity as identity
from interp.lens.tuned import load as load
from interp.lens.tuning import tune as tune
