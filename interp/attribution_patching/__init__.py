"""Attribution patching: what would patching each node do, estimated for all of them by a few backward passes?

The estimate is the clean minus the corrupt activation, times the gradient of the metric in the corrupt run (AtP: Nanda
2023; Syed et al. 2023, arXiv:2310.10348). It is wrong where the model is not linear between the two, above all at
softmaxes and where contributions cancel; AtP* (Kramár et al. 2024, arXiv:2403.00745) mends both, integrated gradients
along the inputs (Hanna et al. 2024, arXiv:2403.17806) average over the way. `verify` says how good an estimate is.
"""

from interp.attribution_patching.estimates import estimate as estimate
from interp.attribution_patching.estimates import verify as verify
from interp.attribution_patching.estimator import ATP as ATP
from interp.attribution_patching.estimator import ATP_STAR as ATP_STAR
from interp.attribution_patching.estimator import INPUTS as INPUTS
from interp.attribution_patching.estimator import Estimator as Estimator
